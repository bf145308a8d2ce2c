//! Links that lose their carrier under a multipath egress default: the kernel keeps the legs, and a
//! pass removes a leg while another leg has a carrier.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use lab::{Ns, wait_until};
use trailblazer::config::Role;
use trailblazer::reconcile::Outcome;

use crate::scenario::{Scenario, Stage};
use crate::world::World;

const PREFIXES: &[&str] = &["3.5.0.0/19", "2600:1ff0:8000::/39"];
const TWO_LINKS: &str = "
    [egress]
    spread = \"flow\"
    gateways = [\"10.0.1.10\", \"10.0.2.10\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:2::10\"]";
const ONE_LINK: &str = "
    [egress]
    spread = \"flow\"
    gateways = [\"10.0.1.10\", \"10.0.1.20\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]";

/// Enough destinations for the hash of a multipath route to use each leg.
const PARTNERS: u16 = 24;

fn scenario(name: &'static str, config: &'static str) -> Scenario {
    Scenario {
        name,
        role: Role::Host,
        before: None,
        after: Stage {
            config,
            prefixes: PREFIXES,
        },
        steps: 20,
    }
}

fn partners() -> Vec<IpAddr> {
    let ipv4 = (1..=PARTNERS).map(|n| format!("203.0.113.{n}"));
    let ipv6 = (1..=PARTNERS).map(|n| format!("2001:db8::{n:x}"));
    ipv4.chain(ipv6).map(|text| text.parse().unwrap()).collect()
}

/// The far end answers as every gateway, and as every partner behind.
fn put_gateways(far: &Ns) {
    for (link, subnet) in [(0, 1), (1, 2)] {
        for host in ["10", "20"] {
            far.ip(&format!(
                "addr replace 10.0.{subnet}.{host}/24 dev eth{link}"
            ));
            far.ip(&format!(
                "addr replace 2600:1f18:1000:{subnet}::{host}/64 dev eth{link} nodad"
            ));
        }
    }
    far.ip("link set lo up");
    far.ip("route replace local 203.0.113.0/24 dev lo");
    far.ip("-6 route replace local 2001:db8::/64 dev lo");
}

/// The devices by which the kernel sends packets to the partners.
fn devices(ns: &Ns) -> BTreeSet<(bool, String)> {
    let device = |partner: IpAddr| {
        let answer = ns.ip_json(&format!("route get {partner}"));
        let device = answer[0]["dev"].as_str().unwrap_or_default().to_owned();
        (partner.is_ipv6(), device)
    };
    partners().into_iter().map(device).collect()
}

fn both_families(names: &[&str]) -> BTreeSet<(bool, String)> {
    let pairs = names
        .iter()
        .flat_map(|name| [(false, (*name).to_owned()), (true, (*name).to_owned())]);
    pairs.collect()
}

/// The partners without an answer. No partner listens, so an answer is a refused connection.
fn silent(ns: &Ns) -> Vec<IpAddr> {
    let reached = |partner: &IpAddr| {
        let to = SocketAddr::new(*partner, 9);
        // Resolving a neighbour may take a second attempt, one second after the first.
        let answer = TcpStream::connect_timeout(&to, Duration::from_secs(3));
        matches!(&answer, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    };
    ns.in_thread(|| partners().into_iter().filter(|p| !reached(p)).collect())
}

fn wait_for_devices(ns: &Ns, names: &[&str]) {
    let wanted = both_families(names);
    wait_until(
        Duration::from_secs(5),
        Duration::from_millis(20),
        || (devices(ns) == wanted).then_some(()),
        || format!("legs over {names:?}, but {:?}", devices(ns)),
    );
}

/// The egress defaults as `ip` shows them.
fn defaults(ns: &Ns) -> [String; 2] {
    ["-4", "-6"].map(|family| ns.ip(&format!("{family} route show default table 1084")))
}

#[test]
fn leg_without_carrier_fails_no_pass_and_returns_with_the_carrier() {
    lab::isolated(|| {
        World::enter(scenario("two-links", TWO_LINKS), |world| {
            let (ns, far) = (world.ns(), world.far());
            put_gateways(&far);
            // Without this sysctl the kernel keeps sending to a link without carrier.
            for link in ["eth0", "eth1"] {
                for family in ["ipv4", "ipv6"] {
                    let key = format!("net/{family}/conf/{link}/ignore_routes_with_linkdown");
                    ns.sysctl(&[(&key, "1")]);
                }
            }
            assert_eq!(world.pass(1, None).outcome, Outcome::Changed);
            wait_for_devices(ns, &["eth0", "eth1"]);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());

            far.ip("link set eth1 down");
            wait_for_devices(ns, &["eth0"]);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::Changed, "one leg less: {report:?}");
            let text = defaults(ns);
            assert!(!text.iter().any(|text| text.contains("eth1")), "{text:?}");
            assert_eq!(world.pass(1, None).outcome, Outcome::InSync);
            ns.ip("route flush table 1084 proto 83");
            ns.ip("-6 route flush table 1084 proto 83");
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            wait_for_devices(ns, &["eth0"]);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());

            far.ip("link set eth1 up");
            // The far end lost its IPv6 addresses with its own link.
            put_gateways(&far);
            wait_for_carrier(ns, "eth1");
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            wait_for_devices(ns, &["eth0", "eth1"]);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());
        });
    });
}

fn wait_for_carrier(ns: &Ns, link: &str) {
    wait_until(
        Duration::from_secs(5),
        Duration::from_millis(20),
        || {
            ns.ip(&format!("link show {link}"))
                .contains("LOWER_UP")
                .then_some(())
        },
        || format!("a carrier of {link}"),
    );
}

/// With the kernel's default settings, a share of the flows goes to a link without carrier until a
/// pass removes the leg. Without any carrier, all legs stay.
#[test]
fn leg_without_carrier_gets_no_flows_after_a_pass() {
    lab::isolated(|| {
        World::enter(scenario("two-links", TWO_LINKS), |world| {
            let (ns, far) = (world.ns(), world.far());
            put_gateways(&far);
            assert_eq!(world.pass(1, None).outcome, Outcome::Changed);
            far.ip("link set eth1 down");
            wait_for_devices(ns, &["eth0", "eth1"]);
            assert_eq!(world.pass(1, None).outcome, Outcome::Changed);
            wait_for_devices(ns, &["eth0"]);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());

            far.ip("link set eth0 down");
            far.ip("link set eth1 up");
            put_gateways(&far);
            wait_for_carrier(ns, "eth1");
            assert_eq!(world.pass(1, None).outcome, Outcome::Changed);
            wait_for_devices(ns, &["eth1"]);

            far.ip("link set eth1 down");
            world.pass(1, None);
            wait_for_devices(ns, &["eth0", "eth1"]);
            far.ip("link set eth0 up");
            far.ip("link set eth1 up");
            put_gateways(&far);
        });
    });
}

#[test]
fn multipath_default_survives_a_short_loss_of_carrier() {
    lab::isolated(|| {
        World::enter(scenario("one-link", ONE_LINK), |world| {
            let (ns, far) = (world.ns(), world.far());
            put_gateways(&far);
            assert_eq!(world.pass(1, None).outcome, Outcome::Changed);
            assert_eq!(silent(ns), Vec::<IpAddr>::new());
            let before = defaults(ns);
            assert!(before.iter().all(|text| text.contains("nexthop via")));
            far.ip("link set eth0 down");
            std::thread::sleep(Duration::from_millis(300));
            far.ip("link set eth0 up");
            put_gateways(&far);
            wait_until(
                Duration::from_secs(10),
                Duration::from_millis(5),
                || (defaults(ns) == before).then_some(()),
                || format!("{before:?}, but {:?}", defaults(ns)),
            );
            assert_eq!(silent(ns), Vec::<IpAddr>::new());
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
        });
    });
}
