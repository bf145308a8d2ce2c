//! The main table as the host's facts show it: one entry for each next hop.
//!
//! Two facts are missing in the kernel's route messages and come from elsewhere. With
//! `net.ipv4.nexthop_compat_mode=0`, a route through a nexthop object names the object only. And an
//! IPv6 multipath route names the router preference of its first leg only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr};

use super::netlink::{NetlinkError, NetlinkSocket};
use super::nexthop;
use super::route::{
    Decoded, Hop, RTM_GETROUTE, RTM_NEWROUTE, RTN_UNICAST, absent_is_empty, decode, preference_of,
    request_table,
};
use crate::facts::{HopState, MainRoute, Preference};
use crate::objects::{Leg, NexthopKind, NexthopObject, Via};
use crate::types::{Family, IfIndex, Metric, NexthopId, TableId};

/// Attempts at two dumps, routes and nexthop objects: an object may vanish in between, together with
/// its routes.
const ATTEMPTS: usize = 3;

/// The highest weight of a leg (`rtnh_hops` has one byte); a nexthop group has larger ones.
const HIGHEST_WEIGHT: u16 = 256;

/// All routes of the main table of these families.
pub(super) fn dump(
    socket: &mut NetlinkSocket,
    families: &[Family],
    link_name: &dyn Fn(IfIndex) -> Option<String>,
) -> Result<Vec<MainRoute>, NetlinkError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let mut decoded = Vec::new();
        for family in families {
            decoded.extend(dump_family(socket, *family)?);
        }
        let objects = if decoded.iter().any(|route| unresolved(route).is_some()) {
            nexthop::dump(socket)?
        } else {
            Vec::new()
        };
        let missing = decoded
            .iter()
            .filter_map(unresolved)
            .find(|id| objects.iter().all(|object| object.id != *id));
        match missing {
            None => return Ok(main_routes(decoded, &objects, link_name)),
            Some(_) if left > 0 => {}
            Some(id) => {
                return Err(NetlinkError::Interrupted {
                    operation: format!(
                        "read nexthop object {id}, which a route of the main table uses"
                    ),
                });
            }
        }
    }
}

fn dump_family(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<Decoded>, NetlinkError> {
    let operation = format!("read the {family} routes of the main table");
    let request = request_table(family, TableId::MAIN);
    absent_is_empty(socket.dump(&operation, RTM_GETROUTE, request, |frame| {
        if frame.kind != RTM_NEWROUTE {
            return Ok(None);
        }
        Ok(decode(frame.body)?.filter(|route| route.key.table == TableId::MAIN))
    }))
}

/// The nexthop object of a route whose message has no next hop.
fn unresolved(route: &Decoded) -> Option<NexthopId> {
    route
        .nexthop
        .filter(|_| route.kind == RTN_UNICAST && route.hop.is_none() && route.multipath.is_none())
}

/// The type of a route that refuses packets (linux/rtnetlink.h); `throw` only leaves the table.
fn refusing_type(kind: u8) -> Option<&'static str> {
    match kind {
        6 => Some("blackhole"),
        7 => Some("unreachable"),
        8 => Some("prohibit"),
        _ => None,
    }
}

fn main_routes(
    decoded: Vec<Decoded>,
    objects: &[NexthopObject],
    link_name: &dyn Fn(IfIndex) -> Option<String>,
) -> Vec<MainRoute> {
    let preferences = if decoded.iter().any(hides_preferences) {
        Preferences::read()
    } else {
        Preferences::default()
    };
    let mut routes = Vec::new();
    for mut route in decoded {
        let hops = hops_of(&route, objects);
        let by_leg = hides_preferences(&route);
        let entry = MainRoute {
            metric: route.key.metric,
            protocol: route.protocol,
            // A nexthop object without next hops discards packets (`blackhole`).
            unicast: route.kind == RTN_UNICAST && !hops.is_empty(),
            rejects: refusing_type(route.kind),
            selective: route.from_some || route.key.tos != 0,
            preference: route.preference,
            through_object: route.nexthop.is_some(),
            options: if Family::is_default(&route.key.dst) {
                std::mem::take(&mut route.options).shared()
            } else {
                None
            },
            ..MainRoute::unicast(route.key.dst)
        };
        if hops.is_empty() {
            routes.push(entry);
            continue;
        }
        routes.extend(hops.into_iter().enumerate().map(|(place, hop)| {
            let via = hop.leg.via;
            let own = by_leg.then(|| {
                let name = link_name(via.device)?;
                preferences.of(via.gateway?, &name, entry.metric)
            });
            MainRoute {
                gateway: via.gateway,
                device: Some(via.device),
                onlink: via.onlink,
                state: hop.state,
                weight: hop.leg.weight,
                sibling: place > 0,
                preference: own.flatten().unwrap_or(entry.preference),
                ..entry.clone()
            }
        }));
    }
    routes
}

/// Each next hop; none for a route that doesn't forward.
fn hops_of(route: &Decoded, objects: &[NexthopObject]) -> Vec<Hop> {
    if route.kind != RTN_UNICAST {
        return Vec::new();
    }
    if let Some(id) = unresolved(route) {
        return behind(id, objects);
    }
    match &route.multipath {
        Some(hops) => hops.clone(),
        None => route.hop.into_iter().collect(),
    }
}

/// The next hops behind a nexthop object. All are live: the kernel deletes an object as soon as the
/// link loses the carrier.
fn behind(id: NexthopId, objects: &[NexthopObject]) -> Vec<Hop> {
    let kind = |id: NexthopId| {
        let object = objects.iter().find(|object| object.id == id);
        object.map(|object| &object.kind)
    };
    let hop = |via: Via, weight| Hop {
        leg: Leg {
            weight,
            ..Leg::only(via)
        },
        state: HopState::Live,
    };
    let members = match kind(id) {
        Some(NexthopKind::Single(via)) => return vec![hop(*via, 1)],
        Some(NexthopKind::Group(members)) => members,
        Some(NexthopKind::Other) | None => return Vec::new(),
    };
    let highest = members.iter().map(|member| member.weight).max();
    let scaled = |weight: u16| match highest {
        Some(highest) if highest > HIGHEST_WEIGHT => {
            let scaled = u32::from(weight) * u32::from(HIGHEST_WEIGHT) / u32::from(highest);
            u16::try_from(scaled).unwrap_or(HIGHEST_WEIGHT).max(1)
        }
        _ => weight,
    };
    let single = |id| match kind(id) {
        Some(NexthopKind::Single(via)) => Some(*via),
        _ => None,
    };
    members
        .iter()
        .filter_map(|member| Some(hop(single(member.id)?, scaled(member.weight))))
        .collect()
}

/// True for an IPv6 default with several legs: `RTA_PREF` of the message is the first leg's.
fn hides_preferences(route: &Decoded) -> bool {
    Family::of_net(&route.key.dst) == Family::Ipv6
        && Family::is_default(&route.key.dst)
        && route.nexthop.is_none()
        && route.multipath.is_some()
}

/// The router preferences of IPv6 default routes by gateway, device and metric.
#[derive(Debug, Default)]
struct Preferences(BTreeMap<(Ipv6Addr, String, u32), Preference>);

impl Preferences {
    /// Reads `/proc/net/ipv6_route`, the only place that shows each leg with its own flags. The file
    /// has every table; only the lines of default routes are kept. Without the file, every leg has
    /// the preference of the message.
    fn read() -> Preferences {
        let Ok(file) = File::open("/proc/thread-self/net/ipv6_route") else {
            return Preferences::default();
        };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        Preferences::parse(lines)
    }

    /// The fields of a line: destination, its length, source, its length, gateway, metric, two
    /// counters, flags, device; all but the device in hex (`ipv6_route_native_seq_show`,
    /// net/ipv6/ip6_fib.c). Bits 27 and 28 of the flags are the preference (`RTF_PREF`,
    /// linux/ipv6_route.h).
    fn parse(lines: impl Iterator<Item = String>) -> Preferences {
        let mut found = BTreeMap::new();
        for line in lines {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, length, _, "00", gateway, metric, _, _, flags, device] = fields.as_slice()
            else {
                continue;
            };
            let hex = |text: &str| u32::from_str_radix(text, 16).ok();
            let (Some(length), Some(metric), Some(flags)) = (hex(length), hex(metric), hex(flags))
            else {
                continue;
            };
            let Ok(gateway) = u128::from_str_radix(gateway, 16) else {
                continue;
            };
            if length <= u32::from(Family::Ipv6.default_length()) && gateway != 0 {
                let key = (Ipv6Addr::from_bits(gateway), (*device).to_owned(), metric);
                found.insert(key, preference_of(flags >> 27));
            }
        }
        Preferences(found)
    }

    fn of(&self, gateway: IpAddr, device: &str, metric: Metric) -> Option<Preference> {
        let IpAddr::V6(gateway) = gateway else {
            return None;
        };
        let key = (gateway, device.to_owned(), metric.0);
        self.0.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::GroupMember;
    use crate::types::Protocol;

    fn object(id: u32, kind: NexthopKind) -> NexthopObject {
        NexthopObject {
            id: NexthopId(id),
            family: Family::Ipv4,
            kind,
            protocol: Protocol(11),
        }
    }

    fn via(last: u8) -> Via {
        Via {
            gateway: Some([10, 0, 1, last].into()),
            device: IfIndex(2),
            onlink: false,
        }
    }

    fn group(members: &[(u32, u16)]) -> NexthopKind {
        let member = |(id, weight): &(u32, u16)| GroupMember {
            id: NexthopId(*id),
            weight: *weight,
        };
        NexthopKind::Group(members.iter().map(member).collect())
    }

    #[test]
    fn nexthop_group_gives_its_members_with_weights_of_one_byte() {
        let objects = [
            object(1, NexthopKind::Single(via(1))),
            object(2, NexthopKind::Single(via(2))),
            object(3, NexthopKind::Other),
            object(10, group(&[(1, 3), (2, 1)])),
            object(11, group(&[(1, 1024), (2, 2)])),
        ];
        let legs = |id| -> Vec<(Via, u16)> {
            let hops = behind(NexthopId(id), &objects);
            hops.iter()
                .map(|hop| (hop.leg.via, hop.leg.weight))
                .collect()
        };
        assert_eq!(legs(1), [(via(1), 1)]);
        assert_eq!(legs(10), [(via(1), 3), (via(2), 1)]);
        assert_eq!(legs(11), [(via(1), 256), (via(2), 1)]);
        assert!(legs(3).is_empty(), "a blackhole");
    }

    #[test]
    fn preferences_of_legs_are_read_from_the_route_flags() {
        let zero = "0".repeat(32);
        let line = |gateway: &str, flags: &str| {
            format!("{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 {flags}     eth0")
        };
        let text = [
            line("fe8000000000000000000000000000aa", "18000003"),
            line("fe8000000000000000000000000000bb", "08000003"),
            line("fe8000000000000000000000000000cc", "00000003"),
            line(&zero, "00200200"),
            "a line of another form".to_owned(),
        ];
        let found = Preferences::parse(text.into_iter());
        let of = |gateway: &str| found.of(gateway.parse().unwrap(), "eth0", Metric(1024));
        assert_eq!(of("fe80::aa"), Some(Preference::Low));
        assert_eq!(of("fe80::bb"), Some(Preference::High));
        assert_eq!(of("fe80::cc"), Some(Preference::Medium));
        assert_eq!(of("fe80::dd"), None);
    }
}
