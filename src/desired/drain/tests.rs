use super::*;
use crate::desired::{Inputs, desired, shares::Shares};
use crate::facts::MainRoute;

const GATEWAY: &str = "10.0.1.10";

/// The drain of a host whose bypass path is the main table's default through `router`.
fn drain(marks: &str, router: &str) -> Result<Drain, String> {
    let route = |dst: &str, gateway: Option<&str>| MainRoute {
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        device: Some(IfIndex(2)),
        ..MainRoute::unicast(dst.parse().unwrap())
    };
    let facts = |router| {
        let main = vec![route("0.0.0.0/0", Some(router)), route("10.0.1.0/24", None)];
        HostFacts::of_one_interface("10.0.1.11/24", main)
    };
    let config = |text: &str| {
        let text = format!("role = \"host\"\n[egress]\ngateways = [\"{GATEWAY}\"]\n{text}");
        crate::config::parse(&text, "test").unwrap()
    };
    let (before, shares) = (facts("10.0.1.1"), Shares::default());
    let installed = config("");
    let of = (&installed, &before, &shares);
    let state = desired(&Inputs::of_one_family(of, Role::Host, Family::Ipv4));
    let present = Present {
        rules: &state.rules,
        routes: &state.routes,
        ownership: &Ownership::new(crate::ownership::Numbers::of(&installed), []),
        has_firewall: true,
        facts: Some(&facts(router)),
    };
    assert!(decides(present.rules, present.ownership));
    let drain = Drain::of(&config(marks), None, present)?;
    assert!(!decides(&drain.rules(), present.ownership));
    Ok(drain)
}

fn slots(drain: &Drain) -> Vec<Slot> {
    drain.paths.iter().map(|path| path.slot).collect()
}

#[test]
fn path_of_the_main_default_needs_no_table() {
    assert_eq!(slots(&drain("", "10.0.1.1").unwrap()), [1]);
    let mut all = slots(&drain("", "10.0.1.2").unwrap());
    all.sort_unstable();
    assert_eq!(all, [0, 1]);
    assert_eq!(slots(&drain("", GATEWAY).unwrap()), [0]);
}

#[test]
fn path_without_flows_goes_and_the_last_one_takes_everything() {
    let mut left = drain("", "10.0.1.2").unwrap();
    let mut flows = FlowCounts::default();
    flows.add(Family::Ipv4, 0x22);
    flows.add(Family::Ipv6, 0x10);
    left.keep(&flows);
    assert_eq!(slots(&left), [1]);
    let counted = left.left(&flows);
    assert_eq!(counted.len(), 1);
    assert_eq!((counted[0].flows, counted[0].path), (1, Path::Egress));
    left.keep(&FlowCounts::default());
    assert!(left.rules().is_empty() && left.routes().is_empty());
    let firewall = left.firewall(&Config::default(), BackendKind::Nftables, true);
    assert_eq!(firewall, None);
}

#[test]
fn marks_of_another_config_end_the_drain() {
    let refused = drain("[kernel]\nmarks = { path = 0x3000 }\n", "10.0.1.1");
    assert!(refused.unwrap_err().contains("drain with -c"));
}
