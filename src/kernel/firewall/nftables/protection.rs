//! Protects our tables from `nft flush ruleset` and other changes by other programs.
//!
//! A table with the flags `owner` and `persist` belongs to the netlink socket that has created it.
//! The kernel skips the table in a flush through another socket, and refuses changes (`EPERM`).
//! When the socket closes, also with a killed process, the table stays without the flag `owner`:
//! any process may then delete or replace it. `owner` needs Linux 5.12, `persist` 6.9.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::contact::{contact, open};
use super::message::{GUARD_TABLE, PROTECTED, TABLE, message};
use super::table::TableState;
use super::transaction;
use super::uapi::*;
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::{Attributes, CREATE, Wire, WireError};

/// The table of the question whether the kernel knows the flags. Never committed.
const PROBE: &str = "trailblazer-protection";

/// The kernel's answers to unknown flags.
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// Asks the owner of a table to release the table; an error is the reason of a refusal.
type Request = dyn Fn() -> Result<(), String> + Send + Sync;

/// The socket that has our tables for itself, shared by clones. Without a claim each transaction has
/// a socket of its own, and no table is protected.
#[derive(Debug, Clone, Default)]
pub struct Protection(Arc<State>);

#[derive(Default)]
struct State {
    claimed: AtomicBool,
    /// Tables should have no flags: nft before 1.1 cannot read its own text of a table that is only
    /// `persist`, and would refuse a saved ruleset with it.
    plain: AtomicBool,
    socket: Mutex<Option<Wire>>,
    /// The port of `socket`; 0 without one.
    port: AtomicU32,
    /// The reason of a kernel without the flags.
    unknown: Mutex<Option<String>>,
    /// The way of a command to the agent.
    request: Option<Box<Request>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("claimed", &self.claimed)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // An optional value is consistent wherever its holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Protection {
    /// For a command beside an agent: never claims a table, and asks with `request` for a table of
    /// another process.
    pub fn asking(request: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Protection(Arc::new(State {
            request: Some(Box::new(request)),
            ..State::default()
        }))
    }

    /// Protects the tables of later transactions, if the kernel can, and those that a process has
    /// left behind. A plain table differs from its text until a transaction replaces the table.
    pub fn claim(&self) {
        self.0.plain.store(false, Ordering::SeqCst);
        self.0.claimed.store(true, Ordering::SeqCst);
        let mut socket = locked(&self.0.socket);
        if socket.is_some() || self.unknown_to_kernel().is_some() {
            return;
        }
        match knows_flags() {
            Ok(mut wire) => {
                for name in [TABLE, GUARD_TABLE] {
                    if let Err(error) = transaction::take_over(&mut wire, name) {
                        // The plan replaces the table.
                        tracing::debug!("table inet {name} is not taken over: {error}");
                    }
                }
                self.0.port.store(wire.port(), Ordering::SeqCst);
                *socket = Some(wire);
            }
            Err(error) if matches!(error.errno(), Some(EINVAL | EOPNOTSUPP)) => {
                *locked(&self.0.unknown) = Some(error.to_string());
            }
            // Without nf_tables or without the privilege, the pass has an error of its own.
            Err(error) => tracing::debug!("no socket to protect the firewall with: {error}"),
        }
    }

    /// Opens the tables to other programs, and tables that a process has protected differ from
    /// their text from now on.
    pub fn give_up(&self) {
        self.0.plain.store(true, Ordering::SeqCst);
        self.release();
    }

    /// Opens the tables to other programs, from now or from the end of a running transaction.
    pub fn release(&self) {
        self.0.claimed.store(false, Ordering::SeqCst);
        self.close_if_released();
    }

    /// The kernel's reason for not protecting claimed tables.
    pub fn unknown_to_kernel(&self) -> Option<String> {
        locked(&self.0.unknown).clone()
    }

    fn is_claimed(&self) -> bool {
        self.0.claimed.load(Ordering::SeqCst)
    }

    /// The port of the socket that protects tables now.
    fn port(&self) -> Option<u32> {
        let port = self.0.port.load(Ordering::SeqCst);
        (port != 0 && self.is_claimed()).then_some(port)
    }

    fn close(&self, socket: &mut Option<Wire>) {
        *socket = None;
        self.0.port.store(0, Ordering::SeqCst);
    }

    fn close_if_released(&self) {
        // A running transaction has the lock, and calls this function at its end.
        if !self.is_claimed()
            && let Ok(mut socket) = self.0.socket.try_lock()
        {
            self.close(&mut socket);
        }
    }

    /// The flags of a table that the next transaction creates.
    pub(super) fn flags(&self) -> u32 {
        self.port().map_or(0, |_| PROTECTED)
    }

    /// The flags of a table as far as they count. A table of another socket is like a plain table:
    /// for a process that protects tables both differ from the text, for others neither does.
    pub(super) fn flags_of(&self, table: &TableState) -> u32 {
        let ours = table.owner.is_some() && table.owner == self.port();
        let left_behind = table.owner.is_none() && self.0.plain.load(Ordering::SeqCst);
        if left_behind || ours && table.flags & PROTECTED == PROTECTED {
            table.flags
        } else {
            table.flags & !PROTECTED
        }
    }

    /// Runs a transaction through the socket that protects the tables, else through a new one. The
    /// transaction receives the flags of a table to create.
    ///
    /// # Errors
    /// Those of the transaction. A table of another process is asked for once.
    pub(super) fn transact(
        &self,
        operation: &str,
        transaction: &dyn Fn(&mut Wire, u32) -> Result<(), FirewallError>,
    ) -> Result<(), FirewallError> {
        let mut socket = locked(&self.0.socket);
        if self.is_claimed()
            && let Some(wire) = socket.as_mut()
        {
            let result = transaction(wire, PROTECTED);
            if matches!(result, Err(FirewallError::Io { .. })) {
                // A late answer must not count as that to the next question.
                self.close(&mut socket);
            }
            drop(socket);
            self.close_if_released();
            return result;
        }
        drop(socket);
        let mut wire = open(operation)?;
        let mut result = transaction(&mut wire, 0);
        if let Some(request) = &self.0.request
            && let Err(FirewallError::Protected { unreleased, .. }) = &mut result
        {
            match request() {
                Ok(()) => result = transaction(&mut wire, 0),
                Err(why) => *unreleased = Some(why),
            }
        }
        result
    }
}

/// A socket, if the kernel accepts the flags. The kernel checks the table without a commit.
fn knows_flags() -> Result<Wire, WireError> {
    let mut wire = contact().map_err(|error| match error {
        // A kernel without nf_tables knows no flags either, which is no matter of the flags.
        WireError::Kernel { .. } => WireError::Malformed("no nf_tables"),
        other => other,
    })?;
    let table = Attributes::new()
        .put_text(NFTA_TABLE_NAME, PROBE)
        .put_be32(NFTA_TABLE_FLAGS, PROTECTED);
    let what = format!("add table inet {PROBE}");
    let messages = [message(msg::NEWTABLE, CREATE, table, what)];
    transaction::check(&mut wire, &messages).map_err(|(_, error)| error)?;
    Ok(wire)
}
