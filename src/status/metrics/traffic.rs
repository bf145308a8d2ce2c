//! The metrics of the firewall's counters.

use super::encode::{Kind, Metric, Samples};
use crate::config::AnyRole;
use crate::firewall::DropReason;
use crate::status::snapshot::{PathTraffic, Snapshot, Traffic};
use crate::types::Family;

pub(super) const SAVED: Metric = Metric {
    name: "trailblazer_saved_dollars_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Saved NAT charges in dollars: the gigabytes of bypass traffic multiplied by [agent] nat_price_per_gb. Absent where counting is impossible.",
    samples: |snapshot, out| {
        if let Some(dollars) = snapshot.saved_dollars {
            out.value(&[], dollars);
        }
    },
};

/// Dropped packets.
pub(super) fn dropped(snapshot: &Snapshot, out: &mut Samples<'_>) {
    let Some(traffic) = &snapshot.traffic else {
        return;
    };
    let reasons: &[DropReason] = match snapshot.role {
        AnyRole::Host => &DropReason::OF_HOST,
        AnyRole::Nat => &DropReason::OF_NAT,
        AnyRole::Vpc => &[],
    };
    for reason in reasons {
        for family in Family::ALL {
            let count = traffic.dropped.of(*reason).get(family).packets;
            out.value(&[reason.as_str(), family.as_str()], count);
        }
    }
}

/// Packets or bytes by path.
pub(super) fn traffic(snapshot: &Snapshot, out: &mut Samples<'_>, pick: fn(&Traffic) -> u64) {
    let Some(PathTraffic { bypass, egress, .. }) = &snapshot.traffic else {
        return;
    };
    for (path, families) in [("bypass", bypass), ("egress", egress)] {
        for family in Family::ALL {
            let labels = [path, family.as_str()];
            out.value(&labels, pick(families.get(family)));
        }
    }
}
