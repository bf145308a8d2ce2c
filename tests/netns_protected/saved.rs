//! `protect_table = "auto"`: a saved ruleset with our table must load at any time, and the agent
//! protects the table unless a file of the firewall service has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::*;

/// The file of nftables.service on Debian and Ubuntu.
const FILE: &str = "/etc/nftables.conf";

/// A table of the operator.
const THEIRS: &str = "table inet theirs {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n";

/// Lays a file of the test over the saved ruleset of the machine, in this test's mount namespace.
fn saved_ruleset(text: &str) -> PathBuf {
    let ours = Path::new("/run/nftables.conf");
    fs::write(ours, text).unwrap();
    assert!(
        Path::new(FILE).exists(),
        "{FILE} of the package nftables is missing"
    );
    let file = ours.to_str().unwrap();
    assert!(
        Command::new("mount")
            .args(["--bind", file, FILE])
            .status()
            .unwrap()
            .success()
    );
    ours.to_owned()
}

fn by_default<'a>(lab: &'a Lab) -> Machine<'a> {
    let mut machine = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables).machine(lab);
    let case = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables);
    let settings = (case.settings)(&lab.nat1);
    machine.configure(&format!("{SOURCES}{settings}"));
    machine
}

fn notes(status: &Value) -> String {
    status["notes"].to_string()
}

/// `systemctl restart nftables`: the unit's flush, then its load.
fn restart_service(ns: &Ns) -> bool {
    ns.exec(&["nft", "flush", "ruleset"]);
    ns.exec(&["nft", "-f", FILE]).code == Some(0)
}

#[test]
fn default_agent_protects_its_table() {
    isolated(|| {
        saved_ruleset(THEIRS);
        let lab = behind_nat1(NatLayout::TwoInterfaces);
        let nat1 = lab.ns("nat1");
        let machine = by_default(&lab);
        let agent = machine.agent();
        agent.wait_in_force();
        wait_protected(nat1, TABLE);
        let before = handle(nat1, TABLE);
        assert!(restart_service(nat1));
        assert_eq!(handle(nat1, TABLE), before);
        assert!(nat1.run(&["nft", "list", "tables"]).contains("theirs"));
        assert_translated(&lab);
    });
}

#[test]
fn saved_ruleset_with_our_table_loads_beside_the_agent() {
    isolated(|| {
        let file = saved_ruleset(THEIRS);
        let lab = behind_nat1(NatLayout::TwoInterfaces);
        let nat1 = lab.ns("nat1");
        nat1.nft(THEIRS);
        let machine = by_default(&lab);
        let agent = machine.agent();
        agent.wait_in_force();
        wait_protected(nat1, TABLE);

        // As an operator does. Nothing but the file tells the agent.
        nat1.run(&["sh", "-c", &format!("nft list ruleset > {FILE}")]);
        eventually("the table is open", || !is_protected(nat1, TABLE));
        let told = || {
            agent.status().is_some_and(|status| {
                notes(&status).contains("/etc/nftables.conf contains the table")
            })
        };
        eventually("the agent names the file", told);
        assert!(
            restart_service(nat1),
            "{}",
            fs::read_to_string(&file).unwrap()
        );
        assert!(nat1.run(&["nft", "list", "tables"]).contains("theirs"));
        agent.wait_in_force();
        assert_translated(&lab);

        // The text of the open table loads too.
        nat1.run(&["sh", "-c", &format!("nft list ruleset > {FILE}")]);
        assert!(
            restart_service(nat1),
            "{}",
            fs::read_to_string(&file).unwrap()
        );
        agent.wait_in_force();
        assert_translated(&lab);

        fs::write(&file, THEIRS).unwrap();
        wait_protected(nat1, TABLE);
        let before = handle(nat1, TABLE);
        assert!(restart_service(nat1));
        assert_eq!(handle(nat1, TABLE), before);
    });
}

/// Otherwise a start of the service would end with an error, and load no rule of the operator.
#[track_caller]
fn assert_loads_again(layout: NatLayout) {
    let lab = behind_nat1(layout);
    let nat1 = lab.ns("nat1");
    let machine = one_gateway(layout, Firewall::Nftables).machine(&lab);
    machine.reconcile();
    let saved = nat1.run(&["nft", "list", "ruleset"]);
    let before = handle(nat1, TABLE);
    nat1.nft(&format!("flush ruleset\n{saved}"));
    assert_ne!(handle(nat1, TABLE), before);
    assert_translated(&lab);
}

#[test]
fn saved_ruleset_of_a_nat_loads_again() {
    isolated(|| assert_loads_again(NatLayout::TwoInterfaces));
}

#[test]
fn saved_ruleset_of_a_nat_with_one_interface_loads_again() {
    isolated(|| assert_loads_again(NatLayout::OneInterface));
}

#[test]
fn saved_ruleset_of_a_nat_with_a_bulk_interface_loads_again() {
    isolated(|| assert_loads_again(NatLayout::BulkInterface));
}
