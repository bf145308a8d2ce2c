//! Routes of the main table, and the choice of the default among them.
//!
//! A default must hold for every packet: a route with a source prefix or a type of service is none.
//! The order is the kernel's: the longest prefix (`2000::/3` before `::/0`), then the lowest metric,
//! then the preference of the router. A route without a live next hop comes after every route with
//! one. Two halves (`0.0.0.0/1` and `128.0.0.0/1`) count only without any other default, since the
//! VPN clients that install them leave the real default in place for the traffic outside the VPN.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::objects::{BypassPath, Leg, SharedOptions, Via};
use crate::types::{Family, IfIndex, Metric, Protocol};

/// A next hop of a route of the main table. A multipath route has one entry for each next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainRoute {
    pub dst: IpNet,
    pub metric: Metric,
    /// `None` for connected networks and device routes.
    pub gateway: Option<IpAddr>,
    /// `None` for routes without a device (`unreachable`, `blackhole`).
    pub device: Option<IfIndex>,
    /// The gateway counts as reachable although no connected network holds it (`RTNH_F_ONLINK`).
    pub onlink: bool,
    pub protocol: Protocol,
    /// False for `unreachable` and its like.
    pub unicast: bool,
    /// The type of a route that refuses packets: `blackhole`, `unreachable`, `prohibit`.
    pub rejects: Option<&'static str>,
    /// The route holds for some packets only (`from PREFIX`, `tos`).
    pub selective: bool,
    /// The preference of an IPv6 router.
    pub preference: Preference,
    pub state: HopState,
    pub weight: u16,
    /// The entry before this one belongs to the same multipath route.
    pub sibling: bool,
    /// The route goes through a nexthop object: its next hops change without a notification about
    /// the route.
    pub through_object: bool,
    /// Of default routes only: no other route is copied.
    pub options: SharedOptions,
}

impl MainRoute {
    /// A unicast route to the destination, without next hop and with the usual attributes.
    pub fn unicast(dst: IpNet) -> MainRoute {
        MainRoute {
            dst,
            metric: Metric(0),
            gateway: None,
            device: None,
            onlink: false,
            protocol: Protocol(0),
            unicast: true,
            rejects: None,
            selective: false,
            preference: Preference::Medium,
            state: HopState::Live,
            weight: 1,
            sibling: false,
            through_object: false,
            options: None,
        }
    }

    /// The next hop, if the route has one.
    pub fn via(&self) -> Option<Via> {
        let device = self.device.filter(|_| self.unicast)?;
        Some(Via {
            gateway: self.gateway,
            device,
            onlink: self.onlink,
        })
    }
}

/// The preference of an IPv6 router (RFC 4191): with equal metrics the kernel uses the router with
/// the highest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    Low,
    Medium,
    High,
}

/// The kernel's view of a next hop, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HopState {
    Live,
    /// The link has no carrier (`RTNH_F_LINKDOWN`): the kernel still sends packets there, and they
    /// are lost.
    LinkDown,
    /// The kernel does not use the hop (`RTNH_F_DEAD`).
    Dead,
}

/// The default routes of a family, best first; each with its next hops.
pub(super) fn defaults(routes: &[MainRoute], family: Family) -> Vec<&[MainRoute]> {
    let found: Vec<&[MainRoute]> = routes
        .chunk_by(|_, next| next.sibling)
        .filter(|hops| {
            hops.first().is_some_and(|route| {
                route.unicast
                    && !route.selective
                    && Family::of_net(&route.dst) == family
                    && Family::is_default(&route.dst)
            })
        })
        .collect();
    let (mut whole, mut halves): (Vec<&[MainRoute]>, Vec<&[MainRoute]>) =
        found.into_iter().partition(|hops| covers_everything(hops));
    whole.sort_by_key(|hops| rank(hops));
    if !whole.is_empty() {
        return whole;
    }
    halves.sort_by_key(|hops| rank(hops));
    let half = |upper: bool| {
        let dst = |hops: &&&[MainRoute]| hops.first().is_some_and(|r| is_half(&r.dst, upper));
        halves.iter().find(dst).copied()
    };
    match (half(false), half(true)) {
        (Some(lower), Some(upper)) if live_legs(lower, None) == live_legs(upper, None) => {
            vec![lower]
        }
        _ => Vec::new(),
    }
}

/// The default that the kernel uses: the best one whatever the carrier of its links, since the kernel
/// goes on to send packets to a link without a carrier.
pub(super) fn used_default(routes: &[MainRoute], family: Family) -> Option<&MainRoute> {
    let usable = |hops: &&[MainRoute]| hops.iter().any(|hop| hop.state != HopState::Dead);
    let found = defaults(routes, family).into_iter().filter(usable);
    let used = found.min_by_key(|hops| {
        let (_, length, metric, preference) = rank(hops);
        (length, metric, preference)
    });
    used?.iter().find(|hop| hop.state != HopState::Dead)
}

/// `0.0.0.0/0`, `::/0`, and `2000::/3`, which covers the whole public space.
fn covers_everything(hops: &[MainRoute]) -> bool {
    hops.first().is_some_and(|route| match route.dst {
        IpNet::V6(v6) if v6.prefix_len() == 3 => v6.network().segments()[0] == 0x2000,
        dst => dst.prefix_len() == 0,
    })
}

/// The lower (`0.0.0.0/1`) or the upper (`128.0.0.0/1`) half of a family.
fn is_half(dst: &IpNet, upper: bool) -> bool {
    let is_upper = match dst {
        IpNet::V4(v4) => v4.network().octets()[0] >= 0x80,
        IpNet::V6(v6) => v6.network().octets()[0] >= 0x80,
    };
    dst.prefix_len() == 1 && is_upper == upper
}

fn rank(hops: &[MainRoute]) -> (HopState, Reverse<u8>, Metric, Reverse<Preference>) {
    let state = hops.iter().map(|hop| hop.state).min();
    let first = hops.first();
    (
        state.unwrap_or(HopState::Dead),
        Reverse(first.map_or(0, |route| route.dst.prefix_len())),
        first.map_or(Metric(u32::MAX), |route| route.metric),
        Reverse(
            hops.iter()
                .map(|hop| hop.preference)
                .max()
                .unwrap_or(Preference::Low),
        ),
    )
}

/// The legs that the kernel uses: those in the best state, with the best preference.
fn live_legs(hops: &[MainRoute], device: Option<IfIndex>) -> Vec<Leg> {
    let fits = |hop: &&MainRoute| device.is_none() || hop.device == device;
    let usable = hops
        .iter()
        .filter(fits)
        .filter(|hop| hop.device.is_some() && hop.state != HopState::Dead);
    let best = usable
        .clone()
        .map(|hop| (hop.state, Reverse(hop.preference)))
        .min();
    let mut legs: Vec<Leg> = usable
        .filter(|hop| Some((hop.state, Reverse(hop.preference))) == best)
        .filter_map(|hop| {
            Some(Leg {
                weight: hop.weight,
                ..Leg::only(hop.via()?)
            })
        })
        .collect();
    legs.sort();
    legs
}

/// The path of the best default route with a usable next hop on the device, if one is given.
pub(super) fn path(
    routes: &[MainRoute],
    family: Family,
    device: Option<IfIndex>,
) -> Option<BypassPath> {
    let mut found: Vec<(HopState, BypassPath)> = Vec::new();
    for hops in defaults(routes, family) {
        let legs = live_legs(hops, device);
        let state = hops
            .iter()
            .filter(|hop| legs.iter().any(|leg| Some(leg.via) == hop.via()))
            .map(|hop| hop.state)
            .min();
        let options = hops.first().and_then(|route| route.options.clone());
        if let (Some(state), Some(path)) = (state, BypassPath::new(legs, options)) {
            found.push((state, path));
        }
    }
    // The sort is stable, so the order of the routes stays within a state.
    found.sort_by_key(|(state, _)| *state);
    found.into_iter().map(|(_, path)| path).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::RouteOptions;

    fn hop(dst: &str, gateway: &str, device: u32) -> MainRoute {
        MainRoute {
            gateway: Some(gateway.parse().unwrap()),
            device: Some(IfIndex(device)),
            metric: Metric(100),
            ..MainRoute::unicast(dst.parse().unwrap())
        }
    }

    fn gateways(routes: &[MainRoute], family: Family) -> Vec<String> {
        let legs = path(routes, family, None).map(|path| path.legs().to_vec());
        let of_leg = |leg: Leg| {
            let gateway = leg.via.gateway.map(|gateway| gateway.to_string());
            format!("{} x{}", gateway.unwrap_or_default(), leg.weight)
        };
        legs.unwrap_or_default().into_iter().map(of_leg).collect()
    }

    #[test]
    fn route_for_one_source_network_or_one_type_of_service_is_no_default() {
        let selective = MainRoute {
            selective: true,
            metric: Metric(1),
            ..hop("::/0", "fe80::99", 2)
        };
        let real = hop("::/0", "fe80::1", 2);
        assert_eq!(
            gateways(&[selective.clone(), real], Family::Ipv6),
            ["fe80::1 x1"]
        );
        assert!(gateways(&[selective], Family::Ipv6).is_empty());
    }

    #[test]
    fn router_with_the_higher_preference_wins_at_equal_metric_only() {
        let low = MainRoute {
            preference: Preference::Low,
            ..hop("::/0", "fe80::aa", 2)
        };
        let high = MainRoute {
            preference: Preference::High,
            ..hop("::/0", "fe80::bb", 2)
        };
        let routes = [low.clone(), high.clone()];
        assert_eq!(gateways(&routes, Family::Ipv6), ["fe80::bb x1"]);
        let cheap = MainRoute {
            metric: Metric(50),
            ..low.clone()
        };
        assert_eq!(
            gateways(&[cheap, high.clone()], Family::Ipv6),
            ["fe80::aa x1"]
        );
        // Both may be legs of one multipath route.
        let sibling = MainRoute {
            sibling: true,
            ..high
        };
        assert_eq!(gateways(&[low, sibling], Family::Ipv6), ["fe80::bb x1"]);
    }

    #[test]
    fn multipath_default_gives_its_live_legs_with_weights() {
        let leg = |gateway: &str, state, weight, sibling| MainRoute {
            state,
            weight,
            sibling,
            ..hop("0.0.0.0/0", gateway, 2)
        };
        let live = HopState::Live;
        let routes = [
            leg("10.0.1.1", live, 3, false),
            leg("10.0.2.1", live, 1, true),
            leg("10.0.3.1", HopState::LinkDown, 1, true),
            leg("10.0.4.1", HopState::Dead, 1, true),
        ];
        let both = ["10.0.1.1 x3", "10.0.2.1 x1"];
        assert_eq!(gateways(&routes, Family::Ipv4), both);
        // A single live leg has no weight.
        assert_eq!(
            gateways(&[routes[0].clone()], Family::Ipv4),
            ["10.0.1.1 x1"]
        );
    }

    #[test]
    fn default_without_carrier_comes_after_a_live_one_and_dead_ones_never() {
        let down = MainRoute {
            state: HopState::LinkDown,
            metric: Metric(1),
            ..hop("0.0.0.0/0", "10.0.1.1", 2)
        };
        let live = hop("0.0.0.0/0", "10.0.2.1", 3);
        let both = [live, down.clone()];
        assert_eq!(gateways(&both, Family::Ipv4), ["10.0.2.1 x1"]);
        // The kernel goes on to send to the better one.
        assert_eq!(used_default(&both, Family::Ipv4), Some(&down));
        assert_eq!(
            gateways(std::slice::from_ref(&down), Family::Ipv4),
            ["10.0.1.1 x1"]
        );
        let dead = MainRoute {
            state: HopState::Dead,
            ..down
        };
        assert!(gateways(&[dead], Family::Ipv4).is_empty());
    }

    #[test]
    fn two_thousand_slash_three_is_a_default_and_goes_before_slash_zero() {
        let plain = hop("::/0", "fe80::1", 2);
        let public = MainRoute {
            metric: Metric(2000),
            ..hop("2000::/3", "fe80::2", 2)
        };
        let other = hop("4000::/3", "fe80::3", 2);
        let only = gateways(std::slice::from_ref(&public), Family::Ipv6);
        assert_eq!(only, ["fe80::2 x1"]);
        assert_eq!(gateways(&[plain, public], Family::Ipv6), ["fe80::2 x1"]);
        assert!(gateways(&[other], Family::Ipv6).is_empty());
    }

    #[test]
    fn two_halves_are_a_default_only_together_and_without_another() {
        let lower = hop("0.0.0.0/1", "10.8.0.1", 9);
        let upper = hop("128.0.0.0/1", "10.8.0.1", 9);
        let real = hop("0.0.0.0/0", "10.0.1.1", 2);
        let pair = [lower.clone(), upper.clone()];
        assert_eq!(gateways(&pair, Family::Ipv4), ["10.8.0.1 x1"]);
        assert!(gateways(std::slice::from_ref(&lower), Family::Ipv4).is_empty());
        let elsewhere = hop("128.0.0.0/1", "10.0.2.1", 3);
        assert!(gateways(&[lower.clone(), elsewhere], Family::Ipv4).is_empty());
        assert_eq!(
            gateways(&[lower, upper, real], Family::Ipv4),
            ["10.0.1.1 x1"]
        );
    }

    #[test]
    fn path_on_a_named_device_takes_the_legs_on_that_device() {
        let options = RouteOptions {
            source: Some([10, 0, 2, 7].into()),
            ..RouteOptions::default()
        };
        let first = MainRoute {
            options: options.clone().shared(),
            ..hop("0.0.0.0/0", "10.0.1.1", 2)
        };
        let second = MainRoute {
            sibling: true,
            ..hop("0.0.0.0/0", "10.0.2.1", 3)
        };
        let routes = [first, second];
        let path = path(&routes, Family::Ipv4, Some(IfIndex(3))).unwrap();
        assert_eq!(path.first().device, IfIndex(3));
        assert_eq!(path.options, options.shared());
    }
}
