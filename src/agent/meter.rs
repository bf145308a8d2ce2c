//! Bytes by path, as counters that never decrease.
//!
//! The counters are part of our firewall rules in the kernel, and a replacement of the rules keeps
//! the counts. If another program removes our rules, the counters start again from zero: the meter
//! adds the last reading to later readings, and stores the sum in the state directory.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::flow_table::FlowTable;
use super::pinned::PinnedFlows;
use crate::config::Role;
use crate::firewall::{BackendKind, DroppedTraffic, PathTraffic, Traffic};
use crate::judge::Pins;
use crate::kernel::firewall::{self, FirewallBackend, FirewallError};
use crate::kernel::neighbour::{self, Neighbour};
use crate::kernel::netlink::NetlinkSocket;
use crate::state::StateFile;
use crate::state::store::Store;
use crate::status::snapshot::{ConntrackStatus, PinnedStatus};
use crate::types::{Family, PerFamily};

/// The least pause between two readings that each start processes; a scrape in between gets the
/// last reading.
const COSTLY_EVERY: Duration = Duration::from_secs(10);

/// Longest wait of the agent's loop for a reading. nftables needs under a millisecond, iptables
/// some ten milliseconds; an iptables that hangs must not delay `/healthz` or SIGTERM.
const LOOP_WAITS: Duration = Duration::from_millis(250);

enum MeterOrder {
    Use(BackendKind, Role),
    Pins(Option<Box<Pins>>),
    Read,
}

/// One reading of all counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub traffic: Option<PathTraffic>,
    pub conntrack: Option<ConntrackStatus>,
    pub pinned: Option<PinnedStatus>,
    /// The pinned flows of each gateway with at least one; `None` while unknown.
    pub on_gateways: Option<BTreeMap<IpAddr, u64>>,
    pub neighbours: Vec<Neighbour>,
}

/// Waits for an order, and counts pinned flows meanwhile. `None` at the end of the meter.
fn next_order(orders: &Receiver<MeterOrder>, pinned: &mut PinnedFlows) -> Option<MeterOrder> {
    loop {
        let Some(due) = pinned.due() else {
            return orders.recv().ok();
        };
        let wait = due.saturating_duration_since(Instant::now());
        match orders.recv_timeout(wait) {
            Ok(order) => return Some(order),
            Err(RecvTimeoutError::Timeout) => pinned.count_now(),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// The kernel's neighbours; none if the kernel refuses.
fn neighbours() -> Vec<Neighbour> {
    let read = NetlinkSocket::open().and_then(|mut socket| neighbour::dump(&mut socket));
    read.unwrap_or_else(|error| {
        tracing::debug!("{error}");
        Vec::new()
    })
}

/// The loop's side of the meter: the thread reads counters, starts processes and writes the file.
pub(super) struct Meter {
    orders: Sender<MeterOrder>,
    readings: Receiver<Reading>,
    /// True between [`MeterOrder::Read`] and the reading.
    asked: bool,
    last: Reading,
}

impl Meter {
    /// Starts the thread, which ends when the meter is dropped.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(store: Store) -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel();
        let (done, readings) = mpsc::channel();
        std::thread::Builder::new()
            .name("meter".to_owned())
            .spawn(move || {
                let mut counters = Counters::new(store);
                let mut flows = FlowTable::default();
                let mut pinned = PinnedFlows::default();
                while let Some(order) = next_order(&waiting, &mut pinned) {
                    match order {
                        MeterOrder::Use(kind, role) => {
                            counters.use_backend(kind);
                            flows.role = Some(role);
                        }
                        MeterOrder::Pins(pins) => pinned.use_pins(pins.map(|pins| *pins)),
                        MeterOrder::Read => {
                            pinned.count_first();
                            let reading = Reading {
                                traffic: counters.read(),
                                conntrack: flows.read(),
                                pinned: pinned.status(),
                                on_gateways: pinned.on_gateways(),
                                neighbours: neighbours(),
                            };
                            if done.send(reading).is_err() {
                                return;
                            }
                            // Listings take longer: the next reading has their results.
                            flows.list_ports();
                            pinned.count();
                        }
                    }
                }
            })?;
        Ok(Meter {
            orders,
            readings,
            asked: false,
            last: Reading::default(),
        })
    }

    /// Selects the firewall in use.
    pub fn use_backend(&mut self, kind: BackendKind, role: Role) {
        // The thread ends only with the meter.
        let _ = self.orders.send(MeterOrder::Use(kind, role));
    }

    /// Names the pins in force after a pass; `None` without any.
    pub fn use_pins(&mut self, pins: Option<Pins>) {
        let _ = self.orders.send(MeterOrder::Pins(pins.map(Box::new)));
    }

    /// The counts so far; none before the first reading. A reading that takes longer than
    /// [`LOOP_WAITS`] is delivered by a later call.
    pub fn read(&mut self) -> Reading {
        let wait = if self.asked {
            Duration::ZERO
        } else {
            LOOP_WAITS
        };
        if !self.asked {
            self.asked = self.orders.send(MeterOrder::Read).is_ok();
        }
        match self.readings.recv_timeout(wait) {
            Ok(reading) => {
                self.asked = false;
                self.last = reading;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.last.clone()
    }
}

/// The thread's side: the counters of the firewall in use.
struct Counters {
    store: Store,
    backend: Option<Box<dyn FirewallBackend>>,
    lost: PathTraffic,
    last: Option<PathTraffic>,
    read_at: Option<Instant>,
}

impl Counters {
    /// Continues the counts of the state directory.
    fn new(store: Store) -> Self {
        Counters {
            // The counts are for people only, so that a damaged file does no other harm.
            lost: store.read_json(StateFile::Traffic).unwrap_or_default(),
            store,
            backend: None,
            last: None,
            read_at: None,
        }
    }

    fn use_backend(&mut self, kind: BackendKind) {
        if self.backend.as_ref().map(|backend| backend.kind()) != Some(kind) {
            self.backend = Some(firewall::backend(kind));
            self.read_at = None;
        }
    }

    fn read(&mut self) -> Option<PathTraffic> {
        let backend = self.backend.as_mut()?;
        let recent = self.read_at.is_some_and(|at| at.elapsed() < COSTLY_EVERY);
        if backend.kind().counters_are_cheap() || !recent {
            self.read_at = Some(Instant::now());
            match backend.traffic() {
                Ok(now) => self.take(now),
                // An unreadable counter is not zero: the last reading stays valid.
                Err(error) => self.unreadable(&error),
            }
        }
        self.last.map(|last| sum(&self.lost, &last))
    }

    fn unreadable(&self, error: &FirewallError) {
        tracing::debug!("cannot read the counters by path: {error}");
    }

    fn take(&mut self, now: Option<PathTraffic>) {
        let now = now.unwrap_or_default();
        if let Some(last) = self.last
            && shrank(&last, &now)
        {
            self.lost = sum(&self.lost, &last);
            if let Err(error) = self.store.write_json(StateFile::Traffic, &self.lost) {
                tracing::warn!("cannot store the byte counters: {error}");
            }
        }
        self.last = Some(now);
    }
}

fn each(
    a: &PathTraffic,
    b: &PathTraffic,
    value: impl Fn(&Traffic, &Traffic) -> Traffic,
) -> PathTraffic {
    let both = |a: &PerFamily<Traffic>, b: &PerFamily<Traffic>| {
        PerFamily::from_fn(|family| value(a.get(family), b.get(family)))
    };
    let (dropped, more) = (&a.dropped, &b.dropped);
    PathTraffic {
        bypass: both(&a.bypass, &b.bypass),
        egress: both(&a.egress, &b.egress),
        dropped: DroppedTraffic {
            outside: both(&dropped.outside, &more.outside),
            sources: both(&dropped.sources, &more.sources),
            closed: both(&dropped.closed, &more.closed),
        },
    }
}

fn sum(a: &PathTraffic, b: &PathTraffic) -> PathTraffic {
    each(a, b, |a, b| Traffic {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    })
}

/// True if a counter decreased: all counters started again.
fn shrank(last: &PathTraffic, now: &PathTraffic) -> bool {
    let mut families = Family::ALL.into_iter();
    now.dropped.restarted_since(&last.dropped)
        || families.any(|family| {
            now.bypass.get(family).packets < last.bypass.get(family).packets
                || now.egress.get(family).packets < last.egress.get(family).packets
        })
}

/// The share of the bypass in all counted bytes; `None` without bytes.
pub(super) fn bypass_percent(traffic: &PathTraffic) -> Option<f64> {
    let bytes = |path: &PerFamily<Traffic>| -> u64 {
        Family::ALL.into_iter().map(|it| path.get(it).bytes).sum()
    };
    let (bypass, egress) = (bytes(&traffic.bypass), bytes(&traffic.egress));
    let all = bypass.saturating_add(egress);
    (all > 0).then(|| 100.0 * bypass as f64 / all as f64)
}

/// The price of the bypass traffic through a NAT gateway, in dollars. AWS bills 10^9 bytes as a GB.
pub(super) fn saved(traffic: &PathTraffic, price_per_gb: f64) -> f64 {
    let bytes: u64 = Family::ALL
        .into_iter()
        .map(|family| traffic.bypass.get(family).bytes)
        .sum();
    bytes as f64 / 1e9 * price_per_gb
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(packets: u64, bytes: u64) -> PathTraffic {
        let of = |packets, bytes| PerFamily::from_fn(|_| Traffic { packets, bytes });
        PathTraffic {
            bypass: of(packets, bytes),
            egress: of(1, 100),
            ..PathTraffic::default()
        }
    }

    #[test]
    fn counts_of_lost_counters_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut meter = Counters::new(Store::open(dir.path()));
        meter.take(Some(traffic(10, 1000)));
        // Another program flushed our table, and a pass restored the table.
        meter.take(None);
        meter.take(Some(traffic(3, 300)));
        assert_eq!(
            sum(&meter.lost, &meter.last.unwrap()).bypass.ipv4.bytes,
            1300
        );

        let mut next = Counters::new(Store::open(dir.path()));
        next.take(Some(traffic(4, 400)));
        let total = sum(&next.lost, &next.last.unwrap());
        assert_eq!(
            (total.bypass.ipv6.packets, total.egress.ipv4.bytes),
            (14, 200)
        );
    }

    #[test]
    fn share_of_the_bypass_counts_both_families() {
        assert_eq!(bypass_percent(&PathTraffic::default()), None);
        // 2 x 300 bytes of bypass, 2 x 100 of egress.
        assert_eq!(bypass_percent(&traffic(1, 300)), Some(75.0));
    }

    #[test]
    fn saved_dollars_are_the_price_of_both_families_gigabytes() {
        // Both families: 2 x 50 GB at 4.5 cents.
        let dollars = saved(&traffic(1, 50_000_000_000), 0.045);
        assert!((dollars - 4.5).abs() < 1e-9, "{dollars}");
    }
}
