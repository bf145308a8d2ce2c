//! Foreign rules that read or write our mark bits.

use super::report::CheckReport;
use crate::config::{Config, Role};
use crate::firewall::marks::{Access, Carrier, MarkUse, Overlap, free_path_mask};
use crate::kernel::firewall::{iptables, nftables};
use crate::reconcile::View;
use crate::types::PathMask;

const NAME: &str = "marks";
/// The number of overlaps reported one by one: a cluster node has hundreds of equal rules.
const MOST: usize = 12;

pub(super) fn all(config: &Config, role: Role, view: &View, report: &mut CheckReport) {
    let mut uses = of_policy_rules(view);
    match nftables::foreign_marks() {
        Ok(found) => uses.extend(found),
        Err(error) => report.warn(NAME, error.to_string(), "run the check as root"),
    }
    match iptables::foreign_marks() {
        Ok(found) => uses.extend(found),
        Err(error) => report.warn(NAME, error.to_string(), "install iptables-legacy"),
    }
    judge(config, role, &uses, report);
}

fn of_policy_rules(view: &View) -> Vec<MarkUse> {
    let foreign = |rule: &&crate::objects::Rule| !view.ownership.owns_rule(rule);
    let rules = view.observed.rules.iter().filter(foreign);
    rules
        .filter_map(|rule| {
            Some(MarkUse {
                place: format!("{} policy rule {}", rule.family, rule.priority),
                carrier: Carrier::Packet,
                access: Access::Reads,
                mark: rule.mark?,
            })
        })
        .collect()
}

fn judge(config: &Config, role: Role, uses: &[MarkUse], report: &mut CheckReport) {
    let path = config.kernel.path_mask;
    let forwards = role == Role::Nat;
    let shared: Vec<(&MarkUse, Overlap)> = uses
        .iter()
        .filter_map(|found| Some((found, found.overlap(path, forwards)?)))
        .collect();
    if shared.is_empty() {
        let message = format!(
            "no foreign rule reads or writes the bits of [kernel] marks.path ({:#x} of packets, {:#x} of flows)",
            if forwards { path.0 } else { path.packet().mask },
            path.0
        );
        report.ok(NAME, message);
        return;
    }
    let advice = advice(config, uses, &shared);
    for (found, overlap) in shared.iter().take(MOST) {
        report.warn(
            NAME,
            format!(
                "{found}, which has the bits {:#x} of [kernel] marks.path: {}",
                overlap.bits,
                consequence(found, *overlap, path)
            ),
            advice.clone(),
        );
    }
    if shared.len() > MOST {
        let more = shared.len() - MOST;
        report.warn(
            NAME,
            format!("{more} further foreign rules share bits of [kernel] marks.path"),
            advice,
        );
    }
}

fn consequence(found: &MarkUse, overlap: Overlap, path: PathMask) -> &'static str {
    let bit = path.packet().mask;
    match (found.carrier, found.access, overlap.in_value & bit != 0) {
        (Carrier::Packet, Access::Reads, false) if overlap.bits & bit == 0 => {
            "the comparison also sees the mark of packets from [nat] sources"
        }
        (Carrier::Packet, Access::Writes, false) if overlap.bits & bit == 0 => {
            "packets with that mark leave untranslated after a flush of the firewall, until the repair"
        }
        (Carrier::Packet, _, true) => {
            "packets with that mark pass over Trailblazer's rules and leave past the egress path"
        }
        (Carrier::Packet, Access::Reads, false) => {
            "the comparison fails for packets of connections from outside, which carry our bit"
        }
        (Carrier::Packet, Access::Writes, false) => {
            "answers to connections from outside lose our bit and leave by the egress path"
        }
        (Carrier::Flow, Access::Reads, _) => {
            "the comparison also sees Trailblazer's bits, which most flows carry"
        }
        (Carrier::Flow, Access::Writes, _) => {
            "flows get or lose Trailblazer's marks: connections from outside may break, and bytes are counted for the wrong path"
        }
    }
}

fn advice(config: &Config, uses: &[MarkUse], shared: &[(&MarkUse, Overlap)]) -> String {
    let path = config.kernel.path_mask;
    let all_bits = |found: &MarkUse| found.mark.mask == u32::MAX;
    let only_masks = shared
        .iter()
        .all(|(found, overlap)| overlap.in_value == 0 && all_bits(found));
    let limit = format!(
        "limit the foreign rule's mask to its own bits (at most {:#x})",
        !path.0
    );
    match free_path_mask(uses, config.kernel.gateway_mask) {
        // Other bits of ours would overlap with a mask of all bits too.
        _ if only_masks => limit,
        Some(free) => format!("set [kernel] marks.path = \"{:#06x}\", or {limit}", free.0),
        None => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mark;

    fn report(carrier: Carrier, access: Access, value: u32, mask: u32) -> String {
        report_for(Role::Host, carrier, access, value, mask)
    }

    fn report_for(role: Role, carrier: Carrier, access: Access, value: u32, mask: u32) -> String {
        let found = MarkUse {
            place: "ipv4 policy rule 20000".to_owned(),
            carrier,
            access,
            mark: Mark { value, mask },
        };
        let mut report = CheckReport::default();
        judge(&Config::default(), role, &[found], &mut report);
        report.to_text()
    }

    #[test]
    fn overlaps_name_the_place_the_bits_and_a_free_choice() {
        let text = report(Carrier::Packet, Access::Reads, 12_345, u32::MAX);
        for part in [
            "ipv4 policy rule 20000 compares the packet mark 0x3039/0xffffffff",
            "the bits 0x10 of [kernel] marks.path",
            "leave past the egress path",
            "set [kernel] marks.path = \"0x",
        ] {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
        let text = report(Carrier::Packet, Access::Reads, 5, u32::MAX);
        assert!(text.contains("comparison fails"), "{text}");
        assert!(!text.contains("set [kernel]"), "{text}");
        let text = report(Carrier::Flow, Access::Writes, 0x20, 0x20);
        assert!(text.contains("set [kernel] marks.path = \"0x"), "{text}");
        let text = report_for(Role::Nat, Carrier::Packet, Access::Reads, 0x20, 0x20);
        assert!(text.contains("packets from [nat] sources"), "{text}");
        let text = report(Carrier::Packet, Access::Reads, 0x20, 0x20);
        assert!(text.contains("no foreign rule"), "{text}");
        let text = report(Carrier::Packet, Access::Writes, 0x2000, 0x2000);
        assert!(text.contains("no foreign rule"), "{text}");
    }
}
