//! The counters of ways, read again and again.

use super::contact::{failed, open};
use super::message::{GUARD_TABLE, TABLE};
use super::{counters, read};
use crate::firewall::WaysTraffic;
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::Wire;

/// Reads the counters of ways, through one socket in the network namespace of the thread that reads first.
#[derive(Debug, Default)]
pub struct WaysCounters {
    /// `None` before the first reading, and after an error: a late answer could be taken for that to
    /// the next question.
    wire: Option<Wire>,
    /// True if the table beside iptables had the counters of the last reading.
    beside_iptables: bool,
}

impl WaysCounters {
    /// The traffic of pinned flows by way, from one listing of the counters. Empty where no rule of ours
    /// counts ways.
    ///
    /// # Errors
    /// The counters remain unknown, for example while a transaction is under way.
    pub fn read(&mut self) -> Result<WaysTraffic, FirewallError> {
        let operation = "read the counters of gateways";
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => open(operation)?,
        };
        let mut tables = [TABLE, GUARD_TABLE];
        if self.beside_iptables {
            tables.reverse();
        }
        let mut found = WaysTraffic::new();
        for table in tables {
            let counters = read::read_counters(&mut wire, table);
            found = counters::ways(&counters.map_err(|error| failed(operation, error))?);
            if !found.is_empty() {
                self.beside_iptables = table == GUARD_TABLE;
                break;
            }
        }
        self.wire = Some(wire);
        Ok(found)
    }
}
