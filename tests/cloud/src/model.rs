//! The contract of each request: names, types, required members and bounds, from AWS's own service
//! model. `tests/cloud/model.py` writes the table `model.txt`.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::ApiError;
use crate::request::Request;

/// The version of the API.
pub(crate) const VERSION: &str = "2016-11-15";

/// The contract of all actions of the double.
#[derive(Debug)]
pub(crate) struct Model {
    actions: BTreeMap<&'static str, BTreeMap<&'static str, Member>>,
}

/// The contract of one parameter.
#[derive(Debug, Clone, Copy)]
struct Member {
    kind: &'static str,
    required: bool,
    min: Option<i64>,
    max: Option<i64>,
}

impl Model {
    /// Reads the table.
    pub(crate) fn new() -> Model {
        let mut actions: BTreeMap<&str, BTreeMap<&str, Member>> = BTreeMap::new();
        let mut current = "";
        for line in include_str!("model.txt").lines() {
            match line.strip_prefix("  ") {
                None => {
                    current = line;
                    actions.entry(current).or_default();
                }
                Some(member) => {
                    let mut words = member.split(' ');
                    let (Some(key), Some(kind)) = (words.next(), words.next()) else {
                        continue;
                    };
                    let member = member_of(kind, words);
                    actions.entry(current).or_default().insert(key, member);
                }
            }
        }
        Model { actions }
    }

    /// The first breach of the contract, as EC2 answers it. The codes are of the reference's
    /// page "Error codes"; the messages are the double's own.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        if request.action.is_empty() {
            return Err(ApiError::misuse(
                "MissingAction",
                "The request has no action.",
            ));
        }
        if request.version != VERSION {
            let text = format!("The version '{}' is not {VERSION}.", request.version);
            return Err(ApiError::misuse("NoSuchVersion", text));
        }
        let Some(members) = self.actions.get(request.action.as_str()) else {
            let text = format!(
                "The action {} is not valid for this web service.",
                request.action
            );
            return Err(ApiError::misuse("InvalidAction", text));
        };
        let mut seen = BTreeSet::new();
        for (key, value) in &request.parameters {
            if !seen.insert(key.as_str()) {
                let text = format!("The parameter {key} is given twice.");
                return Err(ApiError::misuse("InvalidParameterCombination", text));
            }
            member(members, key)?.check(key, value)?;
        }
        indexes(&seen)?;
        lists(members, &seen)?;
        required(members, &seen)
    }
}

/// The contract of a parameter, from the words behind its type.
fn member_of(kind: &'static str, words: std::str::Split<'static, char>) -> Member {
    let mut member = Member {
        kind,
        required: false,
        min: None,
        max: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("min", bound)) => member.min = bound.parse().ok(),
            Some(("max", bound)) => member.max = bound.parse().ok(),
            _ => member.required |= word == "required",
        }
    }
    member
}

/// The contract of a key that was sent.
fn member<'a>(
    members: &'a BTreeMap<&'static str, Member>,
    key: &str,
) -> Result<&'a Member, ApiError> {
    let found = members.get(general(key).as_str());
    found
        .filter(|member| !matches!(member.kind, "list" | "structure"))
        .ok_or_else(|| {
            let text = format!("The parameter {key} is not recognized");
            ApiError::misuse("UnknownParameter", text)
        })
}

/// A key with N in place of each index.
fn general(key: &str) -> String {
    let parts = key.split('.');
    let parts = parts.map(|part| match part.parse::<u32>() {
        Ok(_) => "N",
        Err(_) => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

impl Member {
    /// Checks one value against type and bounds.
    fn check(&self, key: &str, value: &str) -> Result<(), ApiError> {
        let number: Option<i64> = match self.kind {
            "boolean" if value == "true" || value == "false" => return Ok(()),
            "integer" => value.parse::<i32>().ok().map(i64::from),
            "long" => value.parse().ok(),
            "string" => return Ok(()),
            _ => None,
        };
        let below = number.zip(self.min).is_some_and(|(n, min)| n < min);
        let above = number.zip(self.max).is_some_and(|(n, max)| n > max);
        if number.is_none() || below || above {
            let text = format!("Value ({value}) for parameter {key} is invalid.");
            return Err(ApiError::misuse("InvalidParameterValue", text));
        }
        Ok(())
    }
}

/// The members of each list, by the list's key: `Entry` has `Entry.1` and `Entry.2`.
fn members_of_lists<'a>(keys: &BTreeSet<&'a str>) -> BTreeMap<&'a str, BTreeSet<u32>> {
    let mut lists: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for key in keys {
        let mut end = 0;
        for part in key.split('.') {
            if let Ok(index) = part.parse() {
                lists.entry(&key[..end]).or_default().insert(index);
                end += part.len() + 1;
            } else {
                end += part.len() + usize::from(end > 0);
            }
        }
    }
    lists
}

/// Indexes run from 1 without a gap, as each of AWS's SDKs sends them.
fn indexes(keys: &BTreeSet<&str>) -> Result<(), ApiError> {
    for (list, indexes) in members_of_lists(keys) {
        let wanted = 1..=indexes.len();
        if !indexes.iter().map(|index| *index as usize).eq(wanted) {
            let text = format!("The members of {list} are not numbered from 1 without a gap.");
            return Err(ApiError::misuse("InvalidParameterValue", text));
        }
    }
    Ok(())
}

/// The lengths of lists.
fn lists(members: &BTreeMap<&'static str, Member>, keys: &BTreeSet<&str>) -> Result<(), ApiError> {
    for (list, indexes) in members_of_lists(keys) {
        let member = members.get(general(list).as_str());
        let max = member.and_then(|member| member.max);
        if max.is_some_and(|max| indexes.len() as i64 > max) {
            return Err(ApiError::misuse(
                "InvalidParameterValue",
                format!(
                    "Request cannot contain more than {} members of {list}.",
                    max.unwrap_or_default()
                ),
            ));
        }
    }
    Ok(())
}

/// The members that must be there: those of the action itself, and those of each structure of
/// which another member was sent.
fn required(
    members: &BTreeMap<&'static str, Member>,
    keys: &BTreeSet<&str>,
) -> Result<(), ApiError> {
    let missing = |key: String| {
        let text = format!("The request must contain the parameter {key}");
        Err(ApiError::misuse("MissingParameter", text))
    };
    for (key, _) in members.iter().filter(|(_, member)| member.required) {
        let Some((structure, name)) = key.rsplit_once('.') else {
            let list = format!("{key}.");
            if !keys.contains(key) && !keys.iter().any(|sent| sent.starts_with(&list)) {
                return missing((*key).to_owned());
            }
            continue;
        };
        for sent in keys {
            let Some((holder, _)) = sent.rsplit_once('.') else {
                continue;
            };
            let wanted = format!("{holder}.{name}");
            if general(holder) == structure && !keys.contains(wanted.as_str()) {
                return missing(wanted);
            }
        }
    }
    Ok(())
}
