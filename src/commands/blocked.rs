//! `trailblazer blocked`: the packets that our rules have dropped, from the kernel's list.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::broken_config;
use super::{complain, print};
use crate::cli::BlockedArgs;
use crate::columns::aligned;
use crate::exit;
use crate::firewall::{BlockedEntry, BlockedRecord, DropReason};
use crate::kernel::firewall::nftables::{Blocked, blocked};
use crate::status::text::figures::{bytes, span};
use crate::types::{Family, PerFamily};
use crate::words::protocol_name;

const NO_TABLE: &str = "no list: no nf_tables table of Trailblazer is in the kernel. A pass adds \
    one: in the role nat, and on a host with nftables and [egress] enforce (the default)";
const NO_RULES: &str = "no list: no rule of Trailblazer in the kernel drops packets. The role nat has \
    such rules, and a host with nftables and [egress] enforce (the default)";
const NO_SETS: &str = "no list: packets are dropped and counted (`trailblazer status`), but the rules \
    list none. This kernel has refused the list, or the rules are those of an earlier version \
    (`trailblazer reconcile` replaces them)";
const EMPTY: &str = "no packet was dropped in the last hour";

/// The answer of the command.
struct Answer {
    record: BlockedRecord,
    /// The reason why there is no list.
    lacking: Option<String>,
    /// The number of entries to show.
    shown: usize,
    now: Timestamp,
    fault: Option<String>,
}

/// Runs `blocked` and returns the exit code.
pub fn run(arguments: &BlockedArgs) -> u8 {
    let base = &arguments.base;
    let shown = match broken_config::settings(base, &base.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let (record, lacking) = match blocked() {
        Ok(found) => split(found),
        Err(error) => (BlockedRecord::default(), Some(error.to_string())),
    };
    let answer = Answer {
        shown: if arguments.all {
            record.entries.len()
        } else {
            arguments.first.min(record.entries.len())
        },
        record,
        lacking,
        now: Timestamp::now(),
        fault: shown.fault,
    };
    print(base.output, || answer.to_text(), || answer.to_json());
    match &answer.lacking {
        Some(why) => {
            complain(why);
            exit::FAILED
        }
        None => exit::OK,
    }
}

/// The record, and the reason for the lack of a list.
fn split(found: Blocked) -> (BlockedRecord, Option<String>) {
    let (record, lacking) = match found {
        Blocked::Read(record) => {
            let lacking = match (&record.dropped, record.lists.is_empty()) {
                (_, false) => None,
                (None, true) => Some(NO_RULES),
                (Some(_), true) => Some(NO_SETS),
            };
            (record, lacking.map(str::to_owned))
        }
        Blocked::Absent => (BlockedRecord::default(), Some(NO_TABLE.to_owned())),
        Blocked::Unreadable(why) => (BlockedRecord::default(), Some(format!("no list: {why}"))),
    };
    (record, lacking)
}

impl Answer {
    fn entries(&self) -> &[BlockedEntry] {
        &self.record.entries[..self.shown]
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if self.lacking.is_some() {
            return text;
        }
        if self.record.entries.is_empty() {
            let _ = writeln!(text, "{EMPTY}");
        } else {
            for line in aligned(&rows(self.entries()), 4) {
                let _ = writeln!(text, "{line}");
            }
        }
        let hidden = self.record.entries.len() - self.shown;
        if hidden > 0 {
            let _ = writeln!(text, "and {hidden} more: --all");
        }
        for (reason, family) in &self.record.full {
            let _ = writeln!(
                text,
                "the list of {reason} {family} is full: packets to further destinations are dropped and counted, and not listed"
            );
        }
        if let Some(dropped) = self.record.dropped {
            for reason in DropReason::ALL {
                let PerFamily { ipv4, ipv6 } = dropped.of(reason);
                if ipv4.packets + ipv6.packets > 0 {
                    let _ = writeln!(
                        text,
                        "{reason}, since the counters started: ipv4 {}, ipv6 {} packets",
                        ipv4.packets, ipv6.packets
                    );
                }
            }
        }
        text
    }

    fn to_json(&self) -> Value {
        let ago = |ago: Duration| {
            let at = self.now.as_second();
            at.saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX))
        };
        let entry = |entry: &BlockedEntry| {
            json!({
                "reason": entry.reason.as_str(),
                "family": Family::of(entry.source),
                "source": entry.source,
                "destination": entry.destination,
                "protocol": protocol_name(entry.protocol),
                "port": entry.port,
                "packets": entry.traffic.packets,
                "bytes": entry.traffic.bytes,
                "first_at": entry.first.map(ago),
                "last_at": ago(entry.last),
            })
        };
        let full = self.record.full.iter();
        let full =
            full.map(|(reason, family)| json!({"reason": reason.as_str(), "family": family}));
        json!({
            "entries": self.entries().iter().map(entry).collect::<Vec<_>>(),
            "entries_total": self.record.entries.len(),
            "full": full.collect::<Vec<_>>(),
            "dropped": self.record.dropped,
            "error": self.lacking,
            "notes": self.fault.iter().collect::<Vec<_>>(),
        })
    }
}

/// The rows of the table, the heading first.
fn rows(entries: &[BlockedEntry]) -> Vec<[String; 9]> {
    let heading = [
        "SOURCE",
        "DESTINATION",
        "REASON",
        "PROTOCOL",
        "PORT",
        "PACKETS",
        "BYTES",
        "FIRST",
        "LAST",
    ];
    let ago = |ago: Duration| format!("{} ago", span(ago.as_secs()));
    let unknown = || "-".to_owned();
    let row = |entry: &BlockedEntry| {
        [
            entry.source.to_string(),
            entry.destination.to_string(),
            entry.reason.to_string(),
            protocol_name(entry.protocol),
            entry.port.map_or_else(unknown, |port| port.to_string()),
            entry.traffic.packets.to_string(),
            bytes(entry.traffic.bytes),
            entry.first.map_or_else(unknown, ago),
            ago(entry.last),
        ]
    };
    let heading = heading.map(str::to_owned);
    std::iter::once(heading)
        .chain(entries.iter().map(row))
        .collect()
}
