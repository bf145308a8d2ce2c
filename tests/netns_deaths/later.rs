//! Connections of a NAT that is down and still serves them, and that stand still later.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use lab::*;

use crate::clients::Flow;
use crate::packets::*;
use crate::scene::Setup;

/// The end of a connection of the host: data is unanswered after two seconds, and a round comes each two. The
/// rest is for a busy machine, whose rounds take longer and come less often.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
/// The end of a connection of the container: it stands still between two repetitions of its packet, three and
/// six seconds after the first, and a reset answers a later one.
const RESET_WITHIN: Duration = Duration::from_secs(20);

fn stands_still_later(firewall: Firewall) {
    let setup = Setup {
        nats: 2,
        spread: "order",
        firewall,
    };
    setup.build("interval = \"1s\"\n", |lab, machine| {
        let guest = lab.container();
        let agent = machine.agent();
        agent.wait_in_force();
        let open = |ns: &Ns| [PARTNER, PARTNER6].map(|to| Flow::open(ns, to).unwrap());
        let [host, other] = [lab.ns("host1"); 2].map(open);
        let forwarded = open(&guest);
        let first = [lab.nat1.egress_public, lab.nat1.egress6];
        for flows in [&host, &other, &forwarded] {
            assert_eq!(flows.each_ref().map(|flow| flow.seen), first);
        }
        lab.ns("nat1").nft(
            "table inet full { chain forward { type filter hook forward priority 0; policy accept; \
             ct state new drop; }; }",
        );
        let second = [lab.nat2.egress_public, lab.nat2.egress6].map(Ok);
        eventually("new flows take the second NAT", || {
            [PARTNER, PARTNER6].map(|to| lab.ns("host1").who(to)) == second
        });
        thread::sleep(Duration::from_secs(3));
        for flow in host.iter().chain(&other).chain(&forwarded) {
            assert!(flow.is_alive(), "{}", agent.log());
        }
        let ports: Vec<String> = host
            .iter()
            .chain(&forwarded)
            .map(|flow| flow.port().to_string())
            .collect();
        let still = Instant::now();
        lab.ns("nat1").nft(&format!(
            "table inet still {{ chain forward {{ type filter hook forward priority -300; policy accept; \
             iifname priv tcp sport {{ {} }} drop; }}; }}",
            ports.join(", ")
        ));
        let ends = |flows: &[Flow; 2]| flows.each_ref().map(|flow| flow.ended(still));
        let is_over = |flows: &[Flow; 2], within: Duration| {
            wait_until(
                within,
                Duration::from_millis(20),
                || ends(flows).iter().all(Option::is_some).then_some(()),
                || format!("{:?}: {}", ends(flows), agent.log()),
            );
            ends(flows).map(|end| end.unwrap().1)
        };
        assert_eq!(
            is_over(&host, ENDED_WITHIN),
            [ErrorKind::ConnectionAborted; 2]
        );
        assert_eq!(
            is_over(&forwarded, RESET_WITHIN),
            [ErrorKind::ConnectionReset; 2]
        );
        println!("{firewall:?}: {:?}, {:?}", ends(&host), ends(&forwarded));
        for flow in &other {
            assert!(flow.is_alive(), "{}", agent.log());
        }
    });
}

#[test]
fn connections_that_stand_still_after_the_verdict_end() {
    isolated(|| stands_still_later(Firewall::Nftables));
}

#[test]
fn connections_that_stand_still_after_the_verdict_end_beside_iptables() {
    isolated(|| stands_still_later(Firewall::Iptables));
}
