//! The realm on the bypass routes: what tells the paths apart where both leave alike.

use super::DesiredState;
use crate::objects::RouteTarget;
use crate::ownership::Numbers;
use crate::types::{Family, Realm};

/// The realm: our protocol's number, by which `ip route` shows what is ours anyway.
pub fn of(numbers: &Numbers) -> Realm {
    Realm(u16::from(numbers.protocol.0))
}

/// Puts it on the bypass routes of a family, which has realms (IPv4), and says so.
pub fn on_bypass_routes(
    numbers: &Numbers,
    family: Family,
    device: &str,
    state: &mut DesiredState,
) -> Realm {
    let realm = of(numbers);
    for route in &mut state.routes {
        let ours = route.key.family() == family && route.key.table == numbers.bypass_table;
        if ours && matches!(route.target, RouteTarget::Via(_)) {
            route.realm = realm;
        }
    }
    state.notes.push(format!(
        "{family}: both paths leave by {device} and look the same to the firewall; realm {realm} on the bypass routes tells them apart"
    ));
    realm
}
