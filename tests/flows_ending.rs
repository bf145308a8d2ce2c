//! Flows that stand still on a dead way are ended, whatever their number.

// Helpers outside of test functions are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::UdpSocket;

use lab::isolated;
use lab::shell::sh;
use trailblazer::health::Stuck;
use trailblazer::kernel::flows::end_flows;
use trailblazer::types::{Family, Mark};

const DEAD: Mark = Mark {
    value: 0x400,
    mask: 0x3c00,
};
/// More than the batch in which flows are ended.
const FLOWS: u32 = 70_000;

/// Nobody has the addresses: packets leave, and no answer comes.
fn net() {
    sh("ip link set lo up");
    sh("ip link add away type veth peer name nobody");
    sh("ip link set nobody up");
    sh("ip link set away arp off up");
    sh("ip addr add 10.9.0.1/24 dev away");
    sh(
        "nft 'table inet marks { chain out { type filter hook output priority 0; \
         ip daddr 10.9.0.2 ct mark set 0x400; ip daddr 10.9.0.3 ct mark set 0x800; }; }'",
    );
}

fn send(socket: &UdpSocket, to: &str, flows: u32) {
    for number in 0..flows {
        let port = u16::try_from(number % 60_000).unwrap() + 1;
        socket.send_to(b"x", (to, port)).unwrap();
    }
}

#[test]
fn more_flows_than_one_batch_are_all_ended() {
    isolated(|| {
        net();
        let sockets = [(); 2].map(|()| UdpSocket::bind("10.9.0.1:0").unwrap());
        send(&sockets[0], "10.9.0.2", 60_000);
        send(&sockets[1], "10.9.0.2", FLOWS - 60_000);
        send(&sockets[0], "10.9.0.3", 3);
        let ended = end_flows(Family::Ipv4, DEAD, Stuck::All, None).unwrap();
        assert_eq!(ended.begun_anew, FLOWS, "{ended}");
        let again = end_flows(Family::Ipv4, DEAD, Stuck::All, None).unwrap();
        assert_eq!(again.begun_anew, 0, "{again}");
        let other = Mark {
            value: 0x800,
            ..DEAD
        };
        let living = end_flows(Family::Ipv4, other, Stuck::All, None).unwrap();
        assert_eq!(living.begun_anew, 3, "flows of other ways stay: {living}");
    });
}
