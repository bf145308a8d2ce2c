//! Each death × NATs × spread × firewall, both families at once.

use std::time::Duration;

use lab::*;

use crate::death::{ALL, Death};
use crate::packets::Firewall;
use crate::scene::{ENDED_WITHIN, NEW_WITHIN, Seen, Setup, suffer};
use crate::{is_long, not_run};

/// The limit of all deaths.
const WITHIN: Duration = Duration::from_secs(900);

/// The latest begin of a connection that a lossy NAT harms: the verdict needs some 20 probes.
const LOSSY_WITHIN: Duration = Duration::from_secs(6);

/// The promises about one death.
fn judge(setup: Setup, death: Death, seen: &Seen) {
    let scene = || format!("{setup:?} {death:?}: {seen}");
    assert_eq!(seen.broken, 0, "flows of living NATs: {}", scene());
    if setup.spread == "flow" {
        assert!(seen.living > 0, "no flow through a living NAT: {}", scene());
    }
    assert!(seen.changes > 0, "{}", scene());
    if death == Death::Lossy {
        // A connection from before the verdict may wait for TCP's own timers, be ended since its data stands
        // still, or take the answer to its first SYN for one to the second.
        assert!(seen.impaired <= LOSSY_WITHIN, "{}", scene());
        assert!(seen.failed <= seen.new / 8, "{}", scene());
        return;
    }
    assert!(seen.slowest <= NEW_WITHIN, "{}", scene());
    assert!(seen.impaired <= NEW_WITHIN, "{}", scene());
    // The NAT refuses connections with errors: these reach the client, which tries again.
    if death != Death::Uplink {
        assert_eq!(seen.failed, 0, "{}", scene());
    }
    if !death.stops_flows() {
        // An answer that comes after a second may come too late for the flow to count as alive.
        return;
    }
    assert_eq!(seen.ended, seen.stuck, "{}", scene());
    assert!(seen.last_end <= ENDED_WITHIN, "{}", scene());
}

fn run(nats: usize, spread: &'static str, firewall: Firewall, deaths: &[Death]) {
    let setup = Setup {
        nats,
        spread,
        firewall,
    };
    setup.build("", |lab, machine| {
        for death in deaths {
            if let Some(seen) = suffer(lab, machine, setup, *death) {
                judge(setup, *death, &seen);
            }
        }
    });
}

#[test]
fn half_dead() {
    isolated(|| run(3, "order", Firewall::Nftables, &[Death::HalfDead]));
}

#[test]
fn without_an_uplink_with_iptables() {
    isolated(|| run(2, "flow", Firewall::Iptables, &[Death::Uplink]));
}

macro_rules! matrix {
    ($($name:ident: $nats:literal $spread:literal $firewall:ident,)*) => {
        $(#[test]
        fn $name() {
            if is_long() {
                Isolation::default().deadline(WITHIN).run(|| {
                    run($nats, $spread, Firewall::$firewall, &ALL);
                });
            } else {
                not_run();
            }
        })*
    };
}

matrix! {
    two_by_host_nftables: 2 "host" Nftables,
    two_by_host_iptables: 2 "host" Iptables,
    two_by_flow_nftables: 2 "flow" Nftables,
    two_by_flow_iptables: 2 "flow" Iptables,
    two_by_order_nftables: 2 "order" Nftables,
    two_by_order_iptables: 2 "order" Iptables,
    three_by_host_nftables: 3 "host" Nftables,
    three_by_host_iptables: 3 "host" Iptables,
    three_by_flow_nftables: 3 "flow" Nftables,
    three_by_flow_iptables: 3 "flow" Iptables,
    three_by_order_nftables: 3 "order" Nftables,
    three_by_order_iptables: 3 "order" Iptables,
    seven_by_host_nftables: 7 "host" Nftables,
    seven_by_host_iptables: 7 "host" Iptables,
    seven_by_flow_nftables: 7 "flow" Nftables,
    seven_by_flow_iptables: 7 "flow" Iptables,
    seven_by_order_nftables: 7 "order" Nftables,
    seven_by_order_iptables: 7 "order" Iptables,
}
