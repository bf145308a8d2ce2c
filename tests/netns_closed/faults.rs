//! Faults of rules and routes: packets with and without the chain.

use crate::packets::*;
use crate::*;
use lab::*;

/// The wrong packets from the fault to the end of the repair. `during` are the sources that servers
/// see in the fault while the chain stands.
fn wrong_of(
    firewall: Firewall,
    fault: &str,
    during: fn(Sources) -> Sources,
    opened: bool,
) -> [u64; 2] {
    let lab = lab_with_nat();
    let machine = Machine::new(&lab, "host1", firewall, BOTH);
    machine.changed();
    machine.in_sync();
    assert_right(&lab);
    let stream = lab.stream("host1", &TARGETS, PACE);
    stream.wait_for(8);
    if opened {
        open(&lab, firewall);
    }
    count_from_now(&lab);
    shell(&lab, fault);
    send(&lab, &stream);
    if !opened {
        assert_eq!(wrong(&lab), [0, 0], "during the fault");
        assert_seen(&lab, during(right(&lab)));
    }
    // A pass leaves the rule of another program alone.
    let foreign = "for f in -4 -6; do ip $f rule del pref 1000 2>/dev/null || true; done";
    shell(&lab, foreign);
    machine.reconcile();
    machine.in_sync();
    drop(stream.stop());
    let wrong = wrong(&lab);
    assert_right(&lab);
    wrong
}

macro_rules! faults {
    ($($name:ident: $firewall:ident, $fault:expr, $during:expr;)*) => { $(
        mod $name {
            use super::*;

            fn wrong(opened: bool) -> [u64; 2] {
                wrong_of(Firewall::$firewall, $fault, $during, opened)
            }

            #[test]
            fn opens_nothing() {
                isolated(|| assert_eq!(wrong(false), [0, 0]));
            }

            #[test]
            fn leaks_without_the_chain() {
                isolated(|| assert!(wrong(true).iter().all(|it| *it > 0)));
            }
        }
    )* };
}

faults! {
    deletion_of_our_rules: Nftables, DELETE_RULES, |_| [None; 4];
    deletion_of_our_rules_iptables: Iptables, DELETE_RULES, |_| [None; 4];
    flush_of_the_egress_table: Nftables, FLUSH_EGRESS, storage_alone;
    bound_client_without_a_gateway: Nftables, LEAVE_UNREACHABLE, storage_alone;
    bound_client_without_a_gateway_legacy: IptablesLegacy, LEAVE_UNREACHABLE, storage_alone;
    foreign_rule_by_our_device: Nftables, LOOK_UP_MAIN_FIRST, |_| [None; 4];
}

/// Storage by the NAT costs money and shows no wrong address: the chain drops none of it.
#[test]
fn flush_of_the_bypass_table_sends_storage_through_the_nat() {
    isolated(|| {
        let all_by_nat = |[.., nat4, nat6]: Sources| [nat4, nat6, nat4, nat6];
        assert_eq!(
            wrong_of(Firewall::Nftables, FLUSH_BYPASS, all_by_nat, false),
            [0, 0]
        );
    });
}

#[test]
fn closed_family_lets_no_bound_client_out() {
    isolated(|| {
        let lab = lab_with_nat();
        let closed = "[egress]\nenforce = true\ngateways = [\"10.0.1.10\"]\nclose = [\"ipv6\"]\n";
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, closed);
        machine.changed();
        machine.in_sync();
        count_from_now(&lab);
        let stream = lab.stream("host1", &TARGETS, PACE);
        send(&lab, &stream);
        let [storage4, storage6, partner4, _] = right(&lab);
        assert_seen(&lab, [storage4, storage6, partner4, None]);
        assert_no_leaks(&lab);
        // The same clients without the chain.
        open(&lab, Firewall::Nftables);
        send(&lab, &stream);
        drop(stream.stop());
        let [wrong4, wrong6] = wrong(&lab);
        assert!(wrong4 == 0 && wrong6 > 0, "{wrong4} and {wrong6}");
    });
}

/// An agent repairs the rules, and a moment without rules opens nothing.
#[test]
fn rules_flushed_beside_an_agent_open_nothing() {
    isolated(|| {
        let lab = lab_with_nat();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, BOTH);
        let agent = machine.agent();
        agent.wait_in_force();
        let stream = lab.stream("host1", &TARGETS, PACE);
        stream.wait_for(8);
        count_from_now(&lab);
        for _ in 0..10 {
            shell(&lab, DELETE_RULES);
            std::thread::sleep(Duration::from_millis(300));
        }
        agent.wait_in_force();
        drop(stream.stop());
        assert_eq!(wrong(&lab), [0, 0]);
        eventually("the rules are back", || {
            who_bound(lab.ns("host1"), S3_6).is_ok()
        });
        assert_right(&lab);
        agent.stop();
    });
}

/// A new document changes routes and no rule of the chain: storage passes at once.
#[test]
fn new_document_opens_new_prefixes() {
    isolated(|| {
        let lab = lab_with_nat();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, BOTH);
        machine.publish(&["3.5.0.0/19", "2600:1ff8:8000::/40"]);
        machine.changed();
        let nat = &lab.nat1;
        let by_nat = [nat.egress_public, nat.egress6];
        let [nat4, nat6] = by_nat.map(Some);
        assert_seen(&lab, [nat4, nat6, nat4, nat6]);
        let chain = || {
            let listed =
                lab.ns("host1")
                    .run(&["nft", "list", "chain", "inet", "trailblazer", "closed"]);
            let rules = listed
                .lines()
                .map(|line| line.split("counter").next().unwrap_or_default());
            rules.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = chain();
        machine.publish(FIRST);
        machine.changed();
        assert_eq!(chain(), before);
        assert_right(&lab);
    });
}

/// The setting changes under open flows, and the removal leaves nothing.
#[test]
fn switching_on_and_off_breaks_no_flow() {
    isolated(|| {
        let lab = lab_with_nat();
        let open = BOTH.replace("enforce = true", "enforce = false");
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &open);
        let before = lab.ns("host1").snapshot();
        machine.changed();
        let mut flows: Vec<LongFlow> = TARGETS.map(|to| lab.long_flow("host1", to)).into();
        flows.extend([HOST1_PUBLIC, HOST1_6].map(|to| lab.long_flow("outside", to)));
        count_from_now(&lab);
        for settings in [BOTH, &open, BOTH] {
            machine.configure(settings);
            machine.changed();
            machine.in_sync();
            assert_right(&lab);
        }
        for flow in flows {
            flow.assert_alive();
        }
        machine.flush();
        before.assert_same(&lab.ns("host1").snapshot());
    });
}
