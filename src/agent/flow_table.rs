//! Conntrack's table for the status: its use, and the ports of the busiest destinations.

use std::time::{Duration, Instant};

use crate::config::Role;
use crate::kernel::flows::{PortUse, busiest_ports, table_use};
use crate::status::snapshot::{ConntrackStatus, PortUseStatus};
use crate::words::protocol_name;

/// A listing of all translated flows is followed by a pause of this many times its duration, so
/// that the listings take at most one per cent of a processor: a million flows take about a second.
const PAUSE: u32 = 100;
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Pairs in the status.
const LISTED: usize = 5;
/// The kernel's choice for a translated source port from 1024 up: the ports from 1024
/// (nf_nat_core.c).
const PORTS: f64 = 64_512.0;

/// The meter's view of conntrack.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    pub role: Option<Role>,
    busiest: Vec<PortUse>,
    /// Not before this time.
    next_listing: Option<Instant>,
}

impl FlowTable {
    /// The use of the table; `None` before the first settings, and if the kernel refuses.
    pub fn read(&self) -> Option<ConntrackStatus> {
        self.role?;
        let table = match table_use() {
            Ok(table) => table,
            Err(error) => {
                tracing::debug!("cannot read the use of conntrack's table: {error}");
                return None;
            }
        };
        let share = |limit: u64| 100.0 * table.entries as f64 / limit as f64;
        Some(ConntrackStatus {
            entries: table.entries,
            limit: table.limit,
            percent: table.limit.filter(|limit| *limit > 0).map(share),
            insert_failed: table.insert_failed,
            dropped: table.dropped,
            early_dropped: table.early_dropped,
            busiest: self.busiest.iter().map(port_use).collect(),
        })
    }

    /// Lists the flows of a NAT again, if the last listing is old enough.
    pub fn list_ports(&mut self) {
        let began = Instant::now();
        let recent = self.next_listing.is_some_and(|at| began < at);
        if self.role != Some(Role::Nat) || recent {
            return;
        }
        match busiest_ports(LISTED) {
            Ok(busiest) => self.busiest = busiest,
            Err(error) => tracing::debug!("cannot list the translated flows: {error}"),
        }
        let pause = began.elapsed().saturating_mul(PAUSE).max(LEAST_PAUSE);
        self.next_listing = Some(Instant::now() + pause);
    }
}

fn port_use(found: &PortUse) -> PortUseStatus {
    PortUseStatus {
        address: found.address.to_string(),
        destination: found.destination.to_string(),
        protocol: protocol_name(found.protocol),
        ports: found.flows,
        percent: 100.0 * found.flows as f64 / PORTS,
    }
}
