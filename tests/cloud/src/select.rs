//! Ids, filters and pages of the describing actions.

use crate::answer::ApiError;
use crate::knobs::Settings;
use crate::request::{Filter, Request};
use crate::state::Tags;

/// The most values of a filter ("Filtering using the CLI and API": 200 values).
const VALUES: usize = 200;

/// Refuses filters that the action doesn't have. `tags` allows `tag:KEY` and `tag-key`.
pub(crate) fn check(filters: &[Filter<'_>], known: &[&str], tags: bool) -> Result<(), ApiError> {
    for filter in filters {
        let of_tags = filter.name.starts_with("tag:") || filter.name == "tag-key";
        let is_known = known.contains(&filter.name) || (tags && of_tags);
        if !is_known {
            let text = format!("The filter '{}' is invalid", filter.name);
            return Err(ApiError::misuse("InvalidParameterValue", text));
        }
        if filter.values.is_empty() || filter.values.len() > VALUES {
            let text = format!("The filter '{}' needs 1 to 200 values", filter.name);
            return Err(ApiError::misuse("InvalidParameterValue", text));
        }
    }
    Ok(())
}

/// True if each filter has a value that matches.
pub(crate) fn matches(
    filters: &[Filter<'_>],
    tags: &Tags,
    field: impl Fn(&str) -> Vec<String>,
) -> bool {
    filters.iter().all(|filter| {
        let own = match filter.name.strip_prefix("tag:") {
            Some(key) => tags.get(key).cloned().into_iter().collect(),
            None if filter.name == "tag-key" => tags.keys().cloned().collect(),
            None => field(filter.name),
        };
        let mut values = filter.values.iter();
        values.any(|value| own.iter().any(|own| glob(value, own)))
    })
}

/// Compares a text with a pattern: `*` stands for any characters, `?` for one.
fn glob(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            let ends = text.char_indices().map(|(at, _)| at);
            ends.chain([text.len()]).any(|at| glob(rest, &text[at..]))
        }
        Some(wanted) => {
            let mut own = text.chars();
            own.next().is_some_and(|c| wanted == '?' || wanted == c)
                && glob(chars.as_str(), own.as_str())
        }
    }
}

/// A page of the members, and the token of the next page.
pub(crate) fn page<T>(
    request: &Request,
    settings: &Settings,
    members: Vec<T>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    // The reference: "NextToken … all other parameters as in the first request".
    let others = request.parameters.iter();
    let others = others.filter(|(key, _)| key != "NextToken" && key != "MaxResults");
    let mut mark = 0xcbf2_9ce4_8422_2325_u64;
    let text = others.fold(request.action.clone(), |text, (key, value)| {
        format!("{text}&{key}={value}")
    });
    for byte in text.bytes() {
        mark = (mark ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let start = match request.get("NextToken") {
        None => 0,
        Some(token) => {
            let own = token.strip_prefix(&format!("{mark:016x}"));
            let start = own.and_then(|rest| usize::from_str_radix(rest, 16).ok());
            start.ok_or_else(|| {
                let text = "The specified token belongs to another request.";
                ApiError::misuse("InvalidNextToken", text)
            })?
        }
    };
    let asked = request.number("MaxResults");
    let asked = asked.and_then(|asked| usize::try_from(asked).ok());
    let size = asked.unwrap_or(usize::MAX).min(settings.page).max(1);
    let total = members.len();
    let shown: Vec<T> = members.into_iter().skip(start).take(size).collect();
    let end = start + shown.len();
    let next = (end < total).then(|| format!("{mark:016x}{end:08x}"));
    Ok((shown, next))
}
