//! An agent's pass: during the pass a watcher notices deletions and repairs them.

use trailblazer::apply::Interposer;
use trailblazer::kernel::errno::KernelError;
use trailblazer::kernel::route::Write;
use trailblazer::objects::{Route, RouteTarget};
use trailblazer::plan::{Action, ObjectKey, Step};
use trailblazer::reconcile::report::Applied;
use trailblazer::reconcile::{Outcome, Watched};

use crate::changes::Deed;
use crate::scenario::Scenario;
use crate::world::World;

/// Deletes, in each attempt, one route of ours that the pass does not touch.
struct Taker<'a> {
    world: &'a World,
    others: Vec<Route>,
    taken: usize,
}

impl<'a> Taker<'a> {
    /// The pass touches no route for private space, and no promised packet takes one.
    fn new(world: &'a World) -> Self {
        let all = world.owned_now().routes;
        let private = |route: &Route| route.target == RouteTarget::Throw;
        Taker {
            world,
            others: all.into_iter().filter(private).collect(),
            taken: 0,
        }
    }
}

impl Interposer for Taker<'_> {
    fn before(&mut self, index: usize, _step: &Step) -> Option<KernelError> {
        if index == 0 {
            let route = self.others.pop().expect("there are enough of them");
            self.world.write(Write::Delete, &route);
            self.taken += 1;
        }
        None
    }
}

#[test]
fn watched_pass_keeps_its_work_despite_foreign_deletions() {
    lab::isolated(|| {
        World::enter(Scenario::named("document-change"), |world| {
            // Without a watcher the pass answers for every route.
            let mut taker = Taker::new(world);
            let report = world.pass(1, Some(&mut taker));
            assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
            assert_eq!(taker.taken, 3, "in each attempt");

            world.reset();
            let mut taker = Taker::new(world);
            let report = world.watched_pass(1, &mut taker);
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            assert_eq!(taker.taken, 1);
            world.assert_converges(Outcome::Changed, "what was taken is the next pass's");
        });
    });
}

/// Puts our own route there just before we do, as the agent's watcher may.
struct Faster<'a> {
    world: &'a World,
    put: usize,
}

impl Interposer for Faster<'_> {
    fn before(&mut self, _index: usize, step: &Step) -> Option<KernelError> {
        if let Step::Route {
            action: Action::Add,
            route,
            ..
        } = step
            && self
                .world
                .owned_now()
                .routes
                .iter()
                .all(|other| other != route)
        {
            self.world.write(Write::Add, route);
            self.put += 1;
        }
        None
    }

    fn batches(&self) -> bool {
        true
    }
}

#[test]
fn watched_pass_accepts_objects_already_present() {
    lab::isolated(|| {
        World::enter(Scenario::named("document-change"), |world| {
            let mut faster = Faster { world, put: 0 };
            let report = world.watched_pass(1, &mut faster);
            assert!(faster.put > 0, "{report:?}");
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            world.assert_owned(1, "somebody was faster");
        });
    });
}

/// The kernel refuses one step at each try.
struct Refuser<'a> {
    key: &'a ObjectKey,
    refusals: usize,
}

impl Interposer for Refuser<'_> {
    fn before(&mut self, _index: usize, step: &Step) -> Option<KernelError> {
        const ENETUNREACH: i32 = 101;
        (step.key() == *self.key).then(|| {
            self.refusals += 1;
            KernelError::from_errno(ENETUNREACH)
        })
    }
}

/// Refused objects are no fight: everything else goes in, and the pass fails with the reason.
#[test]
fn refused_object_is_left_out_and_named() {
    lab::isolated(|| {
        World::enter(Scenario::named("document-change"), |world| {
            let mut steps = world.steps.iter();
            let new = steps.find(|step| step.action() == Action::Add);
            let new = new.expect("a prefix comes");
            let key = new.key();
            let mut refuser = Refuser {
                key: &key,
                refusals: 0,
            };
            let report = world.watched_pass(1, &mut refuser);
            assert_eq!(refuser.refusals, 3, "one in each attempt: {report:?}");
            assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
            assert_eq!(report.applied, Applied::All, "{report:?}");
            assert!(report.fought.is_empty(), "{report:?}");
            let error = report.error.expect("the pass fails");
            let says = format!("the kernel refuses {new}");
            for words in [says.as_str(), "everything else is in force"] {
                assert!(error.contains(words), "lacks {words:?}: {error}");
            }
            let told: Vec<ObjectKey> = report.plan.steps.iter().map(Step::key).collect();
            assert_eq!(told.len(), world.steps.len() - 1, "{told:?}");
            assert!(!told.contains(&key), "{told:?}");
            world.assert_converges(Outcome::Changed, "the kernel gives in");
        });
    });
}

/// A route with earlier fights is tried once; the same pass restores any other route.
#[test]
fn watched_pass_tries_contested_objects_once() {
    lab::isolated(|| {
        World::enter(Scenario::named("document-change"), |world| {
            let mut steps = world.steps.iter().enumerate();
            let new = steps.find_map(|(place, step)| match step {
                Step::Route {
                    action: Action::Add,
                    route,
                    ..
                } => Some((place, route)),
                _ => None,
            });
            let (place, route) = new.expect("a prefix comes");
            let key = ObjectKey::Route(route.key);
            let cases = [
                (vec![], 2, Outcome::InSync),
                (vec![key.clone()], 1, Outcome::Changed),
            ];
            for (fought, tries, next) in cases {
                world.reset();
                let mut fighter = Deed::before(place + 1, || world.write(Write::Delete, route));
                let watched = Watched {
                    contested: fought.iter().cloned().collect(),
                    ..Watched::default()
                };
                let report = world.watched_pass_with(1, watched, &mut fighter);
                assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
                let told = report.plan.steps.iter();
                assert_eq!(told.filter(|step| step.key() == key).count(), tries);
                assert_eq!(report.fought.into_iter().collect::<Vec<_>>(), fought);
                assert_eq!(fighter.done, 1);
                world.assert_converges(next, "the fight is over");
            }
        });
    });
}
