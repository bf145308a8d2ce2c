//! Host role with `[egress] enforce`: another program deletes the rules and flushes the firewall while
//! the agent cannot repair anything.

use rustix::process::Signal;

use crate::*;

const EGRESS: &str =
    "[egress]\nenforce = true\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";

/// Deletes the rules in our range of priorities, and every table of nf_tables.
const ATTACK: &str = r"
    nft flush ruleset
    for f in -4 -6; do
        ip $f rule | sed -n 's/^\(300[0-9][0-9]\):.*/rule del pref \1/p' | ip $f -batch -
    done";

fn partners(lab: &Lab) -> [Option<IpAddr>; 2] {
    [PARTNER, PARTNER6].map(|partner| lab.who("host1", partner).ok())
}

/// Packets that went to partners with an address of the host, during an attack.
fn leaked(lab: &Lab, protect: bool) -> u64 {
    let host1 = lab.ns("host1");
    let settings = format!("{EGRESS}[kernel]\nprotect_table = {protect}\n");
    let machine = Machine::new(lab, "host1", Firewall::Nftables, &settings);
    let agent = machine.agent();
    agent.wait_in_force();
    let egress = [lab.nat1.egress_public, lab.nat1.egress6].map(Some);
    assert_eq!(partners(lab), egress);
    count_from_now(lab);
    agent.signal(Signal::STOP);
    host1.run(&["sh", "-ec", ATTACK]);
    assert_ne!(partners(lab), egress);
    let leaks = lab.leaks();
    agent.signal(Signal::CONT);
    eventually("the egress path is back", || partners(lab) == egress);
    agent.stop();
    machine.flush();
    leaks.partner4 + leaks.partner6
}

#[test]
fn closed_egress_outlives_a_flush_of_rules_and_tables() {
    isolated(|| {
        let lab = Lab::new();
        lab.plain_nat("nat1");
        let without = leaked(&lab, false);
        let with = leaked(&lab, true);
        eprintln!("without the protection {without} packets, with it {with}");
        assert_ne!(without, 0, "the scene can leak");
        assert_eq!(with, 0);
    });
}
