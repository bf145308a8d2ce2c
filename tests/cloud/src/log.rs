//! Records for tests: calls, versions of lists, addresses that left their way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::router::Way;
use crate::state::State;

/// A call as the double took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The place in the order of calls, from 0.
    pub index: usize,
    /// The action.
    pub action: String,
    /// The parameters in the order of the form.
    pub parameters: Vec<(String, String)>,
    /// True for an action that changes something.
    pub mutating: bool,
    /// True for a call that only asks for permission.
    pub dry_run: bool,
    /// The time since the double's start.
    pub at: Duration,
    /// The code of the error; `None` for a success. A fault after the effect is not counted.
    pub error: Option<String>,
}

/// A version of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The number.
    pub number: i64,
    /// The prefixes.
    pub prefixes: BTreeSet<IpNet>,
    /// The index of the call that was taken last when the version came to be.
    pub call: usize,
}

/// An address whose way isn't the wanted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strayed {
    /// The number of calls that were taken before.
    pub calls: usize,
    /// The route table.
    pub table: String,
    /// The address.
    pub address: IpAddr,
    /// The way that it takes.
    pub way: Way,
}

/// Addresses that must keep their way after each change.
#[derive(Debug)]
pub(crate) struct Watch {
    pub table: String,
    pub addresses: Vec<IpAddr>,
    pub target: String,
}

/// The records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub calls: Vec<Call>,
    pub violations: Vec<String>,
    pub versions: BTreeMap<String, Vec<Version>>,
    pub watches: Vec<Watch>,
    pub strayed: Vec<Strayed>,
}

impl Records {
    /// Notes the versions that are new, and the watched addresses that left their way.
    pub(crate) fn note(&mut self, state: &State) {
        for (id, list) in &state.lists {
            if list.is_of_aws() {
                continue;
            }
            let known = self.versions.entry(id.clone()).or_default();
            let last = known.last().map_or(0, |version| version.number);
            for number in last + 1..=list.version() {
                let entries = list.at(number).unwrap_or_default();
                known.push(Version {
                    number,
                    prefixes: entries.iter().map(|entry| entry.cidr).collect(),
                    call: self.calls.len().saturating_sub(1),
                });
            }
        }
        for watch in &self.watches {
            let wanted = Way::Target(watch.target.clone());
            for address in &watch.addresses {
                let way = state.way(&watch.table, *address);
                if way != wanted {
                    self.strayed.push(Strayed {
                        calls: self.calls.len(),
                        table: watch.table.clone(),
                        address: *address,
                        way,
                    });
                }
            }
        }
    }
}
