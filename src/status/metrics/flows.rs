//! The metrics of conntrack, of translated flows and of pinned flows.

use std::collections::BTreeMap;

use super::encode::{Kind, Metric, Samples};
use crate::status::snapshot::{ConntrackStatus, FlowCount, Snapshot};
use crate::types::Family;

pub(super) const ENTRIES: Metric = Metric {
    name: "trailblazer_conntrack_entries",
    kind: Kind::Gauge,
    labels: &[],
    help: "Entries in conntrack's table of this network namespace. Absent where the kernel refuses.",
    samples: |snapshot, out| conntrack(snapshot, out, |table| Some(table.entries)),
};

pub(super) const LIMIT: Metric = Metric {
    name: "trailblazer_conntrack_limit",
    kind: Kind::Gauge,
    labels: &[],
    help: "Largest number of entries in conntrack's table; a full table drops new connections. Absent where the kernel refuses.",
    samples: |snapshot, out| conntrack(snapshot, out, |table| table.limit),
};

pub(super) const INSERT_FAILED: Metric = Metric {
    name: "trailblazer_conntrack_insert_failed_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Flows that found no free place in conntrack's table, such as a free port for a translation, since boot. Absent where the kernel refuses.",
    samples: |snapshot, out| conntrack(snapshot, out, |table| Some(table.insert_failed)),
};

pub(super) const DROPPED: Metric = Metric {
    name: "trailblazer_conntrack_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Packets dropped for want of an entry in conntrack's table, since boot. Absent where the kernel refuses.",
    samples: |snapshot, out| conntrack(snapshot, out, |table| Some(table.dropped)),
};

pub(super) const EARLY_DROPPED: Metric = Metric {
    name: "trailblazer_conntrack_early_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Entries of conntrack's table removed early to make room, since boot. Absent where the kernel refuses.",
    samples: |snapshot, out| conntrack(snapshot, out, |table| Some(table.early_dropped)),
};

pub(super) const BUSIEST_PORTS: Metric = Metric {
    name: "trailblazer_nat_busiest_ports",
    kind: Kind::Gauge,
    labels: &["address"],
    help: "Ports in use from an address of this NAT to its busiest destination (address, port and protocol), of 64512. Absent in the host role.",
    samples: |snapshot, out| {
        let mut busiest: BTreeMap<&str, u64> = BTreeMap::new();
        let tables = snapshot.conntrack.iter();
        for found in tables.flat_map(|table| &table.busiest) {
            let most = busiest.entry(&found.address).or_default();
            *most = found.ports.max(*most);
        }
        for (address, ports) in busiest {
            out.value(&[address], ports);
        }
    },
};

pub(super) const PINNED: Metric = Metric {
    name: "trailblazer_pinned_flows",
    kind: Kind::Gauge,
    labels: &["path", "family"],
    help: "Open flows that keep the path of their first packet ([egress] pin). Absent without pins, and where the kernel refuses.",
    samples: |snapshot, out| pinned(snapshot, out, |count| count.pinned),
};

pub(super) const DISPLACED: Metric = Metric {
    name: "trailblazer_displaced_flows",
    kind: Kind::Gauge,
    labels: &["path", "family"],
    help: "Pinned flows that keep another path than a new flow to the same destination would take, by the path that they keep. Absent without pins, and where the kernel refuses.",
    samples: |snapshot, out| pinned(snapshot, out, |count| count.displaced),
};

fn pinned(snapshot: &Snapshot, out: &mut Samples<'_>, pick: fn(&FlowCount) -> u64) {
    let Some(status) = &snapshot.pinned else {
        return;
    };
    for family in Family::ALL {
        let Some(counts) = status.flows.get(family) else {
            continue;
        };
        out.value(&["bypass", family.as_str()], pick(&counts.bypass));
        out.value(&["egress", family.as_str()], pick(&counts.egress));
    }
}

fn conntrack(
    snapshot: &Snapshot,
    out: &mut Samples<'_>,
    pick: fn(&ConntrackStatus) -> Option<u64>,
) {
    if let Some(value) = snapshot.conntrack.as_ref().and_then(pick) {
        out.value(&[], value);
    }
}
