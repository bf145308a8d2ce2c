//! One pass over a VPC: reads EC2 and the document, plans, changes, and reads EC2 again.

use std::time::Instant;

use jiff::Timestamp;

use super::apply::{Applier, Ending};
use super::drift::Left;
use super::ec2::Ec2;
use super::error::VpcError;
use super::goal::PlaneGoal;
use super::ledger::Ledger;
use super::look::{ask, judge};
use super::observe::observe;
use super::observed::ObservedPlane;
use super::plan::{Memory, PlanePlan, plan};
use super::report::VpcReport;
use super::routes::{self, Ledgers};
use super::step::{KnownLists, Step};
use super::summary::PlaneSummary;
use super::verify::{Made, difference, is_overtaken};
use crate::clock;
use crate::config::{Config, PlaneMode};
use crate::journal::{Journal, PassId};
use crate::random;
use crate::reconcile::{Elsewhere, LOCK_WAIT, Options};
use crate::state::lock::PassLock;
use crate::state::store::Store;
use crate::types::PerFamily;

pub use super::look::PassMemory;

/// The plans of one pass: the first, and three after changes of other writers.
const PLANS: usize = 4;

/// The times that a pass makes its changes anew after another program has undone them.
const REPAIRS: usize = 2;

/// One pass with a config whose regions are known. Errors are in the report.
pub async fn pass(
    ec2: &Ec2,
    config: &Config,
    options: &Options,
    memory: &mut PassMemory,
) -> VpcReport {
    let mut pass = Pass {
        ec2: ec2.for_pass(),
        config,
        options,
        memory,
        store: Store::open(&config.source.state_dir).with_sync(options.sync),
        journal: Journal::new(&config.source.state_dir).with_sync(options.sync),
        id: PassId::new(Timestamp::now()),
        ledger: None,
        stored_ledger: None,
        stored_left: None,
        ledger_unreadable: false,
        verified: None,
        report: VpcReport::new(options.mode),
    };
    let (started, before) = (Instant::now(), ec2.sent());
    let result = pass.run().await;
    pass.report.duration = started.elapsed();
    pass.report.sent = pass.ec2.sent().since(before);
    pass.report.settle(result.as_ref().err());
    pass.write_end();
    pass.report
}

/// The end of a verification.
enum Verified {
    End,
    /// The goal is in force, and spare lists are left.
    Spares(Box<ObservedPlane>),
    /// Another program has changed objects since; the change in words.
    Undone(Box<ObservedPlane>, String),
}

pub(super) struct Pass<'p> {
    ec2: Ec2,
    pub(super) config: &'p Config,
    pub(super) options: &'p Options,
    pub(super) memory: &'p mut PassMemory,
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(super) id: PassId,
    /// The ledger of `mode = "routes"`.
    pub(super) ledger: Option<Ledger>,
    /// The ledger as on disk.
    pub(super) stored_ledger: Option<Ledger>,
    /// True if the ledger may be on disk and cannot be read: it is not replaced.
    pub(super) ledger_unreadable: bool,
    /// The lists as left, as on disk.
    pub(super) stored_left: Option<PerFamily<Option<Left>>>,
    /// See [`routes::plan`].
    pub(super) verified: Option<String>,
    pub(super) report: VpcReport,
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<(), VpcError> {
        let plane = &self.config.vpc_plane;
        let _lock = self.lock()?;
        let asking = ask(&self.ec2, self.config, self.options, self.memory);
        let (gathered, observed) = asking.await?;
        self.report.fetch_took = gathered.took();
        self.report.plane = Some(PlaneSummary::of(&observed, plane));
        self.read_ledger();
        let judged = judge(
            self.config,
            self.options,
            gathered,
            &observed,
            self.ledger.as_ref(),
            &mut self.memory.documents,
        )?;
        self.take(&judged);
        let stored = self.store_documents(&judged);
        let in_force = !judged.judgement().nothing_in_force;
        let goal = PlaneGoal::new(plane, &judged.judgement().ranges).filter(|_| in_force);
        let Some(mut goal) = goal else {
            return Ok(judged.complain()?);
        };
        goal.frozen = !stored || self.ledger_unreadable;
        self.reach(goal, observed).await
    }

    /// Takes the lock, unless nothing is written.
    fn lock(&mut self) -> Result<Option<PassLock>, VpcError> {
        if !self.options.mode.writes() {
            return Ok(None);
        }
        let cause = self.options.cause.as_str();
        let lock = PassLock::acquire(self.store.directory(), cause, LOCK_WAIT)?;
        if let Some(failure) = lock.failure() {
            self.degrade_state(failure);
        }
        self.report.notes.extend(lock.warning().map(str::to_owned));
        Ok(Some(lock))
    }

    fn take(&mut self, judged: &Elsewhere) {
        self.report.take_judgement(judged.judgement());
        self.report.fetch = judged.fetch().clone();
        self.report
            .notes
            .extend(judged.notes.texts().map(str::to_owned));
    }

    /// Plans and applies until nothing is left to do.
    async fn reach(
        &mut self,
        mut goal: PlaneGoal,
        mut observed: ObservedPlane,
    ) -> Result<(), VpcError> {
        let mut left = self.read_left();
        let (mut contended, mut undone) = (None, 0);
        let seed = random::number();
        for _ in 0..PLANS {
            let (mut planned, mut ledgers) = self.plan(&goal, &observed, &left);
            if !planned.steps.is_empty() && !self.write_ahead(ledgers.as_ref()) && !goal.frozen {
                goal.frozen = true;
                (planned, ledgers) = self.plan(&goal, &observed, &left);
            }
            self.report.take_plan(&planned);
            if planned.steps.is_empty() || !self.options.mode.writes() {
                self.remember(&goal, &observed, ledgers, &left);
                return end(&planned, Vec::new());
            }
            self.write_begin();
            self.write_begun(&planned.steps, &goal, &observed, &mut left);
            let applier = Applier::new(&self.ec2, &observed, goal.floor, self.memory.waits);
            let mut applier = applier.with_seed(seed);
            let ending = applier.apply(&planned.steps).await;
            self.report.done += applier.done;
            left = applier.left(&observed, &goal, &left);
            let (known, sent) = (applier.lists().clone(), applier.sent);
            self.write_left(&left);
            if sent.len() < planned.steps.len() {
                self.forget_unsent(ledgers.as_ref(), &planned.steps, &sent);
            }
            match ending {
                Ending::Done(failures) => {
                    let verified = self.verify(&goal, &left, planned, failures, &known);
                    match verified.await? {
                        Verified::End => return Ok(()),
                        Verified::Spares(more) => observed = *more,
                        Verified::Undone(more, edit) => {
                            undone += 1;
                            if undone > REPAIRS {
                                return Err(VpcError::Undone(undone, edit));
                            }
                            observed = *more;
                        }
                    }
                }
                Ending::Again(error) => {
                    contended = Some(error);
                    tokio::time::sleep(self.memory.waits.read_again).await;
                    let plane = &self.config.vpc_plane;
                    observed = observe(&self.ec2, plane, &mut self.memory.entries).await?;
                    self.report.plane = Some(PlaneSummary::of(&observed, plane));
                }
            }
        }
        match contended {
            Some(error) => Err(VpcError::Contended(error)),
            None => Err(VpcError::NotInForce(format!(
                "other writers changed the lists after each of {PLANS} plans"
            ))),
        }
    }

    /// Plans by the mode. The ledgers are those of `mode = "routes"`.
    fn plan(
        &self,
        goal: &PlaneGoal,
        observed: &ObservedPlane,
        left: &PerFamily<Option<Left>>,
    ) -> (PlanePlan, Option<Ledgers>) {
        match self.config.vpc_plane.mode {
            PlaneMode::PrefixList => (plan(goal, observed, self.memory_of(left)), None),
            PlaneMode::Routes => {
                let planned = routes::plan(
                    goal,
                    observed,
                    self.ledger.as_ref(),
                    self.verified.as_deref(),
                );
                (planned.plan, Some(planned.ledgers))
            }
        }
    }

    fn memory_of<'m>(&self, left: &'m PerFamily<Option<Left>>) -> Memory<'m> {
        Memory {
            left,
            drift: self.config.vpc_plane.drift,
            now: clock::unix_seconds(),
        }
    }

    /// Reads EC2 again until the reading has the goal: reads may lag behind changes. A change of another
    /// program ends the wait.
    async fn verify(
        &mut self,
        goal: &PlaneGoal,
        left: &PerFamily<Option<Left>>,
        planned: PlanePlan,
        mut failures: Vec<VpcError>,
        known: &KnownLists,
    ) -> Result<Verified, VpcError> {
        let mut made = Made::by(&planned.steps);
        let started = tokio::time::Instant::now();
        loop {
            let plane = &self.config.vpc_plane;
            let observed = match observe(&self.ec2, plane, &mut self.memory.entries).await {
                Ok(observed) => observed,
                // The failed calls are the cause; the reading may only have come too late.
                Err(error) if !failures.is_empty() => {
                    failures.push(error);
                    return end(&planned, failures).map(|()| Verified::End);
                }
                Err(error) => return Err(error),
            };
            self.report.plane = Some(PlaneSummary::of(&observed, plane));
            let (rest, ledgers) = self.plan(goal, &observed, left);
            if rest.steps.is_empty() {
                self.remember(goal, &observed, ledgers, left);
                self.report.drop_planned_parts();
                self.report.take_plan(&rest);
                return end(&rest, Vec::new()).map(|()| Verified::End);
            }
            if !failures.is_empty() {
                self.remember(goal, &observed, None, left);
                return end(&planned, failures).map(|()| Verified::End);
            }
            if rest.steps.iter().all(Step::concerns_spare) {
                return Ok(Verified::Spares(Box::new(observed)));
            }
            if is_overtaken(known, &observed) || made.were_undone(&rest.steps) {
                let edit = match rest.drift.first() {
                    Some(drift) => drift.to_string(),
                    None => difference(&rest.steps),
                };
                return Ok(Verified::Undone(Box::new(observed), edit));
            }
            if started.elapsed() > self.memory.waits.visible_after {
                return Err(VpcError::NotInForce(difference(&rest.steps)));
            }
            tokio::time::sleep(self.memory.waits.read_again).await;
        }
    }
}

/// The end of a pass whose steps are done, apart from the failures.
fn end(planned: &PlanePlan, failures: Vec<VpcError>) -> Result<(), VpcError> {
    if !failures.is_empty() {
        let failures = failures.iter().map(ToString::to_string);
        return Err(VpcError::Incomplete(failures.collect()));
    }
    if !planned.conflicts.is_empty() {
        return Err(VpcError::Conflict(planned.conflicts.clone()));
    }
    Ok(())
}
