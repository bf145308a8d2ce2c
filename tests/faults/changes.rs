//! Real changes by other programs between a pass's reading and its steps.

use std::sync::atomic::{AtomicUsize, Ordering};

use trailblazer::apply::{Interposer, apply};
use trailblazer::config::Role;
use trailblazer::firewall::BackendKind;
use trailblazer::kernel::errno::KernelError;
use trailblazer::kernel::lookup::RouteDecision;
use trailblazer::kernel::route::Write;
use trailblazer::objects::Route;
use trailblazer::plan::{Action, Goal, ObjectKey, Step, plan};
use trailblazer::reconcile::{Outcome, Report};
use trailblazer::types::{Family, TableId};

use crate::foreign::{Foreign, Routes};
use crate::scenario::{Scenario, UPGRADE};
use crate::world::{PARTNERS, World, at_every_step, open_kernel};

/// Does something before a step of the first attempt, and lets the step go on.
pub struct Deed<F: FnMut()> {
    at: usize,
    deed: F,
    /// The number of interferences so far.
    pub done: usize,
}

impl<F: FnMut()> Deed<F> {
    /// `at` is the step's place in the plan.
    pub fn before(at: usize, deed: F) -> Deed<F> {
        Deed { at, deed, done: 0 }
    }
}

impl<F: FnMut()> Interposer for Deed<F> {
    fn before(&mut self, index: usize, _step: &Step) -> Option<KernelError> {
        if index == self.at && self.done == 0 {
            (self.deed)();
            self.done += 1;
        }
        None
    }
}

/// A pass during which `deed` happens before a step.
fn pass_with(world: &World, at: usize, deed: impl FnMut()) -> Report {
    let mut deed = Deed::before(at, deed);
    let report = world.pass(1, Some(&mut deed));
    assert_eq!(deed.done, 1, "the deed was done once: {report:?}");
    report
}

fn when(world: &World, what: &str, at: usize) -> String {
    format!(
        "{}: {what} before step {}, {}",
        world.scenario.name,
        at + 1,
        world.steps[at]
    )
}

/// `ip` with the family and the key of a route.
fn route_words(action: &str, kind: &str, route: &Route) -> String {
    let family = match route.key.family() {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    };
    let key = &route.key;
    format!(
        "{family} route {action} {kind} {} table {} metric {}",
        key.dst, key.table, key.metric
    )
}

/// A foreign object takes the place of a route or firewall just before our step: the pass names the
/// object without overwriting it, and everything else goes in.
fn taken_before(world: &World, at: usize) -> bool {
    let (add, remove, named) = match &world.steps[at] {
        Step::Route {
            action: Action::Add,
            route,
            ..
        } => (
            route_words("add", "prohibit", route) + " proto static",
            route_words("del", "prohibit", route) + " proto static",
            format!(
                "foreign route {} in table {}",
                route.key.dst, route.key.table
            ),
        ),
        _ => return false,
    };
    let when = when(world, "taken", at);
    world.reset();
    let mut with_foreign = None;
    let report = pass_with(world, at, || {
        world.ns().ip(&add);
        with_foreign = Some(Foreign::read(Routes::All));
    });
    let with_foreign = with_foreign.expect("the deed was done");
    let error = report.error.clone().unwrap_or_default();
    assert_eq!(report.outcome, Outcome::Failed, "{when}: {report:?}");
    assert_eq!(report.outcome.exit_code(), 1, "{when}");
    assert!(error.contains("conflict: "), "{when}: {error}");
    assert!(error.contains(&named), "{when}: {error}");
    let taken = &world.steps[at];
    let others: Vec<&Step> = world.steps.iter().filter(|step| *step != taken).collect();
    world.assert_carried_out(&others, &when);
    with_foreign.assert_same(&Foreign::read(Routes::All), &when);
    // The foreign object remains: the next pass names the object again.
    let report = world.pass(1, None);
    let error = report.error.clone().unwrap_or_default();
    assert_eq!(report.outcome, Outcome::Failed, "{when}: {report:?}");
    assert!(error.contains(&named), "{when}: {error}");
    world.assert_carried_out(&others, &when);
    with_foreign.assert_same(&Foreign::read(Routes::All), &when);
    world.ns().ip(&remove);
    world.assert_converges(Outcome::Changed, &when);
    true
}

/// Runs a check at every step; `check` must apply to at least one.
fn wherever(names: &[&str], check: fn(&World, usize) -> bool) {
    for name in names {
        let fired = AtomicUsize::new(0);
        at_every_step(Scenario::named(name), |world, at| {
            fired.fetch_add(usize::from(check(world, at)), Ordering::Relaxed);
        });
        println!("{name}: {fired:?} faults");
        assert!(fired.into_inner() > 0, "{name}: the fault never fired");
    }
}

#[test]
fn foreign_object_in_our_place_fails_the_pass_cleanly() {
    lab::isolated(|| {
        wherever(
            &["first-ipv4", "first-ipv6", "document-change"],
            taken_before,
        );
    });
}

/// A foreign program undoes a step and the pass repeats it: the report and the journal name both.
#[track_caller]
fn assert_told_twice(world: &World, report: &Report, undone: &Step, when: &str) {
    let told = report.plan.steps.iter();
    let told = told.filter(|step| step.key() == undone.key()).count();
    assert!(told >= 2, "{when}: {report:?}");
    let pass = world.last_pass();
    assert_eq!(pass.steps_total, report.plan.steps.len(), "{when}");
    assert_eq!(pass.steps.len(), pass.steps_total, "{when}");
}

/// A foreign program deletes an object that we have just added: verify notices, and the second
/// attempt restores the object.
fn deleted_after(world: &World, at: usize) -> bool {
    let delete = match &world.steps[at] {
        Step::Route {
            action: Action::Add,
            route,
            ..
        } => route_words("del", "", route).replace("  ", " ") + " proto 83",
        Step::Rule {
            action: Action::Add,
            rule,
        } => {
            let family = match rule.family {
                Family::Ipv4 => "-4",
                Family::Ipv6 => "-6",
            };
            // The rules of pinned flows have one priority.
            let mark = rule.mark.map(|mark| format!("fwmark {mark} "));
            let mark = mark.unwrap_or_default();
            format!("{family} rule del pref {} {mark}protocol 83", rule.priority)
        }
        _ => return false,
    };
    // After the last step nobody is asked any more.
    if at + 1 == world.steps.len() {
        return false;
    }
    let when = when(world, "deleted", at);
    world.reset();
    let report = pass_with(world, at + 1, || {
        // `ip route del` compares the types `unreachable` and `throw` too.
        let kind = match &world.steps[at] {
            Step::Route { route, .. } => match route.target {
                trailblazer::objects::RouteTarget::Throw => "throw",
                trailblazer::objects::RouteTarget::Unreachable => "unreachable",
                _ => "unicast",
            },
            _ => "",
        };
        let words = if kind.is_empty() {
            delete.clone()
        } else {
            delete.replace("route del", &format!("route del {kind}"))
        };
        world.ns().ip(&words);
    });
    assert_eq!(report.outcome, Outcome::Changed, "{when}: {report:?}");
    assert_told_twice(world, &report, &world.steps[at], &when);
    world.assert_owned(1, &when);
    world.assert_converges(Outcome::InSync, &when);
    true
}

#[test]
fn new_objects_deleted_by_others_fail_the_pass_cleanly() {
    lab::isolated(|| {
        wherever(
            &["first-ipv4", "first-ipv6", "document-change"],
            deleted_after,
        )
    });
}

/// The defaults of the egress table vanish, as IPv4 defaults do with their link.
fn egress_flushed(world: &World, at: usize) -> bool {
    let when = when(world, "egress table flushed", at);
    world.reset();
    let report = pass_with(world, at, || {
        for family in ["-4", "-6"] {
            // A table without routes doesn't exist: then there is nothing to flush.
            world.ns().exec(&[
                "ip", family, "route", "flush", "table", "1084", "proto", "83",
            ]);
        }
    });
    assert_eq!(report.outcome, Outcome::Changed, "{when}: {report:?}");
    world.assert_owned(1, &when);
    world.assert_converges(Outcome::InSync, &when);
    true
}

#[test]
fn egress_defaults_vanish_at_every_step_and_the_pass_converges() {
    lab::isolated(|| {
        wherever(
            &[
                "one-gateway-to-several",
                "gateways-change",
                "several-gateways-to-one",
                "several-gateways-removed",
                UPGRADE,
            ],
            egress_flushed,
        );
    });
}

/// The nexthop objects of an earlier version vanish with their routes, as after a loss of carrier.
fn nexthops_flushed(world: &World, at: usize) -> bool {
    let when = when(world, "nexthops flushed", at);
    world.reset();
    let report = pass_with(world, at, || {
        world.ns().ip("nexthop flush proto 83");
    });
    assert_eq!(report.outcome, Outcome::Changed, "{when}: {report:?}");
    world.assert_owned(1, &when);
    world.assert_converges(Outcome::InSync, &when);
    true
}

#[test]
fn leftover_nexthop_objects_vanish_at_every_step_of_an_upgrade() {
    lab::isolated(|| wherever(&[UPGRADE], nexthops_flushed));
}

/// `flush` finds the nexthop objects of an earlier version without any earlier pass.
#[test]
fn flush_removes_leftover_nexthop_objects() {
    lab::isolated(|| {
        World::enter(Scenario::named(UPGRADE), flush_leftovers);
    });
}

fn flush_leftovers(world: &World) {
    let mut kernel = open_kernel().expect("the kernel opens");
    let ownership = world.ownership();
    let observed = kernel.observe(&ownership, &[]).expect("the kernel answers");
    assert_eq!(observed.owned(&ownership).nexthops.len(), 6);
    let steps = plan(&Goal::nothing(), &observed, &ownership);
    apply(&steps, &mut kernel, &ownership, None, &mut || {}).expect("all is deleted");
    let left = kernel.observe(&ownership, &[]).expect("the kernel answers");
    assert!(left.owned(&ownership).is_empty(), "{left:?}");
    assert_eq!(left.nexthops.len(), 1, "the foreign object stays");
}

/// `nft flush ruleset` takes our table with all others.
fn firewall_flushed(world: &World, at: usize) -> bool {
    let when = when(world, "nft flush ruleset", at);
    world.reset();
    let ruleset = world.ns().run(&["nft", "-s", "list", "ruleset"]);
    let report = pass_with(world, at, || {
        world.ns().run(&["nft", "flush", "ruleset"]);
    });
    assert_eq!(report.outcome, Outcome::Changed, "{when}: {report:?}");
    assert!(ruleset.contains("table inet corp"), "{when}: {ruleset}");
    let before = world.steps[..at].iter();
    for step in before.filter(|step| matches!(step.key(), ObjectKey::Firewall(_))) {
        assert_told_twice(world, &report, step, &when);
    }
    world.assert_owned(1, &when);
    world.ns().nft(crate::scenario::CORP);
    world.assert_converges(Outcome::InSync, &when);
    world.assert_foreign_firewall_same(&when);
    true
}

#[test]
fn flushed_ruleset_is_survived_at_every_step() {
    lab::isolated(|| {
        wherever(
            &["first-ipv4", "document-change", "nat-first"],
            firewall_flushed,
        )
    });
}

/// Somebody's table of our name appears just before ours goes in.
fn table_taken(world: &World, at: usize) -> bool {
    if !matches!(
        world.steps[at],
        Step::Firewall {
            backend: BackendKind::Nftables,
            action: Action::Add,
            ..
        }
    ) {
        return false;
    }
    let when = when(world, "table taken", at);
    world.reset();
    let list = || {
        world
            .ns()
            .run(&["nft", "list", "table", "inet", "trailblazer"])
    };
    let report = pass_with(world, at, || {
        world.ns().nft("table inet trailblazer { chain mine { }; }");
    });
    let error = report.error.clone().unwrap_or_default();
    assert_eq!(report.outcome, Outcome::Failed, "{when}: {report:?}");
    assert!(
        error.contains("belongs to another program"),
        "{when}: {error}"
    );
    assert!(list().contains("chain mine"), "{when}: {}", list());
    // Without a translation the bypass path of a NAT stays closed: storage would see private sources.
    // Routes close the path then, and no policy refuses packets without the marks of the firewall.
    let closed = world.scenario.role == Role::Nat;
    let is_left_out = |step: &&Step| match step {
        Step::Rule { rule, .. } => rule.priority.0 == 30020,
        _ => matches!(step, Step::Policy { .. }),
    };
    let steps: Vec<&Step> = world
        .steps
        .iter()
        .filter(|step| !(closed && is_left_out(step)))
        .collect();
    world.assert_carried_out(&steps, &when);
    world
        .ns()
        .run(&["nft", "delete", "table", "inet", "trailblazer"]);
    world.assert_converges(Outcome::Changed, &when);
    true
}

#[test]
fn foreign_table_of_our_name_is_left_alone() {
    lab::isolated(|| wherever(&["first-ipv4", "nat-first"], table_taken));
}

/// A foreign table takes our table's name and place, and then a step fails: the pass names the table
/// and leaves it.
struct TakenAndFailed<'a> {
    world: &'a World,
    fired: usize,
}

impl Interposer for TakenAndFailed<'_> {
    fn before(&mut self, index: usize, _step: &Step) -> Option<KernelError> {
        (index == 1 && self.fired == 0).then(|| {
            self.fired += 1;
            self.world
                .ns()
                .nft("delete table inet trailblazer; table inet trailblazer { chain mine { }; }");
            KernelError::from_errno(rustix::io::Errno::IO.raw_os_error())
        })
    }
}

#[test]
fn failed_step_spares_a_foreign_table_of_our_name() {
    lab::isolated(|| {
        World::enter(Scenario::named("document-change"), |world| {
            let mut interposer = TakenAndFailed { world, fired: 0 };
            let report = world.pass(1, Some(&mut interposer));
            assert_eq!(interposer.fired, 1, "the fault fired");
            let error = report.error.clone().unwrap_or_default();
            assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
            assert!(error.contains("belongs to another program"), "{error}");
            let table = ["nft", "list", "table", "inet", "trailblazer"];
            let left = world.ns().run(&table);
            assert!(left.contains("chain mine"), "{left}");
            world
                .ns()
                .run(&["nft", "delete", "table", "inet", "trailblazer"]);
            world.assert_converges(Outcome::Changed, "the foreign table is gone");
        });
    });
}

/// How a link goes wrong.
const LINK_FAULTS: [(&str, &str); 3] = [
    ("eth0 down", "link set eth0 down\n"),
    ("eth0 deleted", "link del eth0\n"),
    (
        "addresses of eth0 removed",
        "addr flush dev eth0 scope global\n",
    ),
];

/// Restores eth0 to its state after `Bare`, from any state.
fn mend_eth0(world: &World) {
    let ns = world.ns();
    if !ns.ip("-o link show").contains("eth0") {
        ns.ip_batch(
            "link add eth0 index 100 type veth peer name eth0far\n\
             link set eth0far up\n",
        );
    }
    ns.ip_batch(
        "link set eth0 up\n\
         addr replace 10.0.1.11/24 dev eth0\n\
         addr replace 2600:1f18:1000:1::11/64 dev eth0 nodad\n\
         route replace default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n\
         route replace default via fe80::1 dev eth0 proto ra metric 512\n\
         neigh replace 10.0.1.1 lladdr 02:00:00:00:00:01 dev eth0\n\
         neigh replace fe80::1 lladdr 02:00:00:00:00:01 dev eth0\n",
    );
}

/// The link of both paths fails before a step. Whatever the result of the pass, partners on the
/// egress path never see the host's own address (a second default in the main table would show the
/// leak), nothing foreign is lost, and after the link's return one pass converges.
fn link_fails(world: &World, at: usize) -> bool {
    let ns = world.ns();
    ns.ip_batch("route replace default via 10.0.2.1 dev eth1 metric 1000\n");
    for (what, fault) in LINK_FAULTS {
        let when = when(world, what, at);
        world.reset();
        let before = Foreign::read(Routes::WithoutMain);
        let report = pass_with(world, at, || ns.ip_batch(fault));
        let reported = match report.outcome {
            Outcome::Changed => report.error.is_none(),
            Outcome::RolledBack | Outcome::Failed => report.error.is_some(),
            _ => false,
        };
        assert!(reported, "{when}: {report:?}");
        before.assert_same(&Foreign::read(Routes::WithoutMain), &when);
        if world.scenario.before.is_some() {
            for (address, decision) in world.decisions_now() {
                let partner = PARTNERS.contains(&address.to_string().as_str());
                let leaks = matches!(&decision, RouteDecision::Route(route)
                    if route.key.table == TableId::MAIN);
                assert!(!(partner && leaks), "{when}: {address} leaks: {decision:?}");
            }
        }
        mend_eth0(world);
        let report = world.pass(1, None);
        assert_eq!(report.outcome.exit_code(), 0, "{when}: {report:?}");
        world.assert_owned(1, &when);
        before.assert_same(&Foreign::read(Routes::WithoutMain), &when);
    }
    ns.ip_batch("route del default via 10.0.2.1 dev eth1 metric 1000\n");
    true
}

#[test]
fn failing_link_is_survived_at_every_step() {
    lab::isolated(|| {
        wherever(
            &[
                "first-ipv4",
                "document-change",
                "gateways-replaced",
                "one-gateway-to-several",
            ],
            link_fails,
        );
    });
}

fn route_of(step: &Step) -> &Route {
    match step {
        Step::Route { route, .. } => route,
        other => panic!("no step of a route: {other}"),
    }
}

/// A pass with few changes asks the kernel for the changed routes instead of reading thousands of
/// others again. A changed route that another program deletes shows in the answer.
#[test]
fn changed_route_deleted_before_the_reading_back_returns_in_the_same_pass() {
    lab::isolated(|| {
        World::enter(Scenario::two_more_beside_many(), |world| {
            let first = route_of(&world.steps[0]).clone();
            let report = pass_with(world, 1, || world.write(Write::Delete, &first));
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            world.assert_owned(1, "deleted again");
            world.assert_converges(Outcome::InSync, "deleted again");
        });
    });
}

/// Another program deletes a route that the pass does not change, after the reading of the kernel:
/// the next pass restores the route, as if the deletion had come after the pass.
#[test]
fn unchanged_route_deleted_during_a_small_change_returns_with_the_next_pass() {
    lab::isolated(|| {
        World::enter(Scenario::two_more_beside_many(), |world| {
            let mut unchanged = route_of(&world.steps[0]).clone();
            // Not the first or the last prefix, about which every pass asks.
            unchanged.key.dst = "44.0.154.0/24".parse().expect("a prefix");
            let report = pass_with(world, 1, || world.write(Write::Delete, &unchanged));
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            assert_eq!(report.plan.steps.len(), 2, "{report:?}");
            let next = world.pass(1, None);
            assert_eq!(next.outcome, Outcome::Changed, "{next:?}");
            assert_eq!(next.plan.steps.len(), 1, "{next:?}");
            world.assert_owned(1, "restored");
        });
    });
}
