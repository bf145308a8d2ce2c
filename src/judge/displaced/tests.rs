//! The causes of a displacement, for each kept path and each decision.

use super::*;
use crate::objects::{RouteKey, RouteTarget, Via};
use crate::types::{IfIndex, Metric, PathMask, Protocol, Realm};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pins() -> Pins {
    let slots = [(1, "10.0.1.10"), (2, "10.0.1.20"), (3, "10.0.1.30")];
    let slots = slots.map(|(slot, gateway)| (slot, address(gateway)));
    Pins {
        marks: PinMarks::new(PathMask(0x30), 0xe),
        numbers: Numbers::default(),
        configured: ["10.0.1.10", "10.0.1.20"].map(address).into(),
        gateways: PerFamily {
            ipv4: BTreeMap::from(slots),
            ipv6: BTreeMap::new(),
        },
        bypass: PerFamily {
            ipv4: Some(vec![address("10.0.1.1")]),
            ipv6: None,
        },
        egress_of_nat: PerFamily::default(),
        resets_ended: false,
    }
}

fn decision(table: u32, hops: &[&str]) -> RouteDecision {
    let via = |hop: &&str| {
        crate::objects::Leg::only(Via {
            gateway: Some(address(hop)),
            device: IfIndex(2),
            onlink: false,
        })
    };
    let target = RouteTarget::through(hops.iter().map(via).collect());
    RouteDecision::Route(Route {
        key: RouteKey {
            table: TableId(table),
            dst: "192.0.2.0/24".parse().unwrap(),
            tos: 0,
            metric: Metric(0),
        },
        target: target.unwrap_or(RouteTarget::Unreachable),
        realm: Realm(0),
        options: None,
        protocol: Protocol(83),
    })
}

/// A decision by the main table's default.
fn of_default(hop: &str) -> RouteDecision {
    match decision(254, &[hop]) {
        RouteDecision::Route(mut route) => {
            route.key.dst = Family::Ipv4.default_prefix();
            RouteDecision::Route(route)
        }
        errno => errno,
    }
}

#[test]
fn displacement_names_the_cause() {
    const BYPASS: Slot = 0;
    let pins = pins();
    for (slot, decision, why) in [
        (BYPASS, decision(1083, &["10.0.1.1"]), None),
        // The bypass path has changed its gateway: the flow goes along.
        (BYPASS, decision(1083, &["10.0.1.2"]), None),
        (
            BYPASS,
            decision(1084, &["10.0.1.10"]),
            Some(Why::LeftBypass),
        ),
        (BYPASS, decision(254, &["10.0.1.7"]), None),
        // The administrator's routes win for open flows too.
        (BYPASS, decision(254, &["10.0.1.30"]), None),
        (1, decision(254, &["10.0.1.7"]), None),
        (1, of_default("10.0.1.7"), Some(Why::OtherRoute)),
        (1, of_default("10.0.1.10"), None),
        (BYPASS, of_default("10.0.1.7"), None),
        (BYPASS, of_default("10.0.1.30"), Some(Why::OtherRoute)),
        (1, decision(1084, &["10.0.1.10"]), None),
        (1, decision(1084, &["10.0.1.10", "10.0.1.20"]), None),
        (1, decision(1084, &["10.0.1.20"]), Some(Why::GatewayUnused)),
        (3, decision(1084, &["10.0.1.20"]), Some(Why::GatewayLeft)),
        (1, decision(1083, &["10.0.1.1"]), Some(Why::EnteredBypass)),
        (1, decision(254, &["10.0.1.10"]), None),
        (1, decision(1084, &[]), Some(Why::Refused)),
        (BYPASS, RouteDecision::Errno(113), Some(Why::Refused)),
    ] {
        let kept = pins.kept(Family::Ipv4, slot).unwrap();
        let found = pins.displacement(kept, &decision);
        assert_eq!(
            found.map(|it| it.why),
            why,
            "slot {slot}, new flow by {decision:?}"
        );
    }
}

#[test]
fn displacement_on_a_nat_names_the_other_path() {
    let mut pins = pins();
    pins.gateways.ipv4.clear();
    pins.egress_of_nat.ipv4 = Some(vec![address("10.0.0.1")]);
    for (slot, decision, why) in [
        (0, decision(1083, &["10.0.1.1"]), None),
        (0, of_default("10.0.0.1"), Some(Why::LeftBypass)),
        (0, decision(254, &["10.0.1.7"]), Some(Why::OtherRoute)),
        (0, decision(254, &["10.0.1.1"]), None),
        (1, of_default("10.0.0.1"), None),
        (1, decision(1083, &["10.0.1.1"]), Some(Why::EnteredBypass)),
        (1, decision(254, &["10.0.1.7"]), Some(Why::OtherRoute)),
    ] {
        let kept = pins.kept(Family::Ipv4, slot).unwrap();
        let found = pins.displacement(kept, &decision);
        assert_eq!(found.map(|it| it.why), why, "slot {slot}, {decision:?}");
    }
}

#[test]
fn flows_without_a_table_are_not_kept() {
    let pins = pins();
    assert_eq!(pins.kept(Family::Ipv4, 4), None);
    assert_eq!(pins.kept(Family::Ipv6, 0), None);
    assert!(pins.are_in(Family::Ipv4) && !pins.are_in(Family::Ipv6));
}
