//! Every metric: name, type, labels, help text, and the source of the samples in the snapshot.
//! docs/metrics.md repeats the table for people; a test compares both.

use super::encode::{Kind, Metric, counts};
use super::traffic::{SAVED, dropped, traffic};
use super::{flows, hops, vpc};
use crate::degraded::Part;
use crate::status::snapshot::{BreakerState, Freshness, State};
use crate::types::Family;

/// Every metric, in the order of the output.
pub const CATALOGUE: &[Metric] = &[
    Metric {
        name: "trailblazer_build_info",
        kind: Kind::Gauge,
        labels: &["version", "role", "firewall"],
        help: "Always 1; the labels hold the version, the role and the firewall in use.",
        samples: |snapshot, out| {
            // The field holds the name, a space, and the reason of the choice.
            let firewall = snapshot.firewall.as_deref().unwrap_or("");
            let firewall = firewall.split(' ').next().unwrap_or("");
            out.value(&[&snapshot.version, snapshot.role.as_str(), firewall], 1);
        },
    },
    Metric {
        name: "trailblazer_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Start time of the agent, in seconds since the epoch.",
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
        help: "1 for the current state of the agent, 0 for the other states.",
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
        help: "1 while the kernel holds all routes and rules of the config, else 0. vpc role: 1 while EC2's last answers hold all lists and routes of the config.",
        samples: |snapshot, out| out.value(&[], flag(snapshot.state == State::InForce)),
    },
    Metric {
        name: "trailblazer_degraded",
        kind: Kind::Gauge,
        labels: &["part", "family"],
        help: "Number of faults that leave a part out; the family is empty for a part of both families.",
        samples: |snapshot, out| {
            let families = std::iter::once(None).chain(Family::ALL.map(Some));
            for (part, family) in Part::ALL
                .iter()
                .flat_map(|part| families.clone().map(move |family| (part, family)))
            {
                let missing = snapshot.degraded.iter();
                let count = missing.filter(|it| it.part == *part && it.family == family);
                let family = family.map_or("", Family::as_str);
                out.value(&[part.as_str(), family], count.count());
            }
        },
    },
    Metric {
        name: "trailblazer_in_force_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Seconds in force since the agent started; divided by the uptime, the availability.",
        samples: |snapshot, out| out.value(&[], snapshot.in_force_s),
    },
    Metric {
        name: "trailblazer_config_loaded_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Time at which the agent loaded the config in force, in seconds since the epoch.",
        samples: |snapshot, out| {
            if let Some(config) = &snapshot.config {
                out.value(&[], config.loaded_at);
            }
        },
    },
    Metric {
        name: "trailblazer_config_reload_refused",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 from a refused reload to the next successful one, else 0.",
        samples: |snapshot, out| {
            if let Some(config) = &snapshot.config {
                out.value(&[], flag(config.refused.is_some()));
            }
        },
    },
    Metric {
        name: "trailblazer_config_reload_refused_since_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "First refused reload since the last successful one, in seconds since the epoch. Absent without one.",
        samples: |snapshot, out| {
            let config = snapshot.config.as_ref();
            if let Some(refused) = config.and_then(|config| config.refused.as_ref()) {
                out.value(&[], refused.since);
            }
        },
    },
    Metric {
        name: "trailblazer_config_differs",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the config file on disk has another content than the config in force, else 0. Absent if the file is unreadable.",
        samples: |snapshot, out| {
            let config = snapshot.config.as_ref();
            if let Some(differs) = config.and_then(|config| config.differs) {
                out.value(&[], flag(differs));
            }
        },
    },
    Metric {
        name: "trailblazer_document_sync_token",
        kind: Kind::Gauge,
        labels: &[],
        help: "Sync token of the document in force: the time of publication, in seconds since the epoch. Absent without a document.",
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
        help: "Seconds since a source last confirmed the document in force as the newest. Absent without a document.",
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
        help: "1 for the current level of the document's age by [agent] stale (fresh, warn, alarm), 0 for the other levels. Absent without a document.",
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
        help: "Seconds until the next fetch; 0 during a fetch.",
        samples: |snapshot, out| out.value(&[], snapshot.source.next_fetch_in_s),
    },
    Metric {
        name: "trailblazer_breaker_state",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "1 for the current state of the fetch's circuit breaker (closed, open, half_open), 0 for the other states.",
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
        help: "Failed fetches since the last successful fetch.",
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
        help: "Duration of fetches.",
        samples: |snapshot, out| out.histogram(&[], &snapshot.source.latency),
    },
    Metric {
        name: "trailblazer_held",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the guard holds a document back, else 0.",
        samples: |snapshot, out| out.value(&[], flag(snapshot.hold.is_some())),
    },
    Metric {
        name: "trailblazer_held_since_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Start of the guard's hold, in seconds since the epoch. Absent without a hold.",
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
        help: "End of the hold without an operator, if every fetch brings the same document until then, in seconds since the epoch. Absent without a hold.",
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
        help: "Routes in the bypass table. vpc role: routes of the route tables to the targets.",
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
        help: "Repaired objects by kind: routes, rules and firewall objects of Trailblazer that another program had deleted or changed.",
        samples: |snapshot, out| {
            let known = ["nat", "nexthop", "route", "rule", "sysctl", "xfrm_policy"];
            counts(&known, &snapshot.drift.mended, out);
        },
    },
    Metric {
        name: "trailblazer_drift_last_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Time of the last drift repair, in seconds since the epoch. Absent before the first repair.",
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
        help: "Objects of Trailblazer that another program keeps changing.",
        samples: |snapshot, out| out.value(&[], snapshot.drift.conflicts_total),
    },
    Metric {
        name: "trailblazer_event_overruns_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Overruns of the receive buffer for kernel events. After each overrun the agent reads the full state again.",
        samples: |snapshot, out| out.value(&[], snapshot.drift.overruns),
    },
    Metric {
        name: "trailblazer_bytes_total",
        kind: Kind::Counter,
        labels: &["path", "family"],
        help: "Bytes at the IP layer by path, both directions. Absent where counting is impossible.",
        samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.bytes),
    },
    Metric {
        name: "trailblazer_packets_total",
        kind: Kind::Counter,
        labels: &["path", "family"],
        help: "Packets by path, both directions. Absent where counting is impossible.",
        samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.packets),
    },
    Metric {
        name: "trailblazer_dropped_packets_total",
        kind: Kind::Counter,
        labels: &["clients", "family"],
        help: "Dropped packets. NAT role: forwarded packets that were about to leave by the egress interface with another address than an egress address. Clients: sources (of [nat] sources, translated by another program or not at all), outside (other clients, not translated). Host role, clients closed: packets to the internet on neither path ([egress] enforce). Absent where counting is impossible.",
        samples: dropped,
    },
    SAVED,
    hops::GATEWAY_UP,
    hops::GATEWAY_USABLE,
    hops::PROBE_SECONDS,
    hops::PROBE_LOSS,
    hops::PROBE_PERCENTILES,
    hops::PACKETS,
    hops::BYTES,
    hops::GATEWAY_DRAINED,
    hops::GATEWAY_FLOWS,
    hops::FLOWS_ENDED,
    hops::ADDRESS_PRESENT,
    flows::ENTRIES,
    flows::LIMIT,
    flows::INSERT_FAILED,
    flows::DROPPED,
    flows::EARLY_DROPPED,
    flows::BUSIEST_PORTS,
    flows::PINNED,
    flows::DISPLACED,
    vpc::ENTRIES,
    vpc::MAX_ENTRIES,
    vpc::VERSION,
    vpc::TABLES,
    vpc::HOLDS,
    vpc::REQUESTS,
    Metric {
        name: "trailblazer_passes_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        help: "Passes by outcome: in_sync, changed, held, waiting (no document yet), rolled_back, failed.",
        samples: |snapshot, out| {
            let known = [
                "changed",
                "failed",
                "held",
                "in_sync",
                "rolled_back",
                "waiting",
            ];
            counts(&known, &snapshot.pass_totals.outcomes, out);
        },
    },
    Metric {
        name: "trailblazer_pass_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Duration of passes.",
        samples: |snapshot, out| out.histogram(&[], &snapshot.pass_totals.duration),
    },
    Metric {
        name: "trailblazer_last_pass_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "End of the last pass, in seconds since the epoch. Absent before the first pass.",
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
        help: "Faults by origin: ours (a pass failed, was rolled back, or hung) or others (a source, the metadata service, a program that undoes repairs).",
        samples: |snapshot, out| counts(&["others", "ours"], &snapshot.faults, out),
    },
];

fn flag(on: bool) -> u8 {
    u8::from(on)
}
