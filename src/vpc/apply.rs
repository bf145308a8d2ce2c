//! Carries out the steps of a plan, each as one call.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use super::calls::Call;
use super::ec2::{Ec2, Ec2Error, ErrorKind, ListFilter};
use super::error::VpcError;
use super::goal::weighed;
use super::objects::{ListState, PrefixList};
use super::observed::ObservedPlane;
use super::step::{KnownLists, Step};
use crate::random;
use crate::ranges::PrefixSet;
use crate::types::{Family, PerFamily};

/// The time in which a list that was just created may be unknown to another server of EC2.
const NOT_YET: Duration = Duration::from_secs(300);

/// The waits for changes that EC2 has taken.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// The first wait between two looks at a change in progress; each further one is twice as long.
    pub first_look: Duration,
    pub longest_look: Duration,
    /// The wait between two readings of the whole, while a reading lags behind.
    pub read_again: Duration,
    /// The time in which a change may be invisible to readings.
    pub visible_after: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            first_look: Duration::from_millis(250),
            longest_look: Duration::from_secs(5),
            read_again: Duration::from_secs(1),
            visible_after: Duration::from_secs(30),
        }
    }
}

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
            done: 0,
        }
    }

    /// Carries out the steps in order. A failed step of a list ends the steps of its family; a failed
    /// step of a table ends nothing.
    pub async fn apply(&mut self, steps: &[Step]) -> Ending {
        let mut failures = Vec::new();
        let mut failed = BTreeSet::new();
        for step in steps {
            if failed.contains(&step.family()) {
                continue;
            }
            match self.carry_out(step).await {
                Ok(()) => self.done += 1,
                Err(VpcError::Ec2(error)) if is_outdated(&error.kind) => {
                    return Ending::Again(error);
                }
                Err(error) => {
                    let over =
                        matches!(&error, VpcError::Ec2(error) if error.kind == ErrorKind::Deadline);
                    if step.concerns_list() {
                        failed.insert(step.family());
                    }
                    failures.push(error);
                    if over {
                        break;
                    }
                }
            }
        }
        Ending::Done(failures)
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), VpcError> {
        let family = step.family();
        let client_token = format!("{:016x}{:016x}", random::number(), random::number());
        let Some(call) = step.call(&self.lists, &client_token) else {
            return Err(VpcError::Refused(format!(
                "{family}: the step needs a prefix list with a version, and none is known"
            )));
        };
        let after = self.entries_after(family, &call);
        self.refuse_emptying(family, &call, &after)?;
        let performed = self.ec2.perform(&call).await?;
        *self.entries.get_mut(family) = after;
        if matches!(call, Call::DeleteList { .. }) {
            // EC2 describes the deleted list for a while.
            *self.lists.get_mut(family) = None;
        } else if let Some(list) = performed.list {
            let list = self.settled(list).await?;
            *self.lists.get_mut(family) = Some(list);
        }
        Ok(())
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

    /// Waits until the change of a list is complete, and returns the list as described then.
    async fn settled(&self, mut list: PrefixList) -> Result<PrefixList, VpcError> {
        let started = tokio::time::Instant::now();
        let (mut wait, longest) = (self.waits.first_look, self.waits.longest_look);
        loop {
            match &list.state {
                ListState::Settled => return Ok(list),
                ListState::InProgress => {}
                ListState::Failed | ListState::Deleted | ListState::Other(_) => {
                    let reason = list
                        .state_message
                        .as_deref()
                        .unwrap_or("no reason is given");
                    return Err(VpcError::Refused(format!(
                        "EC2 has not carried out the change of prefix list {} ({}): {reason}",
                        list.id, list.name
                    )));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
            let filter = ListFilter {
                ids: vec![list.id.clone()],
                ..ListFilter::default()
            };
            match self.ec2.describe_lists(&filter).await {
                Ok(described) => {
                    if let Some(described) = described.into_iter().next()
                        && described.version >= list.version
                    {
                        list = described;
                    }
                }
                // Another server of EC2 doesn't know the new list yet.
                Err(error) if error.kind == ErrorKind::NotFound && started.elapsed() < NOT_YET => {}
                Err(error) => return Err(error.into()),
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
