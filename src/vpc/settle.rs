//! Waits until EC2 has carried out the change of a list.

use std::time::Duration;

use tokio::time::Instant;

use super::calls::Call;
use super::ec2::{Ec2, Ec2Error, ErrorKind, ListFilter};
use super::error::VpcError;
use super::objects::{ListId, ListState, ListVersion, PrefixList};

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
    /// The time in which a list that was just created may be unknown to another server of EC2.
    pub known_after: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            first_look: Duration::from_millis(250),
            longest_look: Duration::from_secs(5),
            read_again: Duration::from_secs(1),
            visible_after: Duration::from_secs(30),
            known_after: Duration::from_secs(300),
        }
    }
}

/// The list after a change of ours, and of nobody else.
///
/// The version of the next compare-and-set comes from here, and never from a description: a
/// description may have a version of another writer, and a change on top of it would undo that
/// writer's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    version: Option<ListVersion>,
    max_entries: Option<u32>,
}

impl Expected {
    /// The list after a call; `before` is the version that the call started from.
    pub(super) fn after(call: &Call, before: Option<ListVersion>, answer: &PrefixList) -> Expected {
        let (version, max_entries) = match call {
            Call::ModifyEntries { current, .. } => (Some(ListVersion(current.0 + 1)), None),
            // A change of the size makes no version.
            Call::ResizeList { max_entries, .. } => (before, Some(*max_entries)),
            _ => (answer.version, None),
        };
        Expected {
            version,
            max_entries,
        }
    }

    fn is_reached(self, list: &PrefixList) -> bool {
        list.version >= self.version
            && self
                .max_entries
                .is_none_or(|max| list.max_entries == Some(max))
    }

    /// The error for a list that another writer has changed since; `None` for one that nobody has.
    fn overtaken(self, list: &PrefixList) -> Option<Ec2Error> {
        let (now, expected) = (list.version?, self.version?);
        (now > expected).then(|| another_writer(&list.id, now, expected))
    }
}

/// The error for a version that another writer made.
pub(super) fn another_writer(list: &ListId, now: ListVersion, expected: ListVersion) -> Ec2Error {
    let message = format!(
        "prefix list {list} has version {now}, and version {expected} was expected: another writer \
         has changed it"
    );
    let call = "DescribeManagedPrefixLists";
    Ec2Error::without_answer(call, ErrorKind::VersionMismatch, message)
}

/// Waits until the change of a list is complete, and returns the list as described then.
///
/// # Errors
/// EC2 has failed to carry out the change, or another writer has changed the list meanwhile.
pub(super) async fn settled(
    ec2: &Ec2,
    waits: &Waits,
    mut list: PrefixList,
    expected: Expected,
) -> Result<PrefixList, VpcError> {
    let started = Instant::now();
    let mut wait = waits.first_look;
    loop {
        if let Some(error) = expected.overtaken(&list) {
            return Err(error.into());
        }
        match &list.state {
            ListState::Settled if expected.is_reached(&list) => return Ok(list),
            // A server of EC2 describes the list before the change.
            ListState::Settled if started.elapsed() < waits.visible_after => {}
            ListState::Settled => {
                let message = format!("prefix list {} doesn't show the change", list.id);
                let call = "DescribeManagedPrefixLists";
                let kind = ErrorKind::VersionMismatch;
                return Err(Ec2Error::without_answer(call, kind, message).into());
            }
            ListState::InProgress => {}
            _ => return Err(failed(&list)),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(waits.longest_look);
        match describe(ec2, &list.id).await {
            Ok(Some(described)) if described.version >= list.version => list = described,
            Ok(_) => {}
            // Another server of EC2 doesn't know the new list yet.
            Err(error)
                if error.kind == ErrorKind::NotFound && started.elapsed() < waits.known_after => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until a list is gone: EC2 takes the deletion of a list in use, and carries it out only if no
/// route refers to the list.
///
/// # Errors
/// EC2 has failed to delete the list.
pub(super) async fn gone(ec2: &Ec2, waits: &Waits, mut list: PrefixList) -> Result<(), VpcError> {
    let started = Instant::now();
    let mut wait = waits.first_look;
    loop {
        match &list.state {
            ListState::Deleted => return Ok(()),
            ListState::Deleting => {}
            // A server of EC2 describes the list before the deletion.
            ListState::Settled if started.elapsed() < waits.visible_after => {}
            _ => return Err(failed(&list)),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(waits.longest_look);
        match describe(ec2, &list.id).await {
            Ok(Some(described)) => list = described,
            Ok(None) => return Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn describe(ec2: &Ec2, list: &ListId) -> Result<Option<PrefixList>, Ec2Error> {
    let filter = ListFilter {
        ids: vec![list.clone()],
        ..ListFilter::default()
    };
    Ok(ec2.describe_lists(&filter).await?.into_iter().next())
}

fn failed(list: &PrefixList) -> VpcError {
    let reason = list.state_message.as_deref();
    VpcError::ChangeFailed(format!(
        "EC2 has not carried out the change of prefix list {} ({}): {}",
        list.id,
        list.name,
        reason.unwrap_or("no reason is given")
    ))
}
