//! `explain NAME`: each address of a host name.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Explanation, Page};
use crate::reconcile::remarked;

/// Longest wait for the resolver; its own timeout is 5 s for each server and try.
const WITHIN: Duration = Duration::from_secs(10);
/// Most addresses to explain.
const MOST: usize = 16;

/// The addresses of the name, as the resolver of this host orders them.
///
/// # Errors
/// The reason, for people.
pub(in crate::commands) async fn resolve(name: &str) -> Result<Resolved, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot resolve {name}: {why}");
    let lookup = tokio::time::timeout(WITHIN, tokio::net::lookup_host((name, 443)));
    let what = format_args!("the name resolution of {name}");
    let found = match remarked(what, WITHIN, lookup).await {
        Err(_) => {
            let seconds = WITHIN.as_secs();
            return Err(failed(&format_args!("no answer within {seconds} s")));
        }
        Ok(Err(error)) => return Err(failed(&error)),
        Ok(Ok(found)) => found,
    };
    let mut addresses = Vec::new();
    for address in found.map(|found| found.ip().to_canonical()) {
        if !addresses.contains(&address) && !address.is_unspecified() {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed(&"the name has no address"));
    }
    let left_out = addresses.len().saturating_sub(MOST);
    addresses.truncate(MOST);
    Ok(Resolved {
        addresses,
        left_out,
    })
}

/// The addresses of a name.
#[derive(Debug)]
pub(in crate::commands) struct Resolved {
    pub addresses: Vec<IpAddr>,
    /// Addresses beyond the bound of this command.
    pub left_out: usize,
}

impl From<Vec<IpAddr>> for Resolved {
    fn from(addresses: Vec<IpAddr>) -> Resolved {
        Resolved {
            addresses,
            left_out: 0,
        }
    }
}

/// A name with its explained addresses, at least one.
pub(super) struct Named<'a> {
    name: &'a str,
    explanations: Vec<Explanation>,
    left_out: usize,
}

impl<'a> Named<'a> {
    pub(super) fn new(name: &'a str, explanations: Vec<Explanation>, left_out: usize) -> Named<'a> {
        Named {
            name,
            explanations,
            left_out,
        }
    }

    /// The number of addresses by the word of the path, and the agreement of the kernel.
    fn summary(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for explanation in &self.explanations {
            let word = explanation.path.word();
            match counts.iter_mut().find(|(known, _)| *known == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word, 1)),
            }
        }
        let counts: Vec<String> = counts
            .into_iter()
            .map(|(word, count)| format!("{word} {count}"))
            .collect();
        let total = self.explanations.len() + self.left_out;
        let plural = if total == 1 { "" } else { "es" };
        let wrong = self.explanations.iter();
        let wrong = wrong.filter(|explanation| !explanation.agrees()).count();
        let verdict = if wrong == 0 {
            "the kernel agrees".to_owned()
        } else {
            format!("{wrong} not as expected")
        };
        let name = self.name;
        let rest = match self.left_out {
            0 => String::new(),
            count => format!(", {count} not looked at"),
        };
        format!(
            "{name} has {total} address{plural}: {}{rest}; {verdict}.",
            counts.join(", ")
        )
    }
}

impl From<&Named<'_>> for Page {
    fn from(named: &Named<'_>) -> Page {
        let mut text = String::new();
        for explanation in &named.explanations {
            let _ = writeln!(text, "{}", explanation.to_text());
        }
        let _ = writeln!(text, "{}", named.summary());
        let explained = named.explanations.iter();
        let agrees = named.explanations.iter().all(Explanation::agrees);
        let addresses: Vec<Value> = explained.map(Explanation::to_json).collect();
        Page {
            text,
            json: json!({
                "name": named.name,
                "addresses": addresses,
                "left_out": named.left_out,
                "agrees": agrees,
                "summary": named.summary(),
            }),
            good: named.explanations.iter().all(Explanation::is_good),
        }
    }
}
