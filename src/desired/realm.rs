//! The realm on the bypass routes: tells the paths apart if both have the same next hop.

use super::DesiredState;
use crate::ownership::Numbers;
use crate::types::{Family, Realm};

/// The realm: the number of our protocol, which marks our routes in `ip route` already.
pub fn of(numbers: &Numbers) -> Realm {
    Realm(u16::from(numbers.protocol.0))
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
