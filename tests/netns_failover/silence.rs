//! Counters before probes: a NAT with traffic that falls silent is found within seconds at the default
//! settings, and silence that is no outage changes nothing.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::*;
use serde_json::Value;

use super::packets::*;
use super::{Scene, started};

/// Answers address resolution, as the fabric of EC2 does for a dead instance, and forwards nothing.
const SILENT: &str = "table inet dead { chain forward { type filter hook forward priority -300; policy drop; }; chain input { type filter hook input priority -300; policy drop; meta l4proto icmpv6 accept; }; }";

/// Single probes that find nothing in time.
const SELDOM: &str = "interval = \"10m\"\n";

fn scene<'a>(lab: &'a Lab, firewall: Firewall, probe: &str) -> Scene<'a> {
    let scene = started(lab, firewall, probe);
    let ready = |status: &Value| {
        let mut known = ["10.0.1.10", "10.0.1.20"].iter();
        known.all(|gateway| {
            let health = health(status, gateway);
            !health["traffic"].is_null() && health["quality"]["probes"].as_u64() >= Some(1)
        })
    };
    scene.agent.wait_for("counters and a first probe", ready);
    scene
}

fn health(status: &Value, gateway: &str) -> Value {
    let gateways = status["gateways"].as_array();
    let mut gateways = gateways.into_iter().flatten();
    let found = gateways.find(|it| it["address"] == gateway && it["path"] == "egress");
    found.map_or(Value::Null, |it| it["health"].clone())
}

/// Packets of the flows through a gateway: out and back.
fn packets(status: &Value, gateway: &str) -> [u64; 2] {
    let traffic = health(status, gateway)["traffic"].clone();
    ["out", "back"].map(|direction| traffic[direction]["packets"].as_u64().unwrap())
}

/// One connection that its client opens now and waits for: the source that the partner sees, and the time.
pub(super) fn patient(lab: &Lab, to: IpAddr) -> (Option<IpAddr>, Duration) {
    let begun = Instant::now();
    let limit = Duration::from_secs(40);
    let opened = lab
        .ns("host1")
        .in_thread(|| TcpStream::connect_timeout(&SocketAddr::new(to, PORT), limit));
    let took = begun.elapsed();
    let flow = opened.map(|stream| LongFlow::over(stream, Duration::from_millis(10)));
    let seen = flow.ok().and_then(Result::ok).map(|flow| flow.stop().seen);
    (seen, took)
}

/// Opens connections until one goes through the NAT.
fn first_through(lab: &Lab, to: IpAddr, nat: Option<IpAddr>) -> Duration {
    let begun = Instant::now();
    loop {
        let seen = lab.ns("host1").in_thread(|| {
            let stream =
                TcpStream::connect_timeout(&SocketAddr::new(to, PORT), Duration::from_millis(250));
            let flow = LongFlow::over(stream.ok()?, Duration::from_millis(10));
            Some(flow.ok()?.stop().seen)
        });
        if seen.is_some() && seen == nat {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{seen:?}");
    }
}

/// The time to the verdict does not depend on the machine's load, but the time of a pass does.
const BOUND: Duration = Duration::from_secs(6);

fn found_within_seconds(firewall: Firewall) {
    let lab = Lab::new();
    let scene = scene(&lab, firewall, "");
    let [nat2, nat2_6] = scene.nat2();
    let open = [PARTNER, PARTNER6].map(|to| lab.long_flow("host1", to));
    lab.ns("nat1").nft(SILENT);
    let (death, lab) = (Instant::now(), &lab);
    std::thread::scope(|scope| {
        let new = [(PARTNER, nat2), (PARTNER6, nat2_6)];
        let new = new.map(|(to, nat)| scope.spawn(move || first_through(lab, to, nat)));
        let waiting = [PARTNER, PARTNER6].map(|to| scope.spawn(move || patient(lab, to)));
        eventually("flows of the first NAT end", || {
            open.iter().all(LongFlow::has_ended)
        });
        let ended = death.elapsed();
        let new = new.map(|it| it.join().unwrap());
        let waiting = waiting.map(|it| it.join().unwrap());
        println!(
            "{firewall:?}: open flows ended after {ended:?}, the first new ones went through after {new:?}, those opened at the death waited {waiting:?}"
        );
        assert_eq!(waiting.map(|(seen, _)| seen), [nat2, nat2_6]);
        assert!(new.iter().all(|took| *took < BOUND), "{new:?}");
        assert!(ended < BOUND + Duration::from_secs(2), "{ended:?}");
    });
    assert_eq!(scene.state("10.0.1.20").as_deref(), Some("up"));
}

#[test]
fn silent_nat_with_traffic_is_found_within_seconds_at_the_default_settings() {
    isolated(|| found_within_seconds(Firewall::Nftables));
}

#[test]
fn silent_nat_with_traffic_is_found_within_seconds_beside_iptables() {
    isolated(|| found_within_seconds(Firewall::Iptables));
}

/// The only packets are those of one connection that is being opened: its second packet raises the doubt,
/// and a later one finds the other NAT. No single probe comes in time.
#[test]
fn connection_opened_at_the_death_of_an_idle_nat_succeeds_by_a_repeated_packet() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, SELDOM);
        lab.ns("nat1").nft(SILENT);
        let (seen, took) = patient(&lab, PARTNER);
        println!("a connection opened at the death of an idle NAT waited {took:?}");
        assert_eq!(seen, scene.nat2()[0]);
        // The packets leave after 0, 1, 3 and 7 seconds, since Linux 6.5 (tcp_syn_linear_timeouts) after 0 to
        // 5 and 7. The last one is for a busy machine.
        assert!(took < Duration::from_secs(9), "{took:?}");
    });
}

/// A partner that takes a log over UDP and answers nothing.
#[test]
fn log_that_nobody_answers_changes_nothing() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, SELDOM);
        let before = scene.agent.status().unwrap();
        let taken = lab
            .ns("partner")
            .in_thread(|| UdpSocket::bind((PARTNER, 5140)).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let socket = lab
                    .ns("host1")
                    .in_thread(|| UdpSocket::bind("0.0.0.0:0").unwrap());
                while !stop.load(Ordering::Relaxed) {
                    let _ = socket.send_to(b"a line of a log", (PARTNER, 5140));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let grown = |status: &Value| {
                packets(status, "10.0.1.10")[0] > packets(&before, "10.0.1.10")[0] + 400
            };
            let limit = Duration::from_secs(60);
            let after = scene.agent.wait_for_within(limit, "400 lines", grown);
            assert_eq!(
                packets(&after, "10.0.1.10")[1],
                packets(&before, "10.0.1.10")[1],
                "nobody answers"
            );
            assert_eq!(after["passes"], before["passes"]);
            let probes = |status: &Value| {
                let quality = health(status, "10.0.1.10")["quality"].clone();
                quality["probes"].as_u64().unwrap()
            };
            let more = probes(&after) - probes(&before);
            println!("{more} probes in some 8 seconds of a log without answers");
            // The doubts after half a second, one, two, four, and more on a slow machine.
            assert!((1..=8).contains(&more), "{more}: the silence was seen");
            assert_eq!(scene.seen(), scene.nat1());
            stop.store(true, Ordering::Relaxed);
        });
        drop(taken);
        let up = |status: &Value| health(status, "10.0.1.10")["state"] == "up";
        scene.agent.wait_for("the gateway is up", up);
    });
}

#[test]
fn probes_are_no_traffic_of_a_gateway() {
    isolated(|| {
        let lab = Lab::new();
        let scene = scene(&lab, Firewall::Nftables, "interval = \"500ms\"\n");
        let probed = |status: &Value| {
            let quality = health(status, "10.0.1.20")["quality"].clone();
            quality["probes"].as_u64() >= Some(6)
        };
        let status = scene.agent.wait_for("six probes", probed);
        assert_eq!(packets(&status, "10.0.1.20"), [0, 0]);
        assert_eq!(health(&status, "10.0.1.20")["quality"]["lost"], 0);
        // The other gateway has the flows of this host.
        assert_eq!(scene.seen(), scene.nat1());
        let used = |status: &Value| {
            let [out, back] = packets(status, "10.0.1.10");
            out > 0 && back > 0
        };
        scene.agent.wait_for("packets of flows", used);
    });
}
