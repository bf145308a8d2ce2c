//! The path that the packets of an open flow take before a pass changes the routes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::Role;
use crate::desired::{EGRESS_OF_NAT, Paths};
use crate::facts::HostFacts;
use crate::judge::{Lookup, RouteDecision};
use crate::kernel::flows::{Outgoing, backfill_outgoing};
use crate::kernel::lookup::lookup;
use crate::kernel::netlink::NetlinkSocket;
use crate::objects::{BypassPath, Route, Via};
use crate::types::{Family, Mark, PerFamily, PinMarks, Slot, TableId};

/// Remembered destinations, so that the flows of one partner ask once.
const MOST_REMEMBERED: usize = 16_384;

/// The longest time for the look-ups. The egress waits for them.
const LONGEST: Duration = Duration::from_secs(5);

/// Asks the kernel for the path of each open flow.
pub(super) struct PresentPaths {
    marks: PinMarks,
    bypass: PerFamily<Vec<Via>>,
    slots: PerFamily<BTreeMap<Slot, IpAddr>>,
    /// The path of the main table's default.
    by_default: PerFamily<Option<Mark>>,
    /// Destinations of neither path.
    private: Vec<IpNet>,
    remembered: HashMap<IpAddr, Option<Mark>>,
}

impl PresentPaths {
    pub(super) fn new(
        role: Role,
        marks: PinMarks,
        (paths, facts): (&PerFamily<Paths>, &HostFacts),
        private: Vec<IpNet>,
    ) -> Self {
        let hops = |path: Option<&BypassPath>| -> Option<Vec<_>> {
            path.map(|path| path.vias().map(|via| via.hop()).collect())
        };
        let by_default = PerFamily::from_fn(|family| {
            if role == Role::Nat {
                return Some(marks.slot(EGRESS_OF_NAT));
            }
            let default = hops(facts.default_path(family, None).as_ref());
            let bypass = hops(paths.get(family).bypass.as_ref());
            (default.is_some() && default == bypass).then(|| marks.bypass_flow())
        });
        let bypass = PerFamily::from_fn(|family| {
            let path = paths.get(family).bypass.iter();
            path.flat_map(|path| path.vias()).collect()
        });
        let slots = PerFamily::from_fn(|family| {
            let slots = &paths.get(family).slots;
            slots.clone().unwrap_or_default()
        });
        PresentPaths {
            marks,
            bypass,
            slots,
            by_default,
            private,
            remembered: HashMap::new(),
        }
    }

    /// Marks the open flows; returns a note about flows without a mark.
    pub(super) fn pin(&mut self, own: &[IpAddr]) -> Option<String> {
        let mut socket = match NetlinkSocket::open() {
            Ok(socket) => socket,
            Err(error) => return Some(unpinned(&error.to_string())),
        };
        let marks = self.marks;
        let deadline = Instant::now() + LONGEST;
        let mut late = false;
        let mut path_of = |destination| {
            if let Some(known) = self.remembered.get(&destination) {
                return *known;
            }
            late |= Instant::now() > deadline;
            if late {
                return None;
            }
            let mark = self.ask(&mut socket, destination);
            if self.remembered.len() >= MOST_REMEMBERED {
                self.remembered.clear();
            }
            self.remembered.insert(destination, mark);
            mark
        };
        let outgoing = Outgoing {
            marks,
            own,
            path_of: &mut path_of,
        };
        match backfill_outgoing(outgoing) {
            Err(error) => Some(unpinned(&error.to_string())),
            Ok(_) if late => Some(unpinned(&format!(
                "the look-ups of their paths took more than {} seconds",
                LONGEST.as_secs()
            ))),
            Ok(_) => None,
        }
    }

    fn ask(&self, socket: &mut NetlinkSocket, destination: IpAddr) -> Option<Mark> {
        if self.private.iter().any(|net| net.contains(&destination)) {
            return None;
        }
        match lookup(socket, &Lookup::from_socket(destination)).ok()? {
            RouteDecision::Route(route) => self.mark_of(&route),
            RouteDecision::Errno(_) => None,
        }
    }

    /// The mark of the path that a route belongs to.
    fn mark_of(&self, route: &Route) -> Option<Mark> {
        let family = route.key.family();
        if route.key.table == TableId::MAIN {
            // Other routes are the administrator's own.
            let is_default = Family::is_default(&route.key.dst);
            return self.by_default.get(family).filter(|_| is_default);
        }
        let legs = route.target.legs();
        let by_bypass = |via: &Via| {
            let mut bypass = self.bypass.get(family).iter();
            bypass.any(|known| known.hop() == via.hop())
        };
        if !legs.is_empty() && legs.iter().all(|leg| by_bypass(&leg.via)) {
            return Some(self.marks.bypass_flow());
        }
        // A route with several gateways doesn't tell the gateway of a flow.
        let [only] = legs.as_slice() else {
            return None;
        };
        let mut slots = self.slots.get(family).iter();
        let (slot, _) = slots.find(|(_, gateway)| only.via.gateway == Some(**gateway))?;
        Some(self.marks.slot(*slot))
    }
}

fn unpinned(why: &str) -> String {
    format!("flows that were open before may change their path: {why}")
}
