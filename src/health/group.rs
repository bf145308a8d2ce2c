//! The lists of servers, and the ways that each of them judges.

use super::WayId;
use crate::types::Family;

/// A list of servers, and the ways that are probed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// `[probe] targets`, through the gateways of the family, or through the uplink of a NAT.
    Egress(Family),
    /// `[probe] bypass_targets`, past the NAT; gateways serve as the comparison.
    Bypass(Family),
}

impl Group {
    /// The group whose rounds judge the way.
    pub fn of(way: WayId) -> Group {
        match way {
            WayId::Bypass(family) => Group::Bypass(family),
            WayId::Gateway(address) => Group::Egress(Family::of(address)),
            WayId::Uplink(family) => Group::Egress(family),
        }
    }

    /// The family of the servers.
    pub fn family(self) -> Family {
        let (Group::Egress(family) | Group::Bypass(family)) = self;
        family
    }
}
