//! Objects that a pass leaves as they are although they differ from the goal.
//!
//! Two different failures lead there:
//!
//! - **Refused**: the kernel rejects our write again and again, as for a route whose gateway is
//!   not on-link. No other program takes part. The pass does everything else and then fails.
//! - **Fought**: the kernel accepts our write, and another program undoes it. Repairing at full
//!   speed would make both programs fight for ever, so the agent's `RepairLimiter` makes pauses
//!   between repairs. The pass does everything else and succeeds.
//!
//! Refused objects are left out by every pass. Fought objects are left alone by a watched pass only,
//! since the agent runs further passes. Objects of the egress are never left alone. [`Fights`] is
//! the one place for these decisions: the value receives the objects of the limiter from
//! [`Watched`], takes steps out of plans, and hands the result to the report.

use std::collections::{BTreeMap, BTreeSet};

use super::{PassError, Watched};
use crate::apply::ApplyError;
use crate::ownership::Ownership;
use crate::plan::{ObjectKey, Plan, Step};

/// The failure of an attempt. Another attempt may succeed.
#[derive(Debug)]
pub(super) enum Setback {
    /// The kernel refused a step. The steps after it were not carried out.
    Refused(ApplyError),
    /// All steps were accepted, and the kernel differs from the goal. Holds the difference.
    Undone(String),
}

impl Setback {
    /// True if every step was carried out.
    pub fn was_carried_out(&self) -> bool {
        matches!(self, Setback::Undone(_))
    }
}

impl std::fmt::Display for Setback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setback::Refused(error) => error.fmt(f),
            Setback::Undone(difference) => f.write_str(difference),
        }
    }
}

/// Decides which objects a pass leaves alone. See the module.
#[derive(Debug)]
pub(super) struct Fights {
    watched: bool,
    /// Tells the objects of the egress, which are never left alone.
    ownership: Ownership,
    /// Egress objects that another program undoes: written each time, and not verified.
    insisted: BTreeSet<ObjectKey>,
    /// Not written any more, by a decision before or during the pass.
    left_alone: BTreeSet<ObjectKey>,
    /// Given up as soon as an attempt finds the object undone.
    contested: BTreeSet<ObjectKey>,
    /// Fought objects that differ from the goal, for the report.
    pub fought: BTreeSet<ObjectKey>,
    /// Refused objects, each with the kernel's reason.
    pub refused: BTreeMap<ObjectKey, String>,
}

impl Fights {
    /// The decisions at the start of a pass.
    pub fn new(watched: Option<&Watched>, ownership: Ownership) -> Fights {
        let (mut left_alone, mut contested) = (BTreeSet::new(), BTreeSet::new());
        if let Some(watched) = watched {
            let paused = watched.paused.iter();
            let may_rest = paused.filter(|key| !key.is_of_egress(&ownership));
            left_alone.extend(may_rest.cloned());
            contested.clone_from(&watched.contested);
        }
        Fights {
            watched: watched.is_some(),
            ownership,
            insisted: BTreeSet::new(),
            left_alone,
            contested,
            fought: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Leaves objects alone whose place a foreign object has.
    pub fn leave(&mut self, objects: BTreeSet<ObjectKey>) {
        self.left_alone.extend(objects);
    }

    /// Takes out of a second plan the steps that need not be empty: those left alone, and those of
    /// egress objects that another program keeps undoing.
    pub fn strip_verified(&self, plan: &mut Plan) {
        self.strip(plan);
        plan.withhold(&self.insisted);
    }

    /// True if the pass leaves any object alone. A look-up may fail for want of such an object.
    pub fn leaves_any_alone(&self) -> bool {
        !self.left_alone.is_empty()
    }

    /// Takes the steps of objects that are left alone out of a plan.
    pub fn strip(&self, plan: &mut Plan) {
        plan.withhold(&self.left_alone);
    }

    /// The error of a pass with refused objects.
    pub fn refusal(&self) -> Option<PassError> {
        let reasons = self.refused.values().cloned();
        (!self.refused.is_empty()).then(|| PassError::Refused(reasons.collect()))
    }

    /// As [`Fights::strip`], and reports the fought objects among them.
    pub fn strip_and_report(&mut self, plan: &mut Plan) {
        self.fought.extend(plan.withhold(&self.left_alone));
    }

    /// After a setback: gives up the objects behind the setback, and takes the steps of these
    /// objects out of the next plan. Returns true if any object was given up.
    ///
    /// `tried` are the steps of all attempts so far. A contested object is given up the first
    /// time it was undone, any other object after the `last` attempt.
    pub fn give_up(
        &mut self,
        setback: &Setback,
        tried: &[Step],
        next: &mut Plan,
        last: bool,
    ) -> bool {
        let left: BTreeSet<ObjectKey> = next.steps.iter().map(Step::key).collect();
        let times = |key: &ObjectKey| tried.iter().filter(|step| step.key() == *key).count();
        let mut given_up = BTreeSet::new();
        let mut insisted = BTreeSet::new();
        match setback {
            Setback::Refused(ApplyError::Steps(failures)) => {
                let hopeless = failures
                    .iter()
                    .filter(|failure| last || failure.is_final() && times(&failure.object) > 1);
                for failure in hopeless {
                    if left.contains(&failure.object) {
                        let reason = format!("{}: {}", failure.step, failure.reason);
                        self.refused.insert(failure.object.clone(), reason);
                        given_up.insert(failure.object.clone());
                    }
                }
            }
            Setback::Refused(_) => {}
            Setback::Undone(_) if !self.watched => {}
            Setback::Undone(_) => {
                let tried: BTreeSet<ObjectKey> = tried.iter().map(Step::key).collect();
                let undone = left.intersection(&tried);
                let undone = undone.filter(|key| last || self.contested.contains(key));
                for key in undone {
                    self.fought.insert(key.clone());
                    if key.is_of_egress(&self.ownership) {
                        insisted.insert(key.clone());
                    } else {
                        given_up.insert(key.clone());
                    }
                }
            }
        }
        let any = !given_up.is_empty() || insisted.iter().any(|key| !self.insisted.contains(key));
        self.insisted.append(&mut insisted);
        self.left_alone.append(&mut given_up);
        self.strip(next);
        any
    }
}
