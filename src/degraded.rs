//! Parts of the promise that are missing or defeated, as values. Pure.
//!
//! A fault in one part never stops the others: the stage that finds the fault leaves the part out
//! and returns a [`Degradation`], and the pass goes on with the rest. One list reaches the report,
//! the journal, `status`, `check`, health and metrics, so all of them give the same answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::escaped;
use crate::types::Family;

/// A part of the promise. The order is the order of importance: the egress first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Packets to partners leave by an egress gateway or not at all (host role).
    Egress,
    /// Forwarded packets leave with an egress address (NAT role).
    Translation,
    /// Packets of hosts are forwarded at all (NAT role).
    Forwarding,
    /// Inbound flows keep their path.
    Inbound,
    /// Packets to selected prefixes take the bypass path.
    Bypass,
    /// The selection holds what the config asks for.
    Selection,
    /// A sysctl has the value that the config asks for.
    Sysctl,
    /// Bytes are counted by path.
    Counting,
    /// Files of the state directory can be read and written.
    State,
}

words!(Part {
    Egress => "egress",
    Translation => "translation",
    Forwarding => "forwarding",
    Inbound => "inbound",
    Bypass => "bypass",
    Selection => "selection",
    Sysctl => "sysctl",
    Counting => "counting",
    State => "state",
});

/// A part that is missing or defeated. While there is one, the state is *degraded*: `reconcile`
/// and `status` exit with 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Degradation {
    pub part: Part,
    /// The family concerned; `None` where both are, or the part has none.
    pub family: Option<Family>,
    /// The fault and its place, in one clause without a full stop.
    pub reason: String,
    /// The remedy, in one clause; empty where none is known to help.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Degradation {
    /// A degradation without advice.
    pub fn new(part: Part, family: impl Into<Option<Family>>, reason: impl Into<String>) -> Self {
        Degradation {
            part,
            family: family.into(),
            reason: escaped(&reason.into()).into_owned(),
            advice: String::new(),
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Degradation {
            advice: escaped(&advice.into()).into_owned(),
            ..self
        }
    }

    /// Reason and remedy, without the part and the family.
    pub fn fault_and_remedy(&self) -> String {
        match self.advice.as_str() {
            "" => self.reason.clone(),
            advice => format!("{}; {advice}", self.reason),
        }
    }
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(family) = self.family {
            write!(f, "{family} ")?;
        }
        write!(f, "{}: {}", self.part, self.fault_and_remedy())
    }
}

/// The first part of a list, with the number of the others. `None` for an empty list.
pub fn first_of(list: &[Degradation]) -> Option<String> {
    let (first, others) = list.split_first()?;
    Some(match others.len() {
        0 => first.to_string(),
        count => format!("{first} (and {count} more)"),
    })
}

/// Adds degradations to a list, without doubles, the most important part first.
pub fn merge(list: &mut Vec<Degradation>, more: impl IntoIterator<Item = Degradation>) {
    list.extend(more);
    list.sort();
    list.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_family_part_fault_and_remedy() {
        let bare = Degradation::new(
            Part::State,
            None,
            "the journal cannot be written: disk full",
        );
        assert_eq!(
            bare.to_string(),
            "state: the journal cannot be written: disk full"
        );
        let whole = Degradation::new(Part::Egress, Family::Ipv4, "rule 1000 comes first")
            .with_advice("remove the rule");
        assert_eq!(
            whole.to_string(),
            "ipv4 egress: rule 1000 comes first; remove the rule"
        );
    }

    #[test]
    fn merge_puts_the_egress_first_and_drops_doubles() {
        let state = Degradation::new(Part::State, None, "x");
        let egress = Degradation::new(Part::Egress, Family::Ipv6, "y");
        let mut list = vec![state.clone()];
        merge(&mut list, [egress.clone(), state.clone()]);
        assert_eq!(list, [egress, state]);
    }
}
