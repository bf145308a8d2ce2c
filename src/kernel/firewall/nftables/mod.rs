//! nf_tables over netlink, without the `nft` program.
//!
//! ```text
//! Ruleset ─encode─▶ TableState ─messages─▶ transaction ─▶ kernel
//!                       ▲ │                                 │
//!                       │ └─text─▶ canonical lines          │
//!                       └───────────────read────────────────┘
//! ```
//!
//! `TableState` describes both the desired table and the table in the kernel, and the same
//! decoder turns both into text, so that a comparison of the lines finds every difference. Our
//! table carries a comment as the mark of ownership. A table of our name without the comment
//! belongs to another program and stays untouched.

mod contact;
mod counters;
mod decode;
mod encode;
mod expression;
mod foreign;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod marks;
mod message;
mod probe;
mod protection;
mod read;
mod records;
mod register;
mod sets;
mod table;
mod text;
mod traces;
mod transaction;
mod uapi;
mod ways;

use std::collections::BTreeSet;

use crate::firewall::marks::MarkUse;
use crate::firewall::{
    BackendKind, BlockedRecord, DroppedTraffic, ObservedFirewall, OwnedFirewall, PathTraffic,
    Ruleset, SavedRules, Variant,
};
use crate::judge::chain::BaseChain;
use crate::kernel::firewall::backend::FirewallBackend;
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::firewall::extras::{Extra, Extras};

use contact::{absence, contact, failed, open};
use message::{GUARD_TABLE, TABLE};
pub use probe::{Probe, probe};
pub use protection::Protection;
use table::TableState;
pub use ways::WaysCounters;

static EXTRAS: Extras = Extras::new(&Extra::ALL);

/// The table of a check without a commit: the kernel never keeps it, and a foreign table of our
/// name is no obstacle.
const REHEARSAL: &str = "trailblazer-check";

/// The nf_tables backend. Each operation opens a socket of its own, in the network namespace of the
/// calling thread; changes of a protected table go through the socket of the [`Protection`].
#[derive(Debug)]
pub struct Nftables {
    table: &'static str,
    protection: Protection,
}

impl Default for Nftables {
    fn default() -> Self {
        Self::new()
    }
}

impl Nftables {
    /// A backend for the network namespace of the calling thread.
    pub fn new() -> Self {
        Nftables {
            table: TABLE,
            protection: Protection::default(),
        }
    }

    /// The same with the table beside iptables.
    pub(super) fn beside_iptables() -> Self {
        Nftables {
            table: GUARD_TABLE,
            protection: Protection::default(),
        }
    }

    /// True if the kernel has nf_tables, whether or not this process may read it.
    pub(super) fn exists() -> bool {
        match contact() {
            Ok(_) => true,
            Err(error) => !matches!(absence(&error), Some(ObservedFirewall::Unavailable(_))),
        }
    }

    fn encode(&self, ruleset: &Ruleset, flags: u32) -> Result<TableState, FirewallError> {
        Ok(TableState {
            flags,
            ..encode::table(self.table, ruleset)?
        })
    }

    fn named(&self, operation: &str) -> String {
        format!("{operation} table inet {}", self.table)
    }
}

/// True if nf_tables holds chains of our iptables backend. False without the privilege to look.
///
/// # Errors
/// When the answer remains unknown.
pub fn holds_iptables_chains(prefix: &str) -> Result<bool, FirewallError> {
    let asked = contact().and_then(|mut wire| read::any_chain_begins_with(&mut wire, prefix));
    match asked {
        Ok(found) => Ok(found),
        Err(error) if absence(&error).is_some() => Ok(false),
        Err(error) => Err(failed("look for chains of iptables", error)),
    }
}

/// The foreign rules of nf_tables that read or write marks. Empty without nf_tables.
///
/// # Errors
/// When the rules remain unknown.
pub fn foreign_marks() -> Result<BTreeSet<MarkUse>, FirewallError> {
    match contact().and_then(|mut wire| marks::foreign(&mut wire)) {
        Ok(found) => Ok(found),
        Err(error) => match absence(&error) {
            Some(ObservedFirewall::Unavailable(_)) => Ok(BTreeSet::new()),
            _ => Err(failed("read the marks of foreign rules", error)),
        },
    }
}

/// The record of the packets that our rules have dropped.
#[derive(Debug)]
pub enum Blocked {
    Read(BlockedRecord),
    /// The kernel has no table of ours.
    Absent,
    /// Nobody can read a record on this host, or this process can't: the reason.
    Unreadable(String),
}

/// Reads the record of dropped packets.
///
/// # Errors
/// When the record remains unknown.
pub fn blocked() -> Result<Blocked, FirewallError> {
    match contact().and_then(|mut wire| records::read(&mut wire)) {
        Ok(Some(record)) => Ok(Blocked::Read(record)),
        Ok(None) => Ok(Blocked::Absent),
        Err(error) => match absence(&error) {
            Some(ObservedFirewall::Unavailable(why) | ObservedFirewall::Unreadable(why)) => {
                Ok(Blocked::Unreadable(why))
            }
            _ => Err(failed("read the record of dropped packets", error)),
        },
    }
}

/// The foreign chains in the path of forwarded packets, as far as nf_tables holds them.
#[derive(Debug, Default)]
pub struct ForeignChains {
    read: Option<(Vec<BaseChain>, u32)>,
}

impl ForeignChains {
    /// Reads the chains again if any table has changed since the last reading. Empty without
    /// nf_tables.
    ///
    /// # Errors
    /// When the chains remain unknown.
    pub fn look(&mut self) -> Result<&[BaseChain], FirewallError> {
        let known = self.read.as_ref().map(|(_, generation)| *generation);
        let changed = contact().and_then(|mut wire| foreign::changed_chains(&mut wire, known));
        match changed {
            Ok(None) => {}
            Ok(Some(read)) => self.read = Some(read),
            Err(error) => match absence(&error) {
                Some(ObservedFirewall::Unavailable(_)) => self.read = None,
                _ => return Err(failed("read the foreign chains of nf_tables", error)),
            },
        }
        Ok(self.read.as_ref().map_or(&[], |(chains, _)| chains))
    }
}

/// True if family and name are those of our table.
pub fn table_is_ours(family: u8, table: &str) -> bool {
    family == uapi::NFPROTO_INET && table == TABLE
}

/// True if the name is that of one of our tables of the family `inet`.
pub fn is_our_table(table: &str) -> bool {
    [TABLE, GUARD_TABLE].contains(&table)
}

/// True if family and name are those of our table beside iptables.
pub(super) fn is_guard_table(family: u8, table: &str) -> bool {
    family == uapi::NFPROTO_INET && table == GUARD_TABLE
}

impl FirewallBackend for Nftables {
    fn kind(&self) -> BackendKind {
        BackendKind::Nftables
    }

    fn description(&self) -> String {
        "nf_tables of the kernel".to_owned()
    }

    fn variant(&self) -> Variant {
        Variant::Nft
    }

    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        matches!(found, ObservedFirewall::Unreadable(_))
    }

    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        let operation = self.named("read");
        let operation = operation.as_str();
        let mut wire = match contact() {
            Ok(wire) => wire,
            Err(error) => return absence(&error).ok_or_else(|| failed(operation, error)),
        };
        let reading =
            read::whole(&mut wire, self.table).map_err(|error| failed(operation, error))?;
        let Some(mut table) = reading.table else {
            return Ok(ObservedFirewall::Absent);
        };
        table.flags = self.protection.flags_of(&table);
        if !table.is_ours() {
            return Ok(ObservedFirewall::Foreign(table.foreign()));
        }
        Ok(ObservedFirewall::Owned(OwnedFirewall {
            text: text::lines(&table).map_err(|error| failed(operation, error))?,
            snapshot: SavedRules(table.record()),
        }))
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        text::lines(&self.encode(&EXTRAS.usable(ruleset), self.protection.flags())?)
            .map_err(|error| failed("render", error))
    }

    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        match contact().and_then(|mut wire| read::counted(&mut wire, self.table)) {
            Ok(Some((table, found))) if table.is_ours() => Ok(counters::sum(&found)),
            Ok(_) => Ok(None),
            // Without nf_tables there are no counters.
            Err(error) => match absence(&error) {
                Some(ObservedFirewall::Unavailable(_)) => Ok(None),
                _ => Err(failed(&self.named("read the counters of"), error)),
            },
        }
    }

    fn dropped(&mut self) -> Result<Option<DroppedTraffic>, FirewallError> {
        Ok(self.traffic()?.map(|traffic| traffic.dropped))
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let operation = &self.named("replace");
        EXTRAS.install(ruleset, |ruleset| {
            self.protection.transact(operation, &|wire, flags| {
                let messages = self.encode(ruleset, flags)?.messages();
                transaction::replace_ours(wire, self.table, operation, &messages)
            })
        })
    }

    /// An empty snapshot stands for the absence of our table.
    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        let operation = &self.named("restore");
        let messages =
            table::replay(self.table, &snapshot.0).map_err(|error| failed(operation, error))?;
        self.protection.transact(operation, &|wire, _| {
            transaction::replace_ours(wire, self.table, operation, &messages)
        })
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        let operation = &self.named("delete");
        self.protection.transact(operation, &|wire, _| {
            transaction::replace_ours(wire, self.table, operation, &[])
        })
    }

    fn rehearse(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let operation = "check table inet trailblazer";
        EXTRAS.install(ruleset, |ruleset| {
            let table = TableState {
                name: REHEARSAL.to_owned(),
                ..encode::table(REHEARSAL, ruleset)?
            };
            let checked = transaction::check(&mut open(operation)?, &table.messages());
            checked.map_err(|(what, error)| failed(&format!("{operation}: {what}"), error))
        })
    }

    fn rehearses_fully(&self) -> bool {
        true
    }

    fn protect(&mut self, protection: &Protection) {
        self.protection = protection.clone();
    }

    fn marks_forwarded(&self) -> bool {
        true
    }
}
