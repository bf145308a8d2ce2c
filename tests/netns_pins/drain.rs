//! `flush --drain` under open flows: new flows take the path without Trailblazer at once, open flows keep
//! theirs until they end, and then nothing is left.

use serde_json::Value;

use crate::packets::nat::{behind_nat1, bulk_interface};
use crate::packets::*;
use crate::*;
use lab::*;

/// Publishes a document without storage's prefixes, and with the partner's.
fn swap(machine: &mut Machine) {
    machine.publish(&[&format!("{PARTNER}/32"), "2600:1f18:9000::/40"]);
    machine.changed();
    machine.in_sync();
}

fn drained(machine: &Machine) -> Value {
    machine.run(&["flush", "--drain", "-o", "json"]).ok().json()
}

/// The open flows of a report.
fn left(report: &Value, path: &str) -> u64 {
    let all = report["flows_left"].as_array().unwrap();
    let of_path = all.iter().filter(|left| left["path"] == path);
    of_path.map(|left| left["flows"].as_u64().unwrap()).sum()
}

/// Conntrack keeps the entry of a closed connection for two minutes.
fn forget_closed(ns: &Ns) {
    ns.run(&["conntrack", "-F"]);
}

/// A lab whose partner accepts the own addresses of `host1` too, as before Trailblazer.
fn open_lab() -> Lab {
    let lab = lab_with_nats();
    let NatAddresses {
        egress, egress6, ..
    } = lab.nat1;
    lab.set_egress(&[HOST1_PUBLIC, HOST1_6, egress, egress6]);
    lab
}

/// New flows of `host1` leave as without Trailblazer.
#[track_caller]
fn assert_default_path(lab: &Lab) {
    for (partner, seen) in [(PARTNER, HOST1_PUBLIC), (PARTNER6, HOST1_6)] {
        assert_eq!(who(lab, partner), Some(seen), "to {partner}");
    }
}

/// Flows by both paths, some of them on another path than a new flow: storage has left the selection.
fn displaced(lab: &Lab, machine: &mut Machine) -> Flows {
    machine.changed();
    machine.in_sync();
    let mut flows = Flows::open(lab, &TARGETS);
    flows.assert_moving();
    swap(machine);
    flows.add(lab, &[S3, S3_6]);
    flows.assert_moving();
    flows
}

fn drains(firewall: Firewall) {
    let lab = open_lab();
    let host1 = lab.ns("host1");
    let before = host1.snapshot();
    let mut machine = Machine::new(&lab, "host1", firewall, &settings(ONE, true));
    let flows = displaced(&lab, &mut machine);
    let preview = machine.run(&["flush", "--drain", "--dry-run", "-o", "json"]);
    let preview = preview.expect_code(2).json();
    assert_eq!(preview["outcome"], "pending", "{preview}");
    assert_eq!(left(&preview, "egress"), 2 * FLOWS as u64 + 2, "{preview}");
    flows.assert_moving();

    let report = drained(&machine);
    assert_eq!(report["outcome"], "draining", "{report}");
    let open = left(&report, "egress");
    assert_eq!(open, 2 * FLOWS as u64 + 2, "{report}");
    assert_eq!(left(&report, "bypass"), 0, "the default is their path");
    assert_default_path(&lab);
    let rules = host1.ip("rule");
    assert!(
        !rules.contains("1083") && !rules.contains("1084"),
        "{rules}"
    );
    let again = drained(&machine);
    assert_eq!(left(&again, "egress"), open, "{again}");
    assert_eq!(again["steps"].as_array().unwrap().len(), 0, "{again}");
    let waited = machine.run(&["flush", "--drain", "--wait=1s", "-o", "json"]);
    let waited = waited.expect_code(2).json();
    assert_eq!(left(&waited, "egress"), open, "{waited}");
    let text = machine.run(&["flush", "--drain"]).ok().stdout;
    assert!(
        text.contains("ipv4 egress path by 10.0.1.10: 6 flows"),
        "{text}"
    );

    assert_eq!(flows.broken(), 0);
    forget_closed(host1);
    let report = drained(&machine);
    assert_eq!(report["outcome"], "changed", "{report}");
    before.assert_same(&host1.snapshot());
    assert_eq!(drained(&machine)["outcome"], "in_sync");
}

#[test]
fn drain_breaks_no_flow_of_a_host_and_leaves_nothing() {
    isolated(|| drains(Firewall::Nftables));
}

#[test]
fn drain_breaks_no_flow_of_a_host_legacy_and_leaves_nothing() {
    isolated(|| drains(Firewall::IptablesLegacy));
}

#[test]
fn flush_breaks_flows_of_a_host_at_once() {
    isolated(|| {
        let lab = open_lab();
        let host1 = lab.ns("host1");
        let before = host1.snapshot();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        let flows = displaced(&lab, &mut machine);
        drained(&machine);
        flows.assert_moving();
        machine.flush();
        before.assert_same(&host1.snapshot());
        assert!(flows.broken() >= 2 * FLOWS);
    });
}

/// 200 flows, half of them displaced, and 60 new connections a second; returns the broken flows and the
/// failed connections.
fn under_load(command: &[&str]) -> (usize, usize) {
    let lab = open_lab();
    let host1 = lab.ns("host1");
    let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
    machine.changed();
    let mut flows = Flows(Vec::new());
    let mut open = |each: usize| {
        for target in TARGETS.iter().cycle().take(each * TARGETS.len()) {
            let flow = LongFlow::paced(host1, *target, std::time::Duration::from_millis(100));
            flows.0.push((*target, flow.unwrap()));
        }
    };
    open(25);
    swap(&mut machine);
    open(25);
    machine.publish(FIRST);
    machine.changed();
    let stream = lab.stream("host1", &TARGETS, 15);
    stream.wait_for(60);
    let report = machine.run(command).ok().json();
    println!("{}", report["flows_left"]);
    stream.wait_for(180);
    let seen = stream.stop().observations;
    let failures = seen.iter().filter(|one| one.seen.is_err());
    let failed = failures.inspect(|one| println!("failed: {one:?}")).count();
    let total = flows.0.len();
    let broken = flows.broken();
    println!(
        "{broken} of {total} flows broken, {failed} of {} connections failed",
        seen.len()
    );
    machine.flush();
    (broken, failed)
}

#[test]
fn drain_breaks_none_of_200_flows() {
    isolated(|| assert_eq!(under_load(&DRAIN), (0, 0)));
}

#[test]
fn flush_breaks_many_of_200_flows() {
    isolated(|| assert!(under_load(&["flush", "-o", "json"]).0 >= 50));
}

/// A pass after the drain pins the flows that began meanwhile.
#[test]
fn pass_after_a_drain_breaks_no_flow() {
    isolated(|| {
        let lab = open_lab();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        let mut flows = displaced(&lab, &mut machine);
        drained(&machine);
        flows.add(&lab, &TARGETS);
        flows.assert_moving();
        machine.publish(FIRST);
        machine.changed();
        machine.in_sync();
        let [nat4, nat6] = [lab.nat1.egress_public, lab.nat1.egress6];
        assert_eq!(who(&lab, PARTNER), Some(nat4));
        assert_eq!(who(&lab, PARTNER6), Some(nat6));
        assert_eq!(flows.broken(), 0);
    });
}

/// The agent pauses, and takes over again after a kick. A wait for the end of the flows ends then, and
/// another wait ends with the flows.
#[test]
fn drain_beside_an_agent_waits_for_the_flows() {
    isolated(|| {
        let lab = open_lab();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        let agent = machine.agent();
        agent.wait_in_force();
        let mut flows = Flows::open(&lab, &TARGETS);
        flows.assert_moving();
        let waiting = || {
            let mut command = machine.command(&["flush", "--drain", "--wait", "-o", "json"]);
            command.stdout(std::process::Stdio::piped());
            let child = machine.ns().spawn(&mut command);
            agent.wait_for("a pause", |status| status["state"] == "paused");
            eventually("the default path", || {
                who(&lab, PARTNER) == Some(HOST1_PUBLIC)
            });
            child
        };
        let report = |child: std::process::Child| -> (Option<i32>, Value) {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), serde_json::from_str(&text).unwrap())
        };
        let first = waiting();
        flows.add(&lab, &TARGETS);
        machine.run(&["kick", "--wait"]).ok();
        agent.wait_in_force();
        let (code, ended) = report(first);
        assert_eq!(code, Some(1), "{ended}");
        assert_eq!(ended["agent"], "paused", "{ended}");
        flows.assert_moving();
        assert_eq!(who(&lab, PARTNER), Some(lab.nat1.egress_public));

        let second = waiting();
        assert_eq!(flows.broken(), 0);
        forget_closed(machine.ns());
        let (code, ended) = report(second);
        assert_eq!(code, Some(0), "{ended}");
        assert_eq!(ended["outcome"], "changed", "{ended}");
        let rules = machine.ns().ip("rule");
        assert!(!rules.contains("110"), "{rules}");
    });
}

/// No other program of the instance translates, so that a flow without its translation is lost.
fn behind_a_nat(firewall: Firewall, command: &[&str]) -> usize {
    let case = bulk_interface(firewall);
    let lab = behind_nat1(case.layout);
    let nat1 = lab.ns("nat1");
    for table in ["natbox", "letin"] {
        nat1.nft(&format!("delete table inet {table}"));
    }
    let mut machine = case.machine(&lab);
    // iptables-nft creates its built-in chains at the first rule, and never removes them.
    machine.changed();
    machine.flush();
    let before = nat1.snapshot();
    machine.changed();
    machine.in_sync();
    let mut flows = Flows::open(&lab, &TARGETS);
    flows.assert_moving();
    swap(&mut machine);
    flows.add(&lab, &[S3, S3_6]);
    flows.assert_moving();
    let report = machine.run(command).ok().json();
    assert_eq!(who(&lab, S3), None, "without a translation");
    if report["outcome"] == "draining" {
        let open = |path| left(&report, path);
        assert!(open("egress") >= 2 * FLOWS as u64 + 2, "{report}");
        assert!(open("bypass") >= 2 * FLOWS as u64, "{report}");
        assert_eq!(drained(&machine)["outcome"], "draining");
    }
    let broken = flows.broken();
    forget_closed(nat1);
    drained(&machine);
    before.assert_same(&nat1.snapshot());
    broken
}

const DRAIN: [&str; 4] = ["flush", "--drain", "-o", "json"];

#[test]
fn drain_breaks_no_flow_behind_a_nat_nftables() {
    isolated(|| assert_eq!(behind_a_nat(Firewall::Nftables, &DRAIN), 0));
}

#[test]
fn drain_breaks_no_flow_behind_a_nat_iptables() {
    isolated(|| assert_eq!(behind_a_nat(Firewall::Iptables, &DRAIN), 0));
}

#[test]
fn drain_breaks_no_flow_behind_a_nat_legacy() {
    isolated(|| assert_eq!(behind_a_nat(Firewall::IptablesLegacy, &DRAIN), 0));
}

#[test]
fn flush_breaks_flows_behind_a_nat() {
    isolated(|| {
        let broken = behind_a_nat(Firewall::Nftables, &["flush", "-o", "json"]);
        assert!(broken >= FLOWS, "{broken}");
    });
}
