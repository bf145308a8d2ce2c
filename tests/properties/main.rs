//! Properties of every plan, on random worlds in a model of the kernel.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod model;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use trailblazer::desired::DesiredState;
use trailblazer::firewall::ObservedFirewall;
use trailblazer::objects::{Route, RouteTarget, Rule, RuleAction};
use trailblazer::plan::{Action, Goal, Plan, Step, plan};
use trailblazer::ranges::{Origin, PrefixSet, RangeSet};
use trailblazer::types::Family;

use model::{Model, Packet, Way};
use world::{Start, packets, start};

/// How many worlds a property is tried on; `PROPTEST_CASES` sets another number.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(800)
}

/// Worlds that never progress would prove nothing: a count of the stages reached.
#[test]
fn random_worlds_reach_every_stage() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = start();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..1000 {
        let start = strategy
            .new_tree(&mut runner)
            .expect("the generator rejects nothing")
            .current();
        let Some((desired, plan)) = planned(&start) else {
            *seen.entry("refused").or_default() += 1;
            continue;
        };
        let frozen = Family::ALL
            .iter()
            .any(|family| *desired.frozen.get(*family));
        let foreign = start.model.foreign(&start.ownership);
        let action = |action| plan.steps.iter().any(|step| step.action() == action);
        let marks = [
            ("planned", true),
            ("calm", start.calm),
            ("protected", protected(&start, &desired)),
            ("frozen", frozen),
            ("foreign routes", !foreign.0.is_empty()),
            ("adds", action(Action::Add)),
            ("replaces", action(Action::Replace)),
            ("deletes", action(Action::Delete)),
            ("multipath", desired.routes.iter().any(is_multipath)),
            ("leftover nexthops", !start.model.nexthops.is_empty()),
            ("earlier numbers", !start.ownership.earlier.is_empty()),
            ("nothing to do", plan.is_empty()),
        ];
        for (name, held) in marks {
            *seen.entry(name).or_default() += u32::from(held);
        }
    }
    println!("{seen:?}");
    for (name, least) in [
        ("planned", 500),
        ("refused", 5),
        ("calm", 100),
        ("protected", 400),
        ("frozen", 50),
        ("foreign routes", 50),
        ("adds", 300),
        ("replaces", 100),
        ("deletes", 200),
        ("multipath", 100),
        ("leftover nexthops", 50),
        ("earlier numbers", 200),
        ("nothing to do", 5),
    ] {
        assert!(
            seen[name] >= least,
            "{name}: only {} of 1000: {seen:?}",
            seen[name]
        );
    }
}

/// The desired state and the plan; `None` where a foreign object is in the way (then nothing is
/// carried out).
fn planned(start: &Start) -> Option<(DesiredState, Plan)> {
    let observed = start.model.observed();
    let desired = start.world.desired(&observed, &start.ownership);
    let goal = start.world.goal(desired.clone());
    let plan = plan(&goal, &observed, &start.ownership);
    plan.conflicts.is_empty().then_some((desired, plan))
}

fn is_multipath(route: &Route) -> bool {
    matches!(route.target, RouteTarget::Multipath(_))
}

fn carry_out(model: &Model, plan: &Plan) -> Result<Model, TestCaseError> {
    let mut model = model.clone();
    for (index, step) in plan.steps.iter().enumerate() {
        model
            .apply(step)
            .map_err(|why| TestCaseError::fail(format!("step {index}: {why}")))?;
    }
    Ok(model)
}

/// Our objects afterwards: the desired state, plus the objects of a frozen family.
fn expected(start: &Start, desired: &DesiredState) -> (Vec<Route>, Vec<Rule>) {
    let owns = &start.ownership;
    let keys: BTreeSet<_> = desired.routes.iter().map(|route| route.key).collect();
    let mut routes = desired.routes.clone();
    routes.extend(
        start
            .model
            .routes
            .values()
            .filter(|route| {
                owns.owns_route(route)
                    && owns.is_bypass_table(route.key.table)
                    && *desired.frozen.get(route.key.family())
                    && !keys.contains(&route.key)
            })
            .cloned(),
    );
    routes.sort();
    let to_egress = |rule: &Rule| {
        matches!(rule.action, RuleAction::Lookup { table, suppress_prefixlength: None }
            if !owns.is_bypass_table(table))
    };
    // The same rule with another realm.
    let superseded = |rule: &Rule| {
        let mut wanted = desired.rules.iter();
        wanted.any(|other| {
            (other.family, other.priority) == (rule.family, rule.priority)
                && other.action == rule.action
                && other.foreign_selectors != rule.foreign_selectors
        })
    };
    let mut rules = desired.rules.clone();
    let mut left = desired.rules.clone();
    for rule in start.model.rules.iter().filter(|rule| owns.owns_rule(rule)) {
        if let Some(place) = left.iter().position(|other| other == rule) {
            left.remove(place);
        } else if *desired.frozen.get(rule.family) && !to_egress(rule) && !superseded(rule) {
            rules.push(rule.clone());
        }
    }
    rules.sort();
    (routes, rules)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_carried_out_gives_the_desired_state(start in start()) {
        let Some((desired, plan)) = planned(&start) else { return Ok(()) };
        let after = carry_out(&start.model, &plan)?;
        let owned = after.observed().owned(&start.ownership);
        let (routes, rules) = expected(&start, &desired);
        let mut found = owned.rules;
        found.sort();
        prop_assert_eq!(owned.routes, routes);
        prop_assert_eq!(found, rules);
        prop_assert_eq!(owned.nexthops, Vec::new());
        prop_assert_eq!(owned.policies, desired.policies);
    }

    #[test]
    fn the_second_plan_is_empty(start in start()) {
        let Some((_, plan)) = planned(&start) else { return Ok(()) };
        let again = Start { model: carry_out(&start.model, &plan)?, ..start };
        let (_, second) = planned(&again).expect("what fitted before fits after");
        prop_assert!(second.is_empty(), "left: {:#?}", second.steps);
    }

    #[test]
    fn foreign_objects_are_untouched_at_every_step(start in start()) {
        let Some((_, plan)) = planned(&start) else { return Ok(()) };
        let before = start.model.foreign(&start.ownership);
        let mut model = start.model.clone();
        for step in &plan.steps {
            model.apply(step).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&model.foreign(&start.ownership), &before, "after {:?}", step);
        }
    }

    #[test]
    fn no_policy_goes_in_without_a_firewall(start in start()) {
        let Some((_, plan)) = planned(&start) else { return Ok(()) };
        let mut model = start.model.clone();
        for step in &plan.steps {
            model.apply(step).map_err(TestCaseError::fail)?;
            if matches!(step, Step::Policy { action: Action::Add, .. }) {
                let owned = |found: &ObservedFirewall| matches!(found, ObservedFirewall::Owned(_));
                prop_assert!(model.firewalls.values().any(owned), "after {:?}", step);
            }
        }
    }

    #[test]
    fn a_rollback_from_any_step_restores_what_was_ours(start in start(), stop in any::<Index>()) {
        let Some((_, plan_there)) = planned(&start) else { return Ok(()) };
        let before = start.model.observed().owned(&start.ownership);
        let steps = &plan_there.steps;
        let stop = stop.index(steps.len() + 1);
        for done in [stop, steps.len()] {
            let mut model = start.model.clone();
            for step in &steps[..done] {
                model.apply(step).map_err(TestCaseError::fail)?;
            }
            let goal = Goal::earlier(before.clone());
            // Routes over nexthop objects of an earlier version come back as multipath routes.
            let mut wanted = before.clone();
            wanted.routes = goal.routes.clone();
            wanted.nexthops = Vec::new();
            let back = plan(&goal, &model.observed(), &start.ownership);
            let back = carry_out(&model, &back)?;
            let mut owned = back.observed().owned(&start.ownership);
            owned.rules.sort();
            wanted.rules.sort();
            prop_assert_eq!(owned, wanted, "after {} of {} steps", done, steps.len());
        }
    }

    #[test]
    fn no_step_puts_a_packet_on_a_third_path(start in start()) {
        let Some((desired, plan)) = planned(&start) else { return Ok(()) };
        if protected(&start, &desired) {
            walk(&start, &plan.steps)?;
        }
    }

    #[test]
    fn a_flush_takes_all_of_ours_and_no_packet_to_a_third_path(start in start()) {
        let before = start.model.foreign(&start.ownership);
        let steps = plan(&Goal::nothing(), &start.model.observed(), &start.ownership);
        let after = carry_out(&start.model, &steps)?;
        prop_assert!(after.observed().owned(&start.ownership).is_empty());
        prop_assert_eq!(after.foreign(&start.ownership), before);
        walk(&start, &steps.steps)?;
    }

    #[test]
    fn from_documents_to_routes_every_address_is_kept(
        listed in prop::collection::vec(any_prefix(), 0..40),
        excluded in prop::collection::vec(any_prefix(), 0..6),
        probes in prop::collection::vec(any::<Index>(), 20),
    ) {
        let origins = BTreeMap::from([(Origin::Include, listed.clone())]);
        let ranges = RangeSet::build(None, String::new(), origins, &excluded);
        // Every edge of every prefix, with its neighbours: the likeliest places of a mistake.
        let mut edges = Vec::new();
        for prefix in listed.iter().chain(&excluded) {
            edges.extend([prefix.network(), prefix.broadcast()]);
            edges.extend(neighbours(prefix));
        }
        if !edges.is_empty() {
            let random: Vec<_> = probes.iter().map(|probe| *probe.get(&edges)).collect();
            edges.extend(random);
        }
        for address in edges {
            let wanted = listed.iter().any(|prefix| prefix.contains(&address))
                && !excluded.iter().any(|prefix| prefix.contains(&address));
            prop_assert_eq!(ranges.matching(address).is_some(), wanted, "{}", address);
        }
        let all: PrefixSet = listed.iter().collect();
        let left = all.subtract(&excluded.iter().collect());
        for family in Family::ALL {
            let prefixes = ranges.prefixes.get(family);
            let routes: PrefixSet = prefixes.iter().collect();
            prop_assert_eq!(routes.address_count(family), left.address_count(family));
            // Disjoint, and no two could be merged.
            let sum: u128 = prefixes.iter().map(|prefix| {
                PrefixSet::from_iter([prefix]).address_count(family)
            }).sum();
            prop_assert_eq!(sum, left.address_count(family));
            for pair in prefixes.windows(2) {
                let siblings = pair[0].prefix_len() == pair[1].prefix_len()
                    && pair[0].supernet() == pair[1].supernet();
                prop_assert!(!siblings, "{} and {} are one prefix", pair[0], pair[1]);
            }
        }
    }
}

/// True if each rule of ours into one of our tables has, or is about to get, its guarding rules:
/// the rule for marked packets, the `goto` target, the main table without its default. If such a
/// rule is missing beside rules of earlier settings (another priority, another role), no step
/// restores it: the old rules stay until the end, and send packets that should skip them to the
/// plan's new routes.
fn protected(start: &Start, desired: &DesiredState) -> bool {
    let rules = &start.model.rules;
    let ours = |rule: &&Rule| start.ownership.owns_rule(rule);
    rules.iter().filter(ours).all(|rule| {
        let leads = matches!(
            rule.action,
            RuleAction::Lookup {
                suppress_prefixlength: None,
                ..
            }
        );
        let beside = |wanted: fn(&RuleAction) -> bool, any_input: bool| {
            let standing = rules.iter().filter(ours).chain(&desired.rules);
            standing.into_iter().any(|other| {
                other.family == rule.family
                    && other.protocol == rule.protocol
                    && other.priority.0 / 100 == rule.priority.0 / 100
                    && (any_input || other.iif == rule.iif)
                    && wanted(&other.action)
            })
        };
        let main_alone = |action: &RuleAction| {
            matches!(
                action,
                RuleAction::Lookup {
                    suppress_prefixlength: Some(_),
                    ..
                }
            )
        };
        !leads
            || (beside(|action| matches!(action, RuleAction::Nop), true)
                && beside(|action| matches!(action, RuleAction::Goto(_)), false)
                && beside(main_alone, false))
    })
}

/// Short prefixes near each other, so that they overlap.
fn any_prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u32..1 << 12, 20u8..=32).prop_map(|(low, length)| {
            let address = std::net::Ipv4Addr::from_bits(0x34d8_0000 | low);
            IpNet::new(address.into(), length)
                .expect("a length up to 32")
                .trunc()
        }),
        (0u128..1 << 12, 116u8..=128).prop_map(|(low, length)| {
            let address = std::net::Ipv6Addr::from_bits((0x2600_1fa0_u128 << 96) | low);
            IpNet::new(address.into(), length)
                .expect("a length up to 128")
                .trunc()
        }),
    ]
}

/// The addresses just before and just behind a prefix.
fn neighbours(prefix: &IpNet) -> Vec<std::net::IpAddr> {
    match prefix {
        IpNet::V4(v4) => vec![
            std::net::Ipv4Addr::from_bits(v4.network().to_bits() - 1).into(),
            std::net::Ipv4Addr::from_bits(v4.broadcast().to_bits() + 1).into(),
        ],
        IpNet::V6(v6) => vec![
            std::net::Ipv6Addr::from_bits(v6.network().to_bits() - 1).into(),
            std::net::Ipv6Addr::from_bits(v6.broadcast().to_bits() + 1).into(),
        ],
    }
}

/// The path of each packet after each step. A packet with the same path before and after the plan
/// keeps the path throughout: a selected address never loses its bypass, no partner sees the host's
/// own address while the egress path is in force, and a marked packet always skips our tables. If
/// only the document changes, or nothing of ours existed, a packet changes its path in one move,
/// without a third path in between.
fn walk(start: &Start, steps: &[Step]) -> Result<(), TestCaseError> {
    let packets = packets();
    let ways = |model: &Model| -> Vec<Way> {
        packets
            .iter()
            .map(|packet| model.way(&start.world.facts, &start.ownership, packet))
            .collect()
    };
    let mut states = vec![start.model.clone()];
    for step in steps {
        let mut next = states.last().expect("one at least").clone();
        next.apply(step).map_err(TestCaseError::fail)?;
        states.push(next);
    }
    let seen: Vec<Vec<Way>> = states.iter().map(ways).collect();
    let (first, last) = (&seen[0], &seen[seen.len() - 1]);
    let end = &states[states.len() - 1];
    for (index, now) in seen.iter().enumerate() {
        for (place, packet) in packets.iter().enumerate() {
            let (was, is, shall) = (first[place], now[place], last[place]);
            let fine = if start.calm {
                is == was || is == shall
            } else if was == shall {
                is == was
            } else if was.is_egress() && shall.is_egress() {
                is.is_egress()
            } else {
                true
            };
            // A change of role may route storage traffic for a moment by a path of neither role,
            // and a missing rule may return before a withdrawn prefix goes. Both are paths of
            // storage.
            let storage = is == Way::Bypass
                && packet.mark == 0
                && (holds(start, &start.model, packet) || holds(start, end, packet));
            prop_assert!(
                fine || storage,
                "{:?} is {:?} after step {} ({:?}), {:?} before all and {:?} after all; steps: {:#?}",
                packet,
                is,
                index,
                steps[index - 1],
                was,
                shall,
                steps.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
        }
    }
    Ok(())
}

/// True if a bypass route of ours covers the packet's destination.
fn holds(start: &Start, model: &Model, packet: &Packet) -> bool {
    model.routes.values().any(|route| {
        start.ownership.owns_route(route)
            && start.ownership.is_bypass_table(route.key.table)
            && route.key.dst.contains(&packet.destination)
    })
}
