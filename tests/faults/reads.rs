//! Failing reads, firewalls that report false success, promises that fail, and numbers that must be
//! remembered.

use std::cell::RefCell;
use std::rc::Rc;

use trailblazer::apply::Interposer;
use trailblazer::firewall::{
    BackendKind, ObservedFirewall, PathTraffic, Ruleset, SavedRules, Variant,
};
use trailblazer::kernel::Kernel;
use trailblazer::kernel::errno::KernelError;
use trailblazer::kernel::firewall::nftables::Nftables;
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::plan::Step;
use trailblazer::reconcile::{Outcome, Report};

use crate::scenario::{Scenario, Stage};
use crate::world::{SharedIptables, World, run_pass_on};

/// The firewall's scripted misbehaviour, with a counter.
#[derive(Debug, Default)]
struct Script {
    /// The range of failing reads, counted from 0.
    failing_reads: std::ops::Range<usize>,
    /// These reads report "unreadable" instead of an error.
    unreadable: bool,
    /// `replace` reports success and does nothing.
    lies: bool,
    reads: usize,
    failed_reads: usize,
    lies_told: usize,
}

/// The real nftables behind a script.
struct Scripted {
    inner: Nftables,
    script: Rc<RefCell<Script>>,
}

fn broken(operation: &str) -> FirewallError {
    FirewallError::Io {
        backend: BackendKind::Nftables,
        operation: operation.to_owned(),
        source: std::io::Error::from_raw_os_error(rustix::io::Errno::NOBUFS.raw_os_error()),
    }
}

impl FirewallBackend for Scripted {
    fn kind(&self) -> BackendKind {
        BackendKind::Nftables
    }

    fn description(&self) -> String {
        "a scripted firewall".to_owned()
    }

    fn marks_forwarded(&self) -> bool {
        self.inner.marks_forwarded()
    }

    fn variant(&self) -> Variant {
        self.inner.variant()
    }

    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        self.inner.certainly_holds_ours(found)
    }

    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        let mut script = self.script.borrow_mut();
        script.reads += 1;
        if script.failing_reads.contains(&(script.reads - 1)) {
            script.failed_reads += 1;
            if script.unreadable {
                return Ok(ObservedFirewall::Unreadable(
                    "the script says so".to_owned(),
                ));
            }
            return Err(broken("read"));
        }
        self.inner.observe()
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        self.inner.render(ruleset)
    }

    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        self.inner.traffic()
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let mut script = self.script.borrow_mut();
        if script.lies {
            script.lies_told += 1;
            return Ok(());
        }
        self.inner.replace(ruleset)
    }

    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        self.inner.restore(snapshot)
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        self.inner.remove()
    }
}

/// Runs a pass on the scripted firewall; returns the report and the script's counters.
fn scripted_pass(
    world: &World,
    script: Script,
    interposer: Option<&mut dyn Interposer>,
) -> (Report, Script) {
    let script = Rc::new(RefCell::new(script));
    let nftables = Scripted {
        inner: Nftables::new(),
        script: Rc::clone(&script),
    };
    let kernel = move || Kernel::with_backends(Box::new(nftables), Box::new(SharedIptables::new()));
    let report = run_pass_on(&world.config(1), world.scenario.role, kernel, interposer);
    let script = Rc::try_unwrap(script).expect("the kernel is gone with its pass");
    (report, script.into_inner())
}

fn error_of(report: &Report) -> String {
    report.error.clone().unwrap_or_default()
}

const SCENARIOS: [&str; 3] = ["first-ipv4", "document-change", "nat-document-change"];

#[test]
fn failed_read_deletes_nothing() {
    lab::isolated(|| {
        for name in SCENARIOS {
            World::enter(Scenario::named(name), |world| {
                // The first reading fails, and another one succeeds.
                let script = Script {
                    failing_reads: 0..1,
                    ..Script::default()
                };
                let (report, script) = scripted_pass(world, script, None);
                assert_eq!(script.failed_reads, 1, "{name}: the fault fired");
                assert_eq!(report.outcome, Outcome::Changed, "{name}: {report:?}");
                world.assert_owned(1, name);
                world.assert_foreign_same(name);
                world.assert_converges(Outcome::InSync, name);
                // The egress of a first pass is not undone.
                let closes = world.scenario.before.is_none();
                let verify = 1;

                // The reading after the steps fails once: the pass restores the earlier state.
                world.reset();
                let script = Script {
                    failing_reads: verify..verify + 1,
                    ..Script::default()
                };
                let (report, script) = scripted_pass(world, script, None);
                assert_eq!(script.failed_reads, 1, "{name}: the fault fired");
                assert_eq!(report.outcome, Outcome::RolledBack, "{name}: {report:?}");
                if !closes {
                    world.assert_owned(0, name);
                }
                world.assert_converges(Outcome::Changed, name);

                // The reading in the rollback fails too, though not permanently: the rollback reads
                // again.
                world.reset();
                let script = Script {
                    failing_reads: verify..verify + 2,
                    ..Script::default()
                };
                let (report, script) = scripted_pass(world, script, None);
                assert_eq!(script.failed_reads, 2, "{name}: the fault fired twice");
                assert_eq!(report.outcome, Outcome::RolledBack, "{name}: {report:?}");
                if !closes {
                    world.assert_owned(0, name);
                }
                world.assert_converges(Outcome::Changed, name);

                // The reading fails permanently: the new state stays, since a rollback without a
                // reading would be blind.
                world.reset();
                let script = Script {
                    failing_reads: verify..verify + 99,
                    ..Script::default()
                };
                let (report, script) = scripted_pass(world, script, None);
                assert!(script.failed_reads > 1, "{name}: the fault fired");
                assert_eq!(report.outcome, Outcome::Failed, "{name}: {report:?}");
                let error = error_of(&report);
                assert!(error.contains("the rollback failed too"), "{name}: {error}");
                world.assert_owned(1, name);
                world.assert_foreign_same(name);
                world.assert_converges(Outcome::InSync, name);
            });
        }
    });
}

#[test]
fn unreadable_firewall_is_not_treated_as_empty() {
    lab::isolated(|| {
        for name in SCENARIOS {
            World::enter(Scenario::named(name), |world| {
                // Treated as empty, the table would be removed by the rollback of any later
                // failure.
                let script = Script {
                    failing_reads: 0..100,
                    unreadable: true,
                    ..Script::default()
                };
                let (report, script) = scripted_pass(world, script, None);
                assert!(script.failed_reads > 1, "{name}: the fault fired");
                assert_eq!(report.outcome, Outcome::Failed, "{name}: {report:?}");
                let error = error_of(&report);
                assert!(error.contains("the script says so"), "{name}: {error}");
                let steps: Vec<&Step> = world.steps.iter().collect();
                world.assert_carried_out(&steps, name);
                let report = world.pass(1, None);
                assert_eq!(report.outcome.exit_code(), 0, "{name}: {report:?}");
                world.assert_owned(1, name);
            });
        }
    });
}

#[test]
fn lying_firewall_is_detected() {
    lab::isolated(|| {
        World::enter(Scenario::named("first-ipv4"), |world| {
            let script = Script {
                lies: true,
                ..Script::default()
            };
            let (report, script) = scripted_pass(world, script, None);
            assert!(script.lies_told >= 3, "three attempts");
            assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
            let error = error_of(&report);
            for words in [
                "verify: ",
                "our nftables rules",
                "3 attempts",
                "rolled back",
            ] {
                assert!(error.contains(words), "{words}: {error}");
            }
            world.assert_foreign_same("lies");
            world.assert_converges(Outcome::Changed, "lies");
        });
    });
}

/// Refuses one step permanently.
struct Refusal {
    step: Step,
    fired: usize,
}

impl Interposer for Refusal {
    fn before(&mut self, _index: usize, step: &Step) -> Option<KernelError> {
        (*step == self.step).then(|| {
            self.fired += 1;
            KernelError::from_errno(rustix::io::Errno::IO.raw_os_error())
        })
    }
}

#[test]
fn last_step_refused_for_good_leaves_all_others_in() {
    lab::isolated(|| {
        World::enter(Scenario::named("first-ipv4"), |world| {
            let mut refusal = Refusal {
                step: world.steps.last().expect("there are steps").clone(),
                fired: 0,
            };
            let (report, _) = scripted_pass(world, Script::default(), Some(&mut refusal));
            assert_eq!(refusal.fired, 2, "the fault fired");
            assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
            assert_eq!(report.outcome.exit_code(), 1);
            let error = error_of(&report);
            for words in ["Input/output error", "everything else is in force"] {
                assert!(error.contains(words), "{words}: {error}");
            }
            let others: Vec<&Step> = world.steps.iter().rev().skip(1).collect();
            world.assert_carried_out(&others, "all but the last");
            assert_eq!(world.last_in_journal(), "failed");
            world.assert_converges(Outcome::Changed, "the last step");
        });
    });
}

/// A foreign rule that sends all traffic past our rules.
fn past_us(world: &World) {
    world
        .ns()
        .ip("-4 rule add pref 100 lookup main protocol static");
}

#[test]
fn rule_before_ours_degrades_and_undoes_nothing() {
    lab::isolated(|| {
        World::enter(Scenario::named("first-ipv4"), |world| {
            past_us(world);
            for outcome in [Outcome::Changed, Outcome::InSync] {
                let report = world.pass(1, None);
                assert_eq!(report.outcome, outcome, "{report:?}");
                assert_eq!(report.exit_code(), 1, "{report:?}");
                let all: Vec<String> = report.degraded.iter().map(ToString::to_string).collect();
                assert!(!all.is_empty(), "not degraded: {report:?}");
                for text in all {
                    for words in ["rule 100", "before ours", "ip -4 rule del pref 100"] {
                        assert!(text.contains(words), "{words}: {text}");
                    }
                }
            }
            world.ns().ip("-4 rule del pref 100 protocol static");
            let report = world.pass(1, None);
            assert_eq!(report.exit_code(), 0, "{report:?}");
            assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
        });
    });
}

#[test]
fn rule_before_ours_is_harmless_where_packets_leave_by_the_promised_gateway() {
    // Without an egress path the bypass gateway is the main default's.
    const BYPASS_ALONE: Scenario = Scenario {
        name: "bypass-alone",
        role: trailblazer::config::Role::Host,
        before: None,
        after: Stage {
            config: "[select]
                families = [\"ipv4\"]",
            prefixes: &["3.5.0.0/19"],
        },
        steps: 5,
    };
    lab::isolated(|| {
        World::enter(BYPASS_ALONE, |world| {
            past_us(world);
            for outcome in [Outcome::Changed, Outcome::InSync] {
                let report = world.pass(1, None);
                assert_eq!(report.outcome, outcome, "{report:?}");
                assert_eq!(report.exit_code(), 0, "{report:?}");
            }
        });
    });
}

#[test]
fn old_numbers_are_remembered_until_nothing_uses_them() {
    const V4: Scenario = Scenario {
        name: "other-numbers-ipv4",
        role: trailblazer::config::Role::Host,
        before: Some(Stage {
            config: "
                [select]
                families = [\"ipv4\"]
                [egress]
                gateways = [\"10.0.1.10\"]",
            prefixes: &["3.5.0.0/19"],
        }),
        after: Stage {
            config: "
                [select]
                families = [\"ipv4\"]
                [bypass]
                table = 2083
                [egress]
                table = 2084
                gateways = [\"10.0.1.10\"]
                [kernel]
                priority = 20000",
            prefixes: &["3.5.0.0/19"],
        },
        steps: 20,
    };
    lab::isolated(|| {
        World::enter(V4, |world| {
            // With the link down the family keeps its old rules unchanged.
            world.ns().ip("link set eth0 down");
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            let rules = world.ns().ip("-4 rule show");
            assert!(rules.contains("30099:"), "nothing was kept:\n{rules}");
            world.ns().ip_batch(
                "link set eth0 up\n\
                 route replace default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n",
            );
            let report = world.pass(1, None);
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            world.assert_owned(1, "with the link back");
        });
    });
}
