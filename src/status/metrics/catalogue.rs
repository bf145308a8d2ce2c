//! Every metric: name, type, labels, meaning, and where in the snapshot its samples come from.
//! docs/metrics.md is this table for people; a test holds the two together.

use std::collections::BTreeMap;

use super::encode::Samples;
use crate::status::snapshot::{BreakerState, Freshness, PathTraffic, Snapshot, State, Traffic};
use crate::types::Family;

/// A metric's type, as Prometheus knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; begins again at 0 when the agent does.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value was at most so much.
    Histogram,
}

words!(Kind { Counter => "counter", Gauge => "gauge", Histogram => "histogram" });

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name; base units, counters end in `_total` (prometheus.io/docs/practices/naming).
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, in one line.
    pub help: &'static str,
    /// Its samples, from a snapshot.
    pub samples: fn(&Snapshot, &mut Samples<'_>),
}

/// Every metric, in the order in which they are written.
pub const CATALOGUE: &[Metric] = &[
    Metric {
        name: "trailblazer_build_info",
        kind: Kind::Gauge,
        labels: &["version", "role", "firewall"],
        help: "1; its labels say which version runs, in which role, with which firewall.",
        samples: |snapshot, out| {
            // Its name; the reason of the choice comes after it.
            let firewall = snapshot.firewall.as_deref().unwrap_or("");
            let firewall = firewall.split(' ').next().unwrap_or("");
            out.value(&[&snapshot.version, snapshot.role.as_str(), firewall], 1);
        },
    },
    Metric {
        name: "trailblazer_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the agent started, in seconds since the epoch.",
        samples: |snapshot, out| out.value(&[], snapshot.started_at),
    },
    Metric {
        name: "trailblazer_uptime_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Seconds since the agent started.",
        samples: |snapshot, out| out.value(&[], snapshot.uptime_s),
    },
    Metric {
        name: "trailblazer_state",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "1 for the state that the agent is in, 0 for the others.",
        samples: |snapshot, out| {
            for state in State::ALL {
                out.value(&[state.as_str()], flag(state == snapshot.state));
            }
        },
    },
    Metric {
        name: "trailblazer_in_force",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while what the config promises is in force in the kernel, else 0.",
        samples: |snapshot, out| out.value(&[], flag(snapshot.state == State::InForce)),
    },
    Metric {
        name: "trailblazer_in_force_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Seconds in force since the agent started; by the uptime, the availability.",
        samples: |snapshot, out| out.value(&[], snapshot.in_force_s),
    },
    Metric {
        name: "trailblazer_document_sync_token",
        kind: Kind::Gauge,
        labels: &[],
        help: "Sync token of the document in force: its publication, in seconds since the epoch. Absent while there is none.",
        samples: |snapshot, out| {
            if let Some(document) = &snapshot.document {
                out.value(&[], document.sync_token);
            }
        },
    },
    Metric {
        name: "trailblazer_document_age_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Seconds since a source last said that the document in force is the newest. Absent while there is none.",
        samples: |snapshot, out| {
            if let Some(document) = &snapshot.document {
                out.value(&[], document.age_s);
            }
        },
    },
    Metric {
        name: "trailblazer_document_freshness",
        kind: Kind::Gauge,
        labels: &["level"],
        help: "1 for what [agent] stale makes of that age (fresh, warn, alarm), 0 for the others. Absent while there is no document.",
        samples: |snapshot, out| {
            if let Some(document) = &snapshot.document {
                for level in Freshness::ALL {
                    out.value(&[level.as_str()], flag(level == document.freshness));
                }
            }
        },
    },
    Metric {
        name: "trailblazer_next_fetch_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Seconds until the source is asked next; 0 while it is being asked.",
        samples: |snapshot, out| out.value(&[], snapshot.source.next_fetch_in_s),
    },
    Metric {
        name: "trailblazer_breaker_state",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "1 for the state of the circuit breaker round the fetch (closed, open, half_open), 0 for the others.",
        samples: |snapshot, out| {
            for state in BreakerState::ALL {
                out.value(&[state.as_str()], flag(state == snapshot.source.breaker));
            }
        },
    },
    Metric {
        name: "trailblazer_fetch_failures_in_a_row",
        kind: Kind::Gauge,
        labels: &[],
        help: "Failed fetches since the last success.",
        samples: |snapshot, out| out.value(&[], snapshot.source.failures_in_a_row),
    },
    Metric {
        name: "trailblazer_fetches_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Fetches by result: changed, unchanged, held (by the guard), rejected (no acceptable document), failed (no answer).",
        samples: |snapshot, out| {
            let known = ["changed", "failed", "held", "rejected", "unchanged"];
            counts(&known, &snapshot.source.fetches, out);
        },
    },
    Metric {
        name: "trailblazer_fetch_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "How long fetches took.",
        samples: |snapshot, out| out.histogram(&[], &snapshot.source.latency),
    },
    Metric {
        name: "trailblazer_held",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the guard holds a document, else 0.",
        samples: |snapshot, out| out.value(&[], flag(snapshot.hold.is_some())),
    },
    Metric {
        name: "trailblazer_held_since_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Since when the guard holds, in seconds since the epoch. Absent while it doesn't.",
        samples: |snapshot, out| {
            if let Some(hold) = &snapshot.hold {
                out.value(&[], hold.since);
            }
        },
    },
    Metric {
        name: "trailblazer_held_until_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the hold ends by itself, if every fetch says the same until then, in seconds since the epoch. Absent while nothing is held.",
        samples: |snapshot, out| {
            if let Some(hold) = &snapshot.hold {
                out.value(&[], hold.until);
            }
        },
    },
    Metric {
        name: "trailblazer_hold_down_prefixes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Withdrawn prefixes that keep their route for [guard] hold_down.",
        samples: |snapshot, out| out.value(&[], snapshot.hold_down_total),
    },
    Metric {
        name: "trailblazer_prefixes",
        kind: Kind::Gauge,
        labels: &["service", "region", "family"],
        help: "Selected prefixes in force, before aggregation.",
        samples: |snapshot, out| {
            for group in &snapshot.selection {
                let labels = [&*group.service, &*group.region, group.family.as_str()];
                out.value(&labels, group.prefixes);
            }
        },
    },
    Metric {
        name: "trailblazer_routes",
        kind: Kind::Gauge,
        labels: &["family"],
        help: "Routes in the bypass table.",
        samples: |snapshot, out| {
            for family in Family::ALL {
                out.value(&[family.as_str()], snapshot.routes.get(family));
            }
        },
    },
    Metric {
        name: "trailblazer_drift_mended_total",
        kind: Kind::Counter,
        labels: &["object"],
        help: "Objects of ours that vanished or were changed by others, and were mended, by kind.",
        samples: |snapshot, out| {
            let known = ["nat", "nexthop", "route", "rule", "sysctl"];
            counts(&known, &snapshot.drift.mended, out);
        },
    },
    Metric {
        name: "trailblazer_drift_last_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When drift was last mended, in seconds since the epoch. Absent while there was none.",
        samples: |snapshot, out| {
            if let Some(at) = snapshot.drift.last_at {
                out.value(&[], at);
            }
        },
    },
    Metric {
        name: "trailblazer_conflicts",
        kind: Kind::Gauge,
        labels: &[],
        help: "Objects of ours that another program keeps changing back.",
        samples: |snapshot, out| out.value(&[], snapshot.drift.conflicts_total),
    },
    Metric {
        name: "trailblazer_event_overruns_total",
        kind: Kind::Counter,
        labels: &[],
        help: "How often the kernel dropped events for us (receive buffer overrun), upon which everything is read again.",
        samples: |snapshot, out| out.value(&[], snapshot.drift.overruns),
    },
    Metric {
        name: "trailblazer_bytes_total",
        kind: Kind::Counter,
        labels: &["path", "family"],
        help: "Bytes at the IP layer by the path that they took, both directions. Absent where they can't be counted.",
        samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.bytes),
    },
    Metric {
        name: "trailblazer_packets_total",
        kind: Kind::Counter,
        labels: &["path", "family"],
        help: "Packets by the path that they took, both directions. Absent where they can't be counted.",
        samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.packets),
    },
    Metric {
        name: "trailblazer_saved_dollars_total",
        kind: Kind::Counter,
        labels: &[],
        help: "What the bypass traffic would have cost through the NAT, at [agent] nat_price_per_gb. Absent where bytes can't be counted.",
        samples: |snapshot, out| {
            if let Some(dollars) = snapshot.saved_dollars {
                out.value(&[], dollars);
            }
        },
    },
    Metric {
        name: "trailblazer_passes_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        help: "Passes by outcome: in_sync, changed, held, rolled_back, failed.",
        samples: |snapshot, out| {
            let known = ["changed", "failed", "held", "in_sync", "rolled_back"];
            counts(&known, &snapshot.pass_totals.outcomes, out);
        },
    },
    Metric {
        name: "trailblazer_pass_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "How long passes took.",
        samples: |snapshot, out| out.histogram(&[], &snapshot.pass_totals.duration),
    },
    Metric {
        name: "trailblazer_last_pass_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the last pass ended, in seconds since the epoch. Absent before the first.",
        samples: |snapshot, out| {
            if let Some(pass) = snapshot.passes.first() {
                out.value(&[], pass.at);
            }
        },
    },
    Metric {
        name: "trailblazer_faults_total",
        kind: Kind::Counter,
        labels: &["whose"],
        help: "Faults by whose they are: ours (a pass failed, was rolled back, or stuck) or others (a source, the metadata service, a program that fights us).",
        samples: |snapshot, out| counts(&["others", "ours"], &snapshot.faults, out),
    },
];

fn flag(on: bool) -> u8 {
    u8::from(on)
}

/// A sample for each known word, and for any other that was counted: a series that begins with
/// its first event would hide that event from `increase()`.
fn counts(known: &[&str], counted: &BTreeMap<String, u64>, out: &mut Samples<'_>) {
    for word in known {
        out.value(&[word], counted.get(*word).unwrap_or(&0));
    }
    for (word, count) in counted {
        if !known.contains(&word.as_str()) {
            out.value(&[word], count);
        }
    }
}

fn traffic(snapshot: &Snapshot, out: &mut Samples<'_>, pick: fn(&Traffic) -> u64) {
    let Some(PathTraffic { bypass, egress }) = &snapshot.traffic else {
        return;
    };
    for (path, families) in [("bypass", bypass), ("egress", egress)] {
        for family in Family::ALL {
            let labels = [path, family.as_str()];
            out.value(&labels, pick(families.get(family)));
        }
    }
}
