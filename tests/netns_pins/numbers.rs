//! Other numbers of our own in the config: tables, priorities, protocol and marks. Open flows keep the
//! path that they have, also one that a new flow would not take.

use crate::packets::nat::{behind_nat1, bulk_interface};
use crate::packets::*;
use crate::*;
use lab::*;

/// Every number differs, and the marks share no bit with the default ones.
const OTHER_NUMBERS: &str = "[bypass]\ntable = 2083\n[kernel]\nprotocol = 84\npriority = 20000\n\
     pin_tables = 2100\nmarks = { path = 0x3000, gateway = 0x0e00 }\n";
/// One bit of the default marks stays.
const OVERLAPPING: &str = "[kernel]\nmarks = { path = 0x0060, gateway = 0x000e }\n";

/// Flows of the first gateway, and of storage that has left the selection. New flows take the second
/// gateway.
fn displaced(lab: &Lab) -> (Machine<'_>, Flows) {
    let mut machine = Machine::new(lab, "host1", Firewall::Nftables, &settings(ONE, true));
    machine.changed();
    let flows = Flows::open(lab, &TARGETS);
    flows.assert_moving();
    machine.configure(&settings(OTHER, true));
    machine.publish(&["3.5.0.0/19", "2600:1f18:9000::/40"]);
    machine.changed();
    flows.assert_moving();
    (machine, flows)
}

fn marks(lab: &Lab) -> Vec<u32> {
    let list = lab.ns("host1").run(&["conntrack", "-L", "-o", "extended"]);
    let words = list.split_whitespace();
    let marks = words.filter_map(|word| word.strip_prefix("mark="));
    marks.map(|mark| mark.parse().unwrap()).collect()
}

/// Flows survive a pass with these numbers, and a pass back.
fn survive(numbers: &str) {
    let lab = lab_with_nats();
    let (mut machine, mut flows) = displaced(&lab);
    count_from_now(&lab);
    machine.configure(&format!("{}{numbers}", settings(OTHER, true)));
    machine.changed();
    flows.assert_moving();
    machine.in_sync();
    flows.add(&lab, &TARGETS);
    if numbers.contains("marks") {
        // The former bits belong to other programs from now on.
        let marks = marks(&lab);
        assert!(marks.iter().all(|mark| mark & 0x3e == 0), "{marks:x?}");
        assert!(marks.iter().any(|mark| mark & 0x3e00 != 0), "{marks:x?}");
    }
    // And back, with another gateway for new flows.
    machine.configure(&settings(TWO, true));
    machine.changed();
    flows.assert_moving();
    assert!(marks(&lab).iter().all(|mark| mark & 0x3e00 == 0));
    assert_eq!(flows.broken(), 0);
    let leaks = lab.leaks();
    assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
}

#[test]
fn other_tables_break_no_flow() {
    isolated(|| survive("table = 2084\n[bypass]\ntable = 2083\n[kernel]\npin_tables = 2100\n"));
}

#[test]
fn other_priority_breaks_no_flow() {
    isolated(|| survive("[kernel]\npriority = 20000\n"));
}

#[test]
fn higher_priority_breaks_no_flow() {
    isolated(|| survive("[kernel]\npriority = 31000\n"));
}

#[test]
fn other_protocol_breaks_no_flow() {
    isolated(|| survive("[kernel]\nprotocol = 84\n"));
}

#[test]
fn other_marks_break_no_flow() {
    isolated(|| survive("[kernel]\nmarks = { path = 0x3000, gateway = 0x0e00 }\n"));
}

#[test]
fn all_numbers_at_once_break_no_flow() {
    isolated(|| survive(OTHER_NUMBERS));
}

/// The kernel ends a masqueraded flow whose packet leaves by another interface, even if one packet
/// alone does.
#[test]
fn other_marks_break_no_flow_behind_a_nat() {
    isolated(|| {
        let case = bulk_interface(Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        let mut machine = case.machine(&lab);
        machine.changed();
        let flows = Flows::open(&lab, &TARGETS);
        flows.assert_moving();
        machine.publish(&[&format!("{PARTNER}/32"), "2600:1f18:9000::/40"]);
        machine.changed();
        flows.assert_moving();
        let settings = (case.settings)(&lab.nat1);
        for marks in [
            "[kernel]\nmarks = { path = 0x3000, gateway = 0x0e00 }\n",
            "",
        ] {
            machine.configure(&format!("{}{settings}{marks}", packets::nat::SOURCES));
            machine.changed();
            flows.assert_moving();
        }
        assert_eq!(flows.broken(), 0);
    });
}

/// The flows cannot carry both marks at once.
#[test]
fn marks_that_overlap_the_former_ones_are_named() {
    isolated(|| {
        let lab = lab_with_nats();
        let (mut machine, flows) = displaced(&lab);
        machine.configure(&format!("{}{OVERLAPPING}", settings(OTHER, true)));
        let output = machine.changed();
        let text = format!("{output:?}");
        assert!(text.contains("have bits in common"), "{text}");
        assert_ne!(flows.broken(), 0);
    });
}
