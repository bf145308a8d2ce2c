//! The first pass of a host whose egress is shut since the boot.

use super::*;
use crate::config::{Config, Role, parse};
use crate::desired::shares::Shares;
use crate::desired::shut::shut;
use crate::desired::{Inputs, desired};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, ObservedFirewall, OwnedFirewall, SavedRules};
use crate::objects::RouteTarget;
use crate::observed::ObservedState;
use crate::ownership::{Numbers, Ownership};
use crate::types::{Family, PerFamily};

fn inputs<'a>(
    config: &'a Config,
    facts: &'a HostFacts,
    shares: &'a Shares,
    prefixes: Option<&'a PerFamily<Vec<ipnet::IpNet>>>,
) -> Inputs<'a> {
    Inputs {
        prefixes,
        available: PerFamily::from_fn(|_| true),
        ..Inputs::of_one_family((config, facts, shares), Role::Host, Family::Ipv4)
    }
}

/// The plan of the first pass, with the network there.
fn first_pass() -> Plan {
    let text = "role = \"host\"\n[egress]\ngateways = [\"10.0.1.10\"]\nclose = [\"ipv6\"]\n";
    let config = parse(text, "test").unwrap();
    let shares = Shares::default();
    let nothing = HostFacts::default();
    let before = shut(&inputs(&config, &nothing, &shares, None));
    let marks = OwnedFirewall {
        text: vec!["shut".to_owned()],
        snapshot: SavedRules::default(),
    };
    let observed = ObservedState {
        routes: before.routes,
        rules: before.rules,
        firewalls: [(BackendKind::Nftables, ObservedFirewall::Owned(marks))].into(),
        ..ObservedState::empty()
    };
    let facts = HostFacts::behind_router("10.0.1.11/24");
    let prefixes = PerFamily {
        ipv4: vec!["52.216.0.0/15".parse().unwrap()],
        ipv6: Vec::new(),
    };
    let goal = Goal::of(
        desired(&inputs(&config, &facts, &shares, Some(&prefixes))),
        BackendKind::Nftables,
        vec!["usual".to_owned()],
    );
    let ownership = Ownership::new(Numbers::of(&config), []);
    plan(&goal, &observed, &ownership)
}

#[test]
fn first_pass_gives_storage_its_path_and_changes_the_firewall_last() {
    let steps = first_pass().steps;
    let place = |what: &str, holds: &dyn Fn(&Step) -> bool| {
        let found: Vec<usize> = (0..steps.len()).filter(|at| holds(&steps[*at])).collect();
        assert!(!found.is_empty(), "{what}: {steps:#?}");
        (found[0], found[found.len() - 1])
    };
    let bypass = place("bypass rule", &|step| {
        matches!(
            step,
            Step::Rule {
                action: Action::Add,
                ..
            }
        )
    });
    let gateway = place("egress route", &|step| match step {
        Step::Route { route, .. } => {
            route.key.dst == Family::Ipv4.default_prefix()
                && matches!(route.target, RouteTarget::Via(_))
        }
        _ => false,
    });
    let answers = place(
        "answers",
        &|step| matches!(step, Step::Rule { action: Action::Delete, rule } if rule.is_of_shut()),
    );
    let firewall = place("firewall", &|step| matches!(step, Step::Firewall { .. }));
    let own = place("own packets", &|step| match step {
        Step::Rule { action, rule } => *action == Action::Delete && !rule.is_of_shut(),
        _ => false,
    });
    assert!(bypass.1 < gateway.0 && gateway.1 < answers.0, "{steps:#?}");
    assert!(answers.1 < firewall.0 && firewall.1 < own.0, "{steps:#?}");
}
