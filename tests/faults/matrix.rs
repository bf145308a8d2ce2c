//! Every class of failure at every step, once and at each try.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use trailblazer::apply::Interposer;
use trailblazer::kernel::errno::KernelError;
use trailblazer::objects::NexthopKind;
use trailblazer::plan::{Action, Step};
use trailblazer::reconcile::Outcome;

use crate::scenario::{ALL, IPTABLES, Scenario, UPGRADES};
use crate::world::{World, at_every_step};

/// How often the step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Always,
}

/// An interposer that answers in the kernel's place at one step.
struct Fault {
    at: usize,
    errno: Errno,
    times: Times,
    /// The failing step, by value, since a later attempt may order steps differently.
    target: Option<Step>,
    fired: usize,
}

impl Interposer for Fault {
    fn before(&mut self, index: usize, step: &Step) -> Option<KernelError> {
        let hit = match &self.target {
            None => index == self.at,
            Some(target) => self.times == Times::Always && target == step,
        };
        if !hit {
            return None;
        }
        self.target = Some(step.clone());
        self.fired += 1;
        Some(KernelError::from_errno(self.errno.raw_os_error()))
    }
}

const ERRORS: [Errno; 13] = [
    Errno::EXIST,
    Errno::NODEV,
    Errno::NETUNREACH,
    Errno::INVAL,
    Errno::AGAIN,
    Errno::NOBUFS,
    Errno::NOMEM,
    Errno::BUSY,
    Errno::PERM,
    Errno::OPNOTSUPP,
    Errno::SRCH,
    Errno::NOENT,
    Errno::IO,
];

/// Looking again can't help.
fn is_final(errno: Errno) -> bool {
    [Errno::PERM, Errno::OPNOTSUPP, Errno::IO].contains(&errno)
}

/// True if the errno tells a delete that the object is gone already. Here the object exists, and
/// verify finds it.
fn says_gone(errno: Errno, action: Action) -> bool {
    action == Action::Delete && [Errno::NODEV, Errno::SRCH, Errno::NOENT].contains(&errno)
}

/// True if the kernel removes the object together with another object of the same plan: a group
/// goes with its last member.
fn goes_with_another(step: &Step) -> bool {
    match step {
        Step::Nexthop(object) => matches!(object.kind, NexthopKind::Group(_)),
        _ => false,
    }
}

/// How often a pass tries.
const ATTEMPTS: usize = 3;

fn one_fault(world: &World, at: usize, errno: Errno, times: Times) {
    let step = &world.steps[at];
    let when = format!(
        "{}: {errno:?} {times:?} at step {}, {}",
        world.scenario.name,
        at + 1,
        step
    );
    world.reset();
    let mut fault = Fault {
        at,
        errno,
        times,
        target: None,
        fired: 0,
    };
    let report = world.pass(1, Some(&mut fault));
    assert_eq!(fault.target.as_ref(), Some(step), "{when}: another step");
    let mended = says_gone(errno, step.action()) && goes_with_another(step);
    let tries = match times {
        Times::Always if !is_final(errno) && !mended => ATTEMPTS,
        _ => 1,
    };
    assert_eq!(fault.fired, tries, "{when}: the fault fires: {report:?}");
    world.assert_foreign_same(&when);
    if times == Times::Always && !mended {
        assert_eq!(report.outcome.exit_code(), 1, "{when}: {report:?}");
        let error = report.error.clone().unwrap_or_default();
        let gone = says_gone(errno, step.action());
        let named = if gone {
            "verify: ".to_owned()
        } else {
            step.to_string()
        };
        assert!(
            error.contains(&named),
            "{when}: the step isn't named: {error}"
        );
        if !gone {
            // Nothing is withheld or undone for the refused step, except policies: these refuse packets
            // without the marks of a firewall.
            assert_eq!(report.outcome, Outcome::Failed, "{when}: {report:?}");
            let needs = |other: &Step| {
                matches!(other, Step::Policy { .. }) && matches!(step, Step::Firewall { .. })
            };
            let others = world.steps.iter();
            let ours: Vec<&Step> = others
                .filter(|other| *other != step && !needs(other))
                .collect();
            world.assert_carried_out(&ours, &when);
        }
        let report = world.pass(1, None);
        assert_eq!(report.outcome.exit_code(), 0, "{when}: {report:?}");
        world.assert_owned(1, &when);
    } else {
        assert_eq!(report.outcome, Outcome::Changed, "{when}: {report:?}");
        assert_eq!(report.error, None, "{when}");
        world.assert_allowed(&when);
        world.assert_owned(1, &when);
        world.assert_converges(Outcome::InSync, &when);
    }
}

/// One error of each class, rotated by step, and for retried classes a permanent one too.
fn some_errors(at: usize) -> Vec<(Errno, Times)> {
    let turn = |errors: &[Errno]| errors[at % errors.len()];
    let exists = turn(&[Errno::EXIST]);
    let link = turn(&[Errno::NODEV, Errno::INVAL, Errno::NETUNREACH]);
    let gone = turn(&[Errno::NOENT, Errno::SRCH]);
    let short = turn(&[Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM, Errno::BUSY]);
    let lasting = [exists, link, gone, short][at % 4];
    vec![
        (exists, Times::Once),
        (link, Times::Once),
        (gone, Times::Once),
        (short, Times::Once),
        (Errno::PERM, Times::Once),
        (Errno::OPNOTSUPP, Times::Once),
        (Errno::IO, Times::Once),
        (lasting, Times::Always),
    ]
}

/// Every error, once and permanently.
fn all_errors(_at: usize) -> Vec<(Errno, Times)> {
    let always = ERRORS.into_iter().filter(|errno| !is_final(*errno));
    let once = ERRORS.into_iter().map(|errno| (errno, Times::Once));
    once.chain(always.map(|errno| (errno, Times::Always)))
        .collect()
}

fn sweep(scenarios: &[Scenario], errors: fn(usize) -> Vec<(Errno, Times)>) {
    for scenario in scenarios {
        let started = std::time::Instant::now();
        let faults = AtomicUsize::new(0);
        at_every_step(*scenario, |world, at| {
            for (errno, times) in errors(at) {
                one_fault(world, at, errno, times);
                faults.fetch_add(1, Ordering::Relaxed);
            }
            world.assert_foreign_firewall_same(&format!("step {}", at + 1));
        });
        println!(
            "{}: {faults:?} faults in {:?}",
            scenario.name,
            started.elapsed()
        );
    }
}

/// Every sixth scenario: each test ends in time on a busy machine.
fn part(number: usize) -> Vec<Scenario> {
    ALL.iter().skip(number).step_by(6).copied().collect()
}

macro_rules! parts {
    ($($name:ident: $number:literal;)*) => { $(
        #[test]
        fn $name() {
            lab::isolated(|| sweep(&part($number), some_errors));
        }
    )* };
}

parts! {
    every_class_of_error_withholds_nothing_else_at_every_step_1: 0;
    every_class_of_error_withholds_nothing_else_at_every_step_2: 1;
    every_class_of_error_withholds_nothing_else_at_every_step_3: 2;
    every_class_of_error_withholds_nothing_else_at_every_step_4: 3;
    every_class_of_error_withholds_nothing_else_at_every_step_5: 4;
    every_class_of_error_withholds_nothing_else_at_every_step_6: 5;
}

#[test]
fn every_class_of_error_withholds_nothing_else_at_every_step_of_an_upgrade() {
    lab::isolated(|| sweep(UPGRADES, some_errors));
}

#[test]
fn every_class_of_error_withholds_nothing_else_at_every_step_with_iptables() {
    lab::isolated(|| sweep(IPTABLES, some_errors));
}

#[test]
#[ignore = "minutes: part of `make test-long`"]
fn every_error_withholds_nothing_else_at_every_step() {
    let half_an_hour = std::time::Duration::from_secs(1800);
    lab::Isolation::default()
        .deadline(half_an_hour)
        .run(|| sweep(ALL, all_errors));
}
