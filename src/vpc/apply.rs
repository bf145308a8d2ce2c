//! Carries out the steps of a plan, each as one call.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use ipnet::IpNet;

use super::calls::Call;
use super::drift::{self, Left};
use super::ec2::{Ec2, Ec2Error, ErrorKind};
use super::error::VpcError;
use super::goal::{PlaneGoal, weighed};
use super::objects::RouteTableId;
use super::observed::{ObservedList, ObservedPlane};
use super::settle::{Expected, gone, settled};
use super::step::{KnownLists, Step};
use crate::random;
use crate::ranges::PrefixSet;
use crate::types::{Family, PerFamily};

pub use super::settle::Waits;

/// The end of an application.
#[derive(Debug)]
pub enum Ending {
    /// All steps are done, but for the failures.
    Done(Vec<VpcError>),
    /// The reading is out of date, or a call may have happened: read again before anything else.
    Again(Box<Ec2Error>),
}

/// The state of an application.
pub struct Applier<'a> {
    ec2: &'a Ec2,
    lists: KnownLists,
    entries: PerFamily<BTreeSet<IpNet>>,
    /// The least number of addresses that a change may leave.
    floor: u64,
    waits: Waits,
    /// The same in all plans of a pass.
    seed: u64,
    /// The families whose last change of the list had no clear answer.
    unsure: BTreeSet<Family>,
    /// The tables that were led.
    led: BTreeSet<(Family, RouteTableId)>,
    /// The steps whose calls were made, with any answer.
    pub sent: Vec<Step>,
    /// The number of steps done.
    pub done: usize,
}

impl<'a> Applier<'a> {
    /// Starts from a reading.
    pub fn new(ec2: &'a Ec2, observed: &ObservedPlane, floor: u64, waits: Waits) -> Applier<'a> {
        let ours = |family| observed.lists.get(family).ours();
        Applier {
            ec2,
            lists: PerFamily::from_fn(|family| ours(family).map(|ours| ours.list.clone())),
            entries: PerFamily::from_fn(|family| {
                ours(family).map(|ours| ours.cidrs()).unwrap_or_default()
            }),
            floor,
            waits,
            seed: random::number(),
            unsure: BTreeSet::new(),
            led: BTreeSet::new(),
            sent: Vec::new(),
            done: 0,
        }
    }

    /// Uses the client tokens of an earlier application: a list whose creation was taken without an
    /// answer, and that readings don't show yet, is not created a second time.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Applier<'a> {
        self.seed = seed;
        self
    }

    /// Carries out the steps in order, without those that a failed one holds up.
    pub async fn apply(&mut self, steps: &[Step]) -> Ending {
        let mut failures = Vec::new();
        let mut failed = Failed::default();
        for step in steps {
            if failed.holds_up(step) {
                continue;
            }
            self.sent.push(step.clone());
            match self.carry_out(step).await {
                Ok(()) => self.done += 1,
                Err(VpcError::Ec2(error)) if is_outdated(&error.kind) => {
                    if error.kind == ErrorKind::OutcomeUnknown && !step.is_mark() {
                        self.unsure.insert(step.family());
                    }
                    return Ending::Again(error);
                }
                Err(error) => {
                    let over =
                        matches!(&error, VpcError::Ec2(error) if error.kind == ErrorKind::Deadline);
                    failed.note(step);
                    failures.push(error);
                    if over {
                        break;
                    }
                }
            }
        }
        Ending::Done(failures)
    }

    /// Our lists after the steps.
    pub fn lists(&self) -> &KnownLists {
        &self.lists
    }

    /// Our lists and their routes after the steps that were done, as the memory against which later
    /// changes of other programs show: `earlier` for a list without a change of its entries, or after a
    /// change without an answer.
    pub fn left(
        &self,
        observed: &ObservedPlane,
        goal: &PlaneGoal,
        earlier: &PerFamily<Option<Left>>,
    ) -> PerFamily<Option<Left>> {
        PerFamily::from_fn(|family| {
            let known = self.lists.get(family).as_ref();
            let known = known?;
            let is_unsure = self.unsure.contains(&family);
            let wanted = goal.families.get(family).as_ref()?;
            let before = observed.lists.get(family).ours();
            let before = before.filter(|before| before.list.id == known.id);
            let left =
                before.and_then(|before| Left::of(before, &observed.tables, Some(&wanted.target)));
            let mut routes = left.map(|left| left.routes).unwrap_or_default();
            let led = self.led.iter().filter(|(of, _)| *of == family);
            routes.extend(led.map(|(_, table)| (table.clone(), wanted.target.id.clone())));
            let earlier = earlier.get(family).as_ref();
            let earlier = earlier.filter(|earlier| earlier.list == known.id);
            let is_same = before.is_some_and(|before| before.list.version == known.version);
            // Changes of another program that this pass leaves out are still its own.
            let is_edited = goal.frozen
                && before.is_some_and(|before| {
                    drift::of(family, earlier, before, &wanted.entries).is_some()
                });
            if is_same || is_unsure || is_edited {
                let earlier = earlier?.clone();
                return Some(Left { routes, ..earlier });
            }
            Some(Left {
                region: None,
                list: known.id.clone(),
                name: known.name.clone(),
                version: known.version?,
                token: before.and_then(ObservedList::token).max(Some(goal.token)),
                begun: None,
                entries: self.entries.get(family).clone(),
                routes,
            })
        })
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), VpcError> {
        let family = step.family();
        let Some(call) = step.call(&self.lists, &self.client_token(step)) else {
            return Err(VpcError::Refused(format!(
                "{family}: the step needs a prefix list with a version, and none is known"
            )));
        };
        let after = self.entries_after(family, &call);
        self.refuse_emptying(family, &call, &after)?;
        let performed = self.ec2.perform(&call).await?;
        *self.entries.get_mut(family) = after;
        if let Step::CreateRoute { table, prefix, .. } | Step::ReplaceRoute { table, prefix, .. } =
            step
            && prefix.is_none()
        {
            self.led.insert((family, table.clone()));
        }
        let Some(list) = performed.list else {
            return Ok(());
        };
        let known = self.lists.get_mut(family);
        if matches!(call, Call::DeleteList { .. }) {
            if known.as_ref().is_some_and(|known| known.id == list.id) {
                *known = None;
            }
            return gone(self.ec2, &self.waits, list).await;
        }
        let before = known.as_ref().and_then(|known| known.version);
        let expected = Expected::after(&call, before, &list);
        *known = Some(settled(self.ec2, &self.waits, list, expected).await?);
        Ok(())
    }

    /// EC2 refuses a token with other parameters than before, so that the token depends on them.
    fn client_token(&self, step: &Step) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        step.to_json().to_string().hash(&mut hasher);
        format!("{:016x}{:016x}", self.seed, hasher.finish())
    }

    fn entries_after(&self, family: Family, call: &Call) -> BTreeSet<IpNet> {
        let mut entries = self.entries.get(family).clone();
        match call {
            Call::CreateList { entries: first, .. } => {
                entries = first.iter().map(|entry| entry.cidr).collect();
            }
            Call::ModifyEntries { add, remove, .. } => {
                entries.extend(add.iter().map(|entry| entry.cidr));
                entries.retain(|entry| !remove.contains(entry));
            }
            _ => {}
        }
        entries
    }

    /// The last guard: no plan may empty a list.
    fn refuse_emptying(
        &self,
        family: Family,
        call: &Call,
        after: &BTreeSet<IpNet>,
    ) -> Result<(), VpcError> {
        let Call::ModifyEntries { list, remove, .. } = call else {
            return Ok(());
        };
        let left = weighed(&after.iter().collect::<PrefixSet>(), family);
        if remove.is_empty() || left >= u128::from(self.floor) {
            return Ok(());
        }
        Err(VpcError::Refused(format!(
            "prefix list {list} would be left with {left} addresses, fewer than [vpc_plane] floor = {}",
            self.floor
        )))
    }
}

/// The failed steps that later steps build on.
#[derive(Default)]
struct Failed {
    /// A step of the list of the family.
    lists: BTreeSet<Family>,
    /// A tag of the table: the mark of the document, or the hash of the routes.
    tags: BTreeSet<RouteTableId>,
    /// A step of a route of the family.
    routes: BTreeSet<Family>,
    /// A new or a changed route of the table: the addresses of the route may need an older one.
    led: BTreeSet<(Family, RouteTableId)>,
}

impl Failed {
    /// True if the step must not follow: a list as its earlier steps should have left it, routes of an
    /// unmarked document, a list that a route leads to, or the deletion of a route whose addresses the
    /// failed one should have.
    fn holds_up(&self, step: &Step) -> bool {
        let family = step.family();
        self.lists.contains(&family)
            || step.table().is_some_and(|table| self.tags.contains(table))
            || matches!(step, Step::DeleteList { .. }) && self.routes.contains(&family)
            || matches!(
                step,
                Step::DeleteRoute { table, .. } | Step::DeleteSpareRoute { table, .. }
                    if self.led.contains(&(family, table.clone()))
            )
    }

    fn note(&mut self, step: &Step) {
        match (step, step.table()) {
            // A table with many marks is as well marked as one with few.
            (Step::UntagTable { .. }, _) => {}
            (Step::TagTable { table, .. }, _) => {
                self.tags.insert(table.clone());
            }
            (_, Some(table)) => {
                self.routes.insert(step.family());
                if matches!(step, Step::CreateRoute { .. } | Step::ReplaceRoute { .. }) {
                    self.led.insert((step.family(), table.clone()));
                }
            }
            (_, None) => {
                self.lists.insert(step.family());
            }
        }
    }
}

/// True if the reading of the plan is out of date, or the outcome is unknown.
fn is_outdated(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::VersionMismatch
            | ErrorKind::IncorrectState
            | ErrorKind::InProgress
            | ErrorKind::AlreadyExists
            | ErrorKind::OutcomeUnknown
    )
}
