//! NAT role: packets that the rules after all translation have dropped.

use super::expected::Promise;
use crate::degraded::{Degradation, Part};
use crate::firewall::{DropReason, DroppedTraffic};
use crate::types::Family;

/// The findings about packets dropped in a span of time, which `span` names.
///
/// Packets of `[nat] sources` should have been translated by our rules: the first list, degraded.
/// Packets of other clients are no part of the promise: the second list, doubts.
pub fn judge_dropped(
    promise: &Promise<'_>,
    dropped: &DroppedTraffic,
    span: &str,
) -> (Vec<Degradation>, Vec<Degradation>) {
    let (mut degraded, mut doubts) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        let Some(out) = promise.desired.paths.get(family).leaves_by else {
            continue;
        };
        let out = promise.facts.device_name(out);
        let count = |reason| dropped.of(reason).get(family).packets;
        let finding = |reason: String, advice: String| {
            Degradation::new(Part::Translation, family, reason).with_advice(advice)
        };
        let (sources, outside) = (count(DropReason::Sources), count(DropReason::Outside));
        if sources > 0 {
            degraded.push(finding(
                format!(
                    "packets of clients in [nat] sources are dropped, since they would leave by {out} with another address than an egress address: {sources} packets {span}"
                ),
                "another program translates them first or hides them from conntrack: `nft list ruleset`, `iptables -t nat -S`, `iptables -t raw -S`".to_owned(),
            ));
        }
        if outside > 0 {
            doubts.push(finding(
                format!(
                    "packets of clients outside [nat] sources are dropped, since they would leave by {out} without translation: {outside} packets {span}"
                ),
                "add the network of the clients to [nat] sources, or their destination to [nat] exempt".to_owned(),
            ));
        }
    }
    (degraded, doubts)
}
