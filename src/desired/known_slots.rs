//! The gateways of pinned flows, as the kernel has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::types::{Family, PerFamily, Slot};

/// The slots that the kernel knows, and the slots with open flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownSlots {
    /// The gateway of each slot.
    pub gateways: PerFamily<BTreeMap<Slot, IpAddr>>,
    /// Slots whose mark open flows carry, or may carry.
    pub in_use: PerFamily<BTreeSet<Slot>>,
    /// The gateways of the egress table's present default.
    pub leading: PerFamily<BTreeSet<IpAddr>>,
}

impl KnownSlots {
    /// The gateways that left the settings, have open flows, and still get new ones until the egress
    /// table changes.
    pub(super) fn leaving(&self, family: Family, configured: &[IpAddr]) -> Vec<IpAddr> {
        let (in_use, leading) = (self.in_use.get(family), self.leading.get(family));
        let known = self.gateways.get(family).iter();
        let leaving = known.filter(|(slot, gateway)| {
            in_use.contains(slot) && leading.contains(gateway) && !configured.contains(gateway)
        });
        leaving.map(|(_, gateway)| *gateway).collect()
    }
}
