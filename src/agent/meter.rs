//! Bytes by path, as they grow and never shrink.
//!
//! The counters live in the kernel, with our rules, and go on when those are replaced. Only where
//! somebody else removes our rules do they begin again from nothing: what was read before is then
//! put under what is read after, and remembered in the state dir.

use std::time::{Duration, Instant};

use crate::firewall::{BackendKind, PathTraffic, Traffic};
use crate::kernel::firewall::{self, FirewallBackend, FirewallError};
use crate::state::store::Store;
use crate::types::{Family, PerFamily};

/// The least pause between two readings that each start processes; a scrape in between gets the
/// last reading.
const COSTLY_EVERY: Duration = Duration::from_secs(10);
/// What counters that were lost had counted.
const FILE: &str = "traffic.json";

/// See the module.
pub(super) struct Meter {
    store: Store,
    backend: Option<Box<dyn FirewallBackend>>,
    /// What counters that were lost had counted.
    lost: PathTraffic,
    last: Option<PathTraffic>,
    read_at: Option<Instant>,
}

impl Meter {
    /// Goes on from what the state dir remembers.
    pub fn new(store: Store) -> Self {
        Meter {
            // Figures for people: a damaged file costs them, and nothing else.
            lost: store.read_json(FILE).unwrap_or_default(),
            store,
            backend: None,
            last: None,
            read_at: None,
        }
    }

    /// The firewall in use.
    pub fn use_backend(&mut self, kind: BackendKind) {
        if self.backend.as_ref().map(|backend| backend.kind()) != Some(kind) {
            self.backend = Some(firewall::backend(kind));
            self.read_at = None;
        }
    }

    /// What was counted so far; `None` while nothing is.
    pub fn read(&mut self) -> Option<PathTraffic> {
        let backend = self.backend.as_mut()?;
        let recent = self.read_at.is_some_and(|at| at.elapsed() < COSTLY_EVERY);
        if backend.kind().counters_are_cheap() || !recent {
            self.read_at = Some(Instant::now());
            match backend.traffic() {
                Ok(now) => self.take(now),
                // Unreadable is not zero: the last reading stands.
                Err(error) => self.unreadable(&error),
            }
        }
        self.last.map(|last| sum(&self.lost, &last))
    }

    fn unreadable(&self, error: &FirewallError) {
        tracing::debug!("the counters by path: {error}");
    }

    fn take(&mut self, now: Option<PathTraffic>) {
        let now = now.unwrap_or_default();
        if let Some(last) = self.last
            && shrank(&last, &now)
        {
            self.lost = sum(&self.lost, &last);
            if let Err(error) = self.store.write_json(FILE, &self.lost) {
                tracing::warn!("the bytes by path counted so far are not on disk: {error}");
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
    PathTraffic {
        bypass: both(&a.bypass, &b.bypass),
        egress: both(&a.egress, &b.egress),
    }
}

fn sum(a: &PathTraffic, b: &PathTraffic) -> PathTraffic {
    each(a, b, |a, b| Traffic {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    })
}

/// Whether any counter is below what it was: then all began anew.
fn shrank(last: &PathTraffic, now: &PathTraffic) -> bool {
    Family::ALL.into_iter().any(|family| {
        now.bypass.get(family).packets < last.bypass.get(family).packets
            || now.egress.get(family).packets < last.egress.get(family).packets
    })
}

/// What the bypass traffic would have cost through the NAT, in dollars. A GB is 10^9 bytes, as
/// AWS bills it.
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
        }
    }

    #[test]
    fn what_counters_lost_is_kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut meter = Meter::new(Store::open(dir.path()));
        meter.take(Some(traffic(10, 1000)));
        // Our table was flushed and came back.
        meter.take(None);
        meter.take(Some(traffic(3, 300)));
        assert_eq!(
            sum(&meter.lost, &meter.last.unwrap()).bypass.ipv4.bytes,
            1300
        );

        let mut next = Meter::new(Store::open(dir.path()));
        next.take(Some(traffic(4, 400)));
        let total = sum(&next.lost, &next.last.unwrap());
        assert_eq!(
            (total.bypass.ipv6.packets, total.egress.ipv4.bytes),
            (14, 200)
        );
    }

    #[test]
    fn money_is_saved_by_the_gb() {
        // Both families: 2 x 50 GB at 4.5 cents.
        let dollars = saved(&traffic(1, 50_000_000_000), 0.045);
        assert!((dollars - 4.5).abs() < 1e-9, "{dollars}");
    }
}
