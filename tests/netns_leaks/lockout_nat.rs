//! Nobody is locked out of a NAT instance, and private networks pass it, in each state of the product.
//! A wall of drops shows that each check can fail.

mod checks;

use std::net::IpAddr;

use self::checks::{CHECKS, LOOPBACK, SSH_PORT};
use crate::causes::flush_iptables;
use crate::machines::{Backend, Phase, Role, guest, lab_of, settings};
use crate::matrix::is_long;
use crate::packets::nat::let_in;
use crate::probes::*;
use crate::scene::{DELETE_RULES, Scene};
use lab::*;

/// Servers that see packets of hosts behind the instance by its translation alone.
const TRANSLATED: [IpAddr; 2] = [PARTNER, PARTNER6];

/// In the report of a pass and in the status of an agent.
const MISSING: &str = "assign it to an interface";

/// The clients' packets to private networks keep their source.
fn configure(scene: &mut Scene, protected: bool) {
    let exempt = FAR.map(|it| format!("\"{it}/32\"")).join(", ");
    let text = settings(scene.lab, scene.role, scene.backend.firewall(), true);
    let text = format!("exempt = [{exempt}]\n{text}[kernel]\nprotect_table = {protected}\n");
    scene.machine.configure(&text);
}

/// Other programs flush every firewall; the administrator's rules return.
fn flush_firewalls(scene: &Scene) {
    if scene.backend != Backend::Nftables {
        scene.shell(&flush_iptables(scene.backend));
        assert!(scene.shell("nft list tables").contains("trailblazer-guard"));
    }
    scene.shell("nft flush ruleset");
    let_in(scene.lab);
}

fn change_egress(scene: &Scene, verb: &str) {
    let (nat, link) = (&scene.lab.nat1, scene.role.links()[0].0);
    let length = if scene.role == Role::NatOne { 24 } else { 29 };
    scene.ns().ip_batch(&format!(
        "addr {verb} {}/{length} dev {link}\naddr {verb} {}/64 dev {link}\n",
        nat.egress, nat.egress6
    ));
}

/// Waits until the instance lets `host1` out to partners. Large packets learn of the narrow link beyond
/// the instance by an ICMP error, whose target is translated.
#[track_caller]
fn assert_open(scene: &Scene) {
    let lab = scene.lab;
    eventually("host1 reaches the partner", || {
        TRANSLATED.iter().all(|to| lab.who("host1", *to).is_ok())
    });
    forget_paths(lab.ns("host1"));
    eventually("large packets of host1 arrive", || {
        let all = [OPERATOR, OPERATOR6].into_iter();
        all.map(|to| whole(lab, "host1", to, BULK, 0))
            .all(|it| it.is_ok())
    });
}

#[track_caller]
fn assert_shut(scene: &Scene) {
    let asked = TRANSLATED.map(|to| scene.lab.who("host1", to));
    assert!(asked.iter().all(Result::is_err), "{asked:?}");
}

type State = (&'static str, fn(&mut Scene));

/// Each state, with its name.
const STATES: &[State] = &[
    ("boot, shut", |scene| {
        scene.enter(Phase::Boot);
        scene.pause();
        assert_shut(scene);
    }),
    ("no document", |scene| scene.lose_document()),
    ("in force without an agent", |scene| {
        scene.converge();
        assert_open(scene);
    }),
    ("no egress address, without an agent", |scene| {
        change_egress(scene, "del");
        let (_, report) = scene.pass();
        assert!(report.contains(MISSING), "{report}");
    }),
    ("in force, firewalls flushed", |scene| {
        change_egress(scene, "replace");
        scene.converge();
        flush_firewalls(scene);
        assert_shut(scene);
    }),
    ("agent", |scene| {
        let agent = scene.machine.agent();
        agent.wait_in_force();
        scene.agent = Some(agent);
        assert_open(scene);
    }),
    ("agent, no egress address", |scene| {
        change_egress(scene, "del");
        let agent = scene.agent.as_ref().expect("an agent runs");
        agent.wait_for("the missing address", |status| {
            status.to_string().contains(MISSING)
        });
    }),
    ("agent dead, no egress address", |scene| {
        scene.agent.take().unwrap().kill();
    }),
    ("agent dead", |scene| {
        change_egress(scene, "replace");
        let agent = scene.machine.agent();
        agent.wait_in_force();
        agent.kill();
        assert_open(scene);
    }),
    ("agent dead, rules flushed", |scene| {
        scene.shell(DELETE_RULES);
    }),
    ("agent dead, rules and firewalls flushed", |scene| {
        flush_firewalls(scene)
    }),
    ("protected table, agent dead, firewalls flushed", |scene| {
        configure(scene, true);
        let agent = scene.machine.agent();
        agent.wait_in_force();
        agent.kill();
        flush_firewalls(scene);
    }),
    ("conntrack flushed", |scene| {
        scene.converge();
        scene.forget_flows();
    }),
];

fn matrix(role: Role, backend: Backend) {
    let lab = lab_of(role);
    let mut scene = Scene::new(&lab, role, backend);
    configure(&mut scene, false);
    let nat1 = lab.ns("nat1");
    // As systemd sets it: the second address of a subnet outlives the first one.
    nat1.sysctl(&[("net/ipv4/conf/all/promote_secondaries", "1")]);
    let _guest = guest(nat1);
    let nat = &lab.nat1;
    let _servers = surroundings(&lab, "nat1", [nat.private, nat.private6]);
    let own = [
        nat.private,
        nat.private6,
        nat.egress,
        nat.egress6,
        nat.second,
        nat.second6,
    ];
    let _ssh = [
        Server::start(nat1, SSH_PORT, &own),
        Server::start(nat1, PORT, &[]),
    ];
    let checks = [CHECKS, &[LOOPBACK]].concat();
    let mut faults = Vec::new();
    let mut state = |name: &str| {
        let failed = failed(&lab, "nat1", &checks, TRIES);
        let (fail, of) = (failed.len(), checks.len());
        println!("lockout | {role:?} | {backend:?} | {name} | {fail} of {of} fail");
        faults.extend(failed.into_iter().map(|it| format!("{name}: {it}")));
    };
    state("without the product");
    for (name, enter) in STATES {
        enter(&mut scene);
        state(name);
    }
    // A drain with flows left.
    scene.converge();
    let flows = TRANSLATED.map(|to| lab.long_flow("host1", to));
    let report = scene
        .machine
        .run(&["flush", "--drain", "-o", "json"])
        .ok()
        .json();
    assert_eq!(report["outcome"], "draining", "{report}");
    state("drain with flows left");
    for flow in flows {
        flow.assert_alive();
    }
    scene.take_away();
    state("after flush");
    faults.extend(unseen(&lab, "nat1", &checks));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

macro_rules! matrices {
    ($($name:ident, $role:ident, $backend:ident, $long:expr;)*) => { $(
        #[test]
        fn $name() {
            if $long && !is_long() {
                println!("not run: TRAILBLAZER_LONG=1 (make test-long) runs this part of the matrix");
                return;
            }
            isolated(|| matrix(Role::$role, Backend::$backend));
        }
    )* };
}

matrices! {
    nobody_is_locked_out_of_a_nat_nftables, NatTwo, Nftables, false;
    nobody_is_locked_out_of_a_nat_iptables, NatTwo, Iptables, false;
    nobody_is_locked_out_of_a_nat_iptables_legacy, NatTwo, Legacy, true;
    nobody_is_locked_out_of_a_nat_with_one_interface_nftables, NatOne, Nftables, false;
    nobody_is_locked_out_of_a_nat_with_one_interface_iptables, NatOne, Iptables, true;
    nobody_is_locked_out_of_a_nat_with_one_interface_iptables_legacy, NatOne, Legacy, true;
    nobody_is_locked_out_of_a_nat_with_a_bulk_interface_nftables, NatBulk, Nftables, true;
    nobody_is_locked_out_of_a_nat_with_a_bulk_interface_iptables, NatBulk, Iptables, true;
    nobody_is_locked_out_of_a_nat_with_a_bulk_interface_iptables_legacy, NatBulk, Legacy, true;
}
