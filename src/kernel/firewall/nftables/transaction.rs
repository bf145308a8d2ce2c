//! nf_tables transactions: all messages take effect at once, or none.

use super::contact::failed;
use super::message::{Message, PROTECTED, delete_table, message, nfgen};
use super::table::TableState;
use super::uapi::*;
use super::{counters, read, records};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::{ACK, Attributes, REQUEST, Wire, WireError, push_message};

/// The number of attempts if a foreign transaction comes between our reading and our commit.
const ATTEMPTS: u32 = 20;
/// `ERESTART` (linux/errno.h): the generation named in the batch is outdated.
const ERESTART: i32 = 85;
const EMSGSIZE: i32 = 90;

/// The kernel's treatment of a valid transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    /// The kernel checks and discards a batch without an end message, as with `nft --check`.
    CheckOnly,
}

/// Replaces our table `name`, if present, by the table of `messages`; without messages, only deletes.
/// A foreign table of our name is an error. The batch carries the generation of the reading, so
/// that the kernel refuses the commit if such a table has appeared meanwhile. New counters start
/// with the numbers of the reading.
pub(super) fn replace_ours(
    wire: &mut Wire,
    name: &str,
    operation: &str,
    messages: &[Message],
) -> Result<(), FirewallError> {
    // The records are worth less than the rules: a kernel that refuses them gets the rules alone.
    let mut carries_records = true;
    for _ in 0..ATTEMPTS {
        let reading = read::head(wire, name).map_err(|error| failed(operation, error))?;
        let mut batch = Vec::new();
        let mut now = Vec::new();
        let mut recorded = Vec::new();
        if let Some(table) = &reading.table {
            refuse_foreign(operation, table)?;
            refuse_protected(operation, table, wire.port())?;
            batch.push(delete_table(name));
            if !messages.is_empty() {
                let read = read::read_counters(wire, name);
                now = counters::moved(read.map_err(|error| failed(operation, error))?, messages);
                if carries_records {
                    recorded = records::carried_on(wire, name, messages);
                }
            }
        }
        let carried_on = |message| counters::carried_on(name, message, &now);
        batch.extend(messages.iter().map(carried_on));
        let has_records = !recorded.is_empty();
        batch.extend(recorded);
        if batch.is_empty() {
            return Ok(());
        }
        match send(wire, &batch, reading.generation, Ending::Commit) {
            Err((
                _,
                WireError::Kernel {
                    errno: ERESTART, ..
                },
            )) => {}
            Err((_, error)) if has_records && may_be_records(&error) => carries_records = false,
            Err((what, error)) => return Err(failed(&format!("{operation}: {what}"), error)),
            Ok(()) => return Ok(()),
        }
    }
    Err(failed(operation, WireError::Interrupted))
}

/// True if the same transaction without records may be accepted: a refusal by the kernel, or a batch
/// that exceeds the buffer of a socket without the privilege for a larger one.
fn may_be_records(error: &WireError) -> bool {
    match error {
        WireError::Kernel { .. } => true,
        WireError::Io(error) => error.raw_os_error() == Some(EMSGSIZE),
        WireError::Interrupted | WireError::Malformed(_) => false,
    }
}

/// Takes over our table `name` if the table was protected by a socket that is closed now. Nothing in
/// the table changes.
pub(super) fn take_over(wire: &mut Wire, name: &str) -> Result<(), WireError> {
    let reading = read::head(wire, name)?;
    let left_behind = |table: &TableState| table.is_ours() && table.flags == NFT_TABLE_F_PERSIST;
    if !reading.table.as_ref().is_some_and(left_behind) {
        return Ok(());
    }
    let table = Attributes::new()
        .put_text(NFTA_TABLE_NAME, name)
        .put_be32(NFTA_TABLE_FLAGS, PROTECTED);
    let messages = [message(
        msg::NEWTABLE,
        0,
        table,
        format!("take over table inet {name}"),
    )];
    send(wire, &messages, reading.generation, Ending::Commit).map_err(|(_, error)| error)
}

/// Lets the kernel check the messages without a commit.
pub(super) fn check(wire: &mut Wire, messages: &[Message]) -> Result<(), (String, WireError)> {
    // 0: any generation.
    send(wire, messages, 0, Ending::CheckOnly)
}

fn refuse_foreign(operation: &str, table: &TableState) -> Result<(), FirewallError> {
    if table.is_ours() {
        return Ok(());
    }
    Err(FirewallError::Refused {
        backend: crate::firewall::BackendKind::Nftables,
        operation: operation.to_owned(),
        reason: format!("{}; the table was left unchanged", table.foreign()),
        errno: None,
    })
}

/// Refuses to change a table that belongs to another socket than that at `port`.
fn refuse_protected(operation: &str, table: &TableState, port: u32) -> Result<(), FirewallError> {
    match table.owner {
        Some(owner) if owner != port => Err(FirewallError::Protected {
            operation: operation.to_owned(),
            port: owner,
            unreleased: None,
        }),
        _ => Ok(()),
    }
}

fn send(
    wire: &mut Wire,
    messages: &[Message],
    generation: u32,
    ending: Ending,
) -> Result<(), (String, WireError)> {
    let whole = |error| ("the transaction as a whole".to_owned(), error);
    // res_id holds the subsystem in network order (nfnetlink.h).
    let mut edge = nfgen(NFPROTO_UNSPEC).to_vec();
    edge[2..].copy_from_slice(&msg::SUBSYSTEM.to_be_bytes());
    let mut head = edge.clone();
    if generation != 0 {
        head.extend(
            Attributes::new()
                .put_be32(NFNL_BATCH_GENID, generation)
                .into_bytes(),
        );
    }
    let mut bytes = Vec::new();
    let first = wire.next_sequence();
    push_message(&mut bytes, NFNL_MSG_BATCH_BEGIN, REQUEST, first, &head);
    let mut sequences = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let sequence = wire.next_sequence();
        // The kernel always reports refusals. The acknowledgement of the last message marks the
        // end of the reports; the end message has an acknowledgement only since Linux 6.10.
        let ack = if index + 1 == messages.len() { ACK } else { 0 };
        let flags = REQUEST | message.flags | ack;
        push_message(&mut bytes, message.kind, flags, sequence, &message.body);
        sequences.push(sequence);
    }
    let last = sequences.last().copied().unwrap_or(first);
    if ending == Ending::Commit {
        let sequence = wire.next_sequence();
        push_message(&mut bytes, NFNL_MSG_BATCH_END, REQUEST, sequence, &edge);
    }
    wire.send(&bytes).map_err(whole)?;
    let refusals = wire.settle(last, Some(first)).map_err(whole)?;
    let Some(refusal) = refusals.into_iter().next() else {
        return Ok(());
    };
    let refused = match &refusal {
        WireError::Kernel { sequence, .. } => sequences.iter().position(|s| s == sequence),
        _ => None,
    };
    match refused.and_then(|index| messages.get(index)) {
        Some(message) => Err((message.what.clone(), refusal)),
        None => Err(whole(refusal)),
    }
}
