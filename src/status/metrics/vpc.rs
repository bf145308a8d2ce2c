//! Metrics of the vpc role: lists, tables and requests to EC2.

use super::encode::{Kind, Metric, Samples};
use crate::status::snapshot::{Snapshot, VpcStatus};
use crate::types::Family;
use crate::vpc::summary::ListSummary;

/// Entries of our prefix lists.
pub(super) const ENTRIES: Metric = Metric {
    name: "trailblazer_vpc_list_entries",
    kind: Kind::Gauge,
    labels: &["family", "list"],
    help: "Entries of the prefix list, as of the last reading. vpc role only.",
    samples: |snapshot, out| lists(snapshot, out, |list| list.entries as i64),
};

/// The size of our prefix lists.
pub(super) const MAX_ENTRIES: Metric = Metric {
    name: "trailblazer_vpc_list_max_entries",
    kind: Kind::Gauge,
    labels: &["family", "list"],
    help: "MaxEntries of the prefix list: its weight in the quota of each route table. vpc role only.",
    samples: |snapshot, out| {
        lists(snapshot, out, |list| {
            list.max_entries.unwrap_or_default().into()
        });
    },
};

/// The version of our prefix lists.
pub(super) const VERSION: Metric = Metric {
    name: "trailblazer_vpc_list_version",
    kind: Kind::Gauge,
    labels: &["family", "list"],
    help: "Version of the prefix list: EC2 raises it with each change of the entries. vpc role only.",
    samples: |snapshot, out| {
        lists(snapshot, out, |list| {
            list.version.map(|version| version.0).unwrap_or_default()
        });
    },
};

/// The routes of each table.
pub(super) const TABLES: Metric = Metric {
    name: "trailblazer_vpc_table_routes",
    kind: Kind::Gauge,
    labels: &["table", "family"],
    help: "Routes of the route table to the target: 1 with a prefix list, one for each prefix with single routes, 0 while the target is gone. As of the last reading. vpc role only.",
    samples: tables,
};

/// Changes that wait.
pub(super) const HOLDS: Metric = Metric {
    name: "trailblazer_vpc_holds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Changes of the VPC that wait for an operator or for another writer, as of the last pass. vpc role only.",
    samples: |snapshot, out| {
        if let Some(vpc) = &snapshot.vpc {
            out.value(&[], vpc.holds.len());
        }
    },
};

/// Requests to EC2.
pub(super) const REQUESTS: Metric = Metric {
    name: "trailblazer_vpc_requests_total",
    kind: Kind::Counter,
    labels: &["kind"],
    help: "Requests to EC2 by kind: reads, changes, and throttled (those of both kinds after which EC2 asked for fewer). vpc role only.",
    samples: |snapshot, out| {
        if let Some(VpcStatus { requests, .. }) = &snapshot.vpc {
            out.value(&["changes"], requests.changes);
            out.value(&["reads"], requests.reads);
            out.value(&["throttled"], requests.throttled);
        }
    },
};

fn lists(snapshot: &Snapshot, out: &mut Samples<'_>, value: fn(&ListSummary) -> i64) {
    for list in snapshot.vpc.iter().flat_map(|vpc| &vpc.lists) {
        out.value(&[list.family.as_str(), list.id.as_str()], value(list));
    }
}

fn tables(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for table in snapshot.vpc.iter().flat_map(|vpc| &vpc.tables) {
        for family in Family::ALL {
            let routes = table.routes.iter();
            let active = routes.filter(|route| route.family == family && route.active);
            let count: usize = active.map(|route| route.routes).sum();
            out.value(&[table.id.as_str(), family.as_str()], count);
        }
    }
}
