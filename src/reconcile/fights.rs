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
//! Only a watched pass leaves objects alone, since the agent runs further passes; any other pass
//! rolls back. [`Fights`] is the one place for these decisions: the value receives the objects of
//! the limiter from [`Watched`], takes steps out of plans, and hands the result to the report.

use std::collections::{BTreeMap, BTreeSet};

use super::{PassError, Watched};
use crate::apply::ApplyError;
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
#[derive(Debug, Default)]
pub(super) struct Fights {
    watched: bool,
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
    pub fn new(watched: Option<&Watched>) -> Fights {
        match watched {
            Some(watched) => Fights {
                watched: true,
                left_alone: watched.paused.clone(),
                contested: watched.contested.clone(),
                ..Fights::default()
            },
            None => Fights::default(),
        }
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
        if !self.watched {
            return false;
        }
        let left: BTreeSet<ObjectKey> = next.steps.iter().map(Step::key).collect();
        let mut given_up = BTreeSet::new();
        match setback {
            Setback::Refused(ApplyError::Steps(failures)) if last => {
                for failure in failures {
                    if left.contains(&failure.object) {
                        let reason = format!("{}: {}", failure.step, failure.reason);
                        self.refused.insert(failure.object.clone(), reason);
                        given_up.insert(failure.object.clone());
                    }
                }
            }
            Setback::Refused(_) => {}
            Setback::Undone(_) => {
                let tried: BTreeSet<ObjectKey> = tried.iter().map(Step::key).collect();
                let undone = left.intersection(&tried);
                given_up.extend(
                    undone
                        .filter(|key| last || self.contested.contains(key))
                        .cloned(),
                );
                self.fought.extend(given_up.iter().cloned());
            }
        }
        let any = !given_up.is_empty();
        self.left_alone.append(&mut given_up);
        self.strip(next);
        any
    }
}
