//! Realms: IPv4 routes and rules with a realm show in the firewall which path a packet took.

use super::DesiredState;
use crate::ownership::Numbers;
use crate::types::{Family, Realm, Slot};

/// The realm of the bypass path: the number of our protocol, which marks our routes in `ip route`
/// already.
pub fn of(numbers: &Numbers) -> Realm {
    Realm(u16::from(numbers.protocol.0))
}

/// The realms of the paths: the number of our protocol and those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Realms(Realm);

impl Realms {
    /// The realms under these numbers.
    pub fn of(numbers: &Numbers) -> Realms {
        Realms(of(numbers))
    }

    /// The bypass path.
    pub fn bypass(self) -> Realm {
        self.0
    }

    /// The egress path, through a gateway without a slot.
    pub fn egress(self) -> Realm {
        self.slot(0)
    }

    /// The egress path through the gateway of a slot.
    pub fn slot(self, slot: Slot) -> Realm {
        let after = u16::try_from(slot).unwrap_or(u16::MAX);
        Realm(self.0.0.saturating_add(1).saturating_add(after))
    }
}

/// The reason for a realm where both paths have the same next hop.
pub fn same_look(device: &str) -> String {
    format!("both paths leave by {device} and look the same to the firewall")
}

/// Sets the realm on the bypass routes of a family, with a note. Only IPv4 has realms.
pub fn on_bypass_routes(
    numbers: &Numbers,
    family: Family,
    why: &str,
    state: &mut DesiredState,
) -> Realm {
    let realm = of(numbers);
    for route in &mut state.routes {
        let ours = route.key.family() == family && route.key.table == numbers.bypass_table;
        if ours && route.target.forwards() {
            route.realm = realm;
        }
    }
    state.means.push(format!(
        "{family}: {why}; realm {realm} on the bypass routes tells them apart"
    ));
    realm
}
