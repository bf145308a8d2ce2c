//! Objects as lines in the syntax of `ip`, parsed and rendered: case files contain such lines, and
//! `ip` accepts them. A default is `default` for IPv4 and `::/0` for IPv6.

use std::net::IpAddr;

use ipnet::IpNet;
use trailblazer::facts::{MainRoute, Preference};
use trailblazer::objects::{
    ForeignSelector, GroupMember, Leg, MetricKind, MetricValue, NexthopKind, NexthopObject, Route,
    RouteKey, RouteMetric, RouteOptions, RouteTarget, Rule, RuleAction, Via,
};
use trailblazer::types::{
    Family, IfIndex, Mark, Metric, NexthopId, Priority, Protocol, Realm, TableId,
};

/// Interface names by number.
#[derive(Debug, Clone, Default)]
pub struct Names(pub Vec<(String, IfIndex)>);

impl Names {
    pub fn index(&self, name: &str) -> IfIndex {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("no link {name} in the case"))
            .1
    }

    pub fn name(&self, index: IfIndex) -> &str {
        let found = self.0.iter().find(|(_, known)| *known == index);
        &found
            .unwrap_or_else(|| panic!("no link {index} in the case"))
            .0
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    let text = text.trim();
    text.parse()
        .unwrap_or_else(|_| panic!("`{text}` is not what belongs here"))
}

/// rtnetlink.h's `RTPROT_*`, as in `/etc/iproute2/rt_protos`.
fn protocol(text: &str) -> Protocol {
    Protocol(match text {
        "kernel" => 2,
        "boot" => 3,
        "static" => 4,
        "ra" => 9,
        "bird" => 12,
        "dhcp" => 16,
        other => number(other),
    })
}

pub fn default_metric(family: Family) -> Metric {
    Metric(if family == Family::Ipv6 { 1024 } else { 0 })
}

fn prefix(text: &str, gateway: Option<IpAddr>) -> IpNet {
    if text == "default" {
        return gateway.map_or(Family::Ipv4, Family::of).default_prefix();
    }
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .unwrap_or_else(|_| panic!("`{text}` is no prefix"))
}

/// `throw 10.0.0.0/8 table 1084 proto 83`.
pub fn route(line: &str, names: &Names) -> Route {
    let mut words = line.split_whitespace().peekable();
    let kind =
        words.next_if(|word| ["unreachable", "throw", "blackhole", "prohibit"].contains(word));
    let dst = words.next().expect("a route has a destination");
    let (mut table, mut metric, mut realm, mut by) = (TableId::MAIN, None, Realm(0), Protocol(3));
    let mut nhid = None;
    let mut hops: Vec<Via> = Vec::new();
    let mut weights: Vec<u16> = Vec::new();
    let mut multipath = false;
    let mut options = RouteOptions::default();
    let empty = Via {
        gateway: None,
        device: IfIndex(0),
        onlink: false,
    };
    while let Some(word) = words.next() {
        if word == "nexthop" {
            hops.push(empty);
            weights.push(1);
            multipath = true;
            continue;
        }
        if word == "onlink" {
            hops.last_mut().expect("onlink follows a gateway").onlink = true;
            continue;
        }
        let value = words
            .by_ref()
            .find(|word| *word != "inet6")
            .unwrap_or_else(|| panic!("`{word}` needs a value: {line}"));
        match word {
            "src" => options.source = Some(number(value)),
            // The main table's, which `main_routes` reads.
            "from" | "pref" => {}
            "table" => table = TableId(number(value)),
            "metric" => metric = Some(Metric(number(value))),
            "realm" => realm = Realm(number(value)),
            "proto" => by = protocol(value),
            "weight" => *weights.last_mut().expect("a weight follows a hop") = number(value),
            "nhid" => nhid = Some(NexthopId(number(value))),
            "via" | "dev" => {
                if hops.is_empty() {
                    hops.push(empty);
                }
                let hop = hops.last_mut().expect("one was pushed");
                match word {
                    "via" => hop.gateway = Some(number(value)),
                    _ => hop.device = names.index(value),
                }
            }
            metric => {
                let kind = (2..=17)
                    .map(MetricKind)
                    .find(|kind| kind.name() == Some(metric));
                options.metrics.push(RouteMetric {
                    kind: kind
                        .unwrap_or_else(|| panic!("`{metric}` is no word of a route: {line}")),
                    value: MetricValue::Number(number(value)),
                });
            }
        }
    }
    options.metrics.sort();
    let dst = prefix(dst, hops.first().and_then(|hop| hop.gateway));
    let target = match (kind, nhid) {
        (Some("unreachable"), _) => RouteTarget::Unreachable,
        (Some("throw"), _) => RouteTarget::Throw,
        // RTN_BLACKHOLE and RTN_PROHIBIT, linux/rtnetlink.h.
        (Some("blackhole"), _) => RouteTarget::Other(6),
        (Some(_), _) => RouteTarget::Other(8),
        (None, Some(id)) => RouteTarget::Nexthop(id),
        (None, None) if multipath => RouteTarget::through(
            hops.into_iter()
                .zip(weights)
                .map(|(via, weight)| Leg {
                    weight,
                    ..Leg::only(via)
                })
                .collect(),
        )
        .expect("a multipath route has next hops"),
        (None, None) => RouteTarget::Via(hops[0]),
    };
    Route {
        key: RouteKey {
            table,
            dst,
            tos: 0,
            metric: metric.unwrap_or(default_metric(Family::of_net(&dst))),
        },
        target,
        realm,
        options: options.shared(),
        protocol: by,
    }
}

/// A next hop; `ip` wants the gateway's family where the route has another (RFC 8950).
fn hop_text(via: &Via, family: Family, names: &Names) -> String {
    let gateway = match via.gateway {
        Some(gateway) if Family::of(gateway) != family => format!("via inet6 {gateway} "),
        Some(gateway) => format!("via {gateway} "),
        None => String::new(),
    };
    let onlink = if via.onlink { " onlink" } else { "" };
    format!("{gateway}dev {}{onlink}", names.name(via.device))
}

pub fn dst_text(dst: &IpNet) -> String {
    if *dst == Family::Ipv4.default_prefix() {
        "default".to_owned()
    } else {
        dst.to_string()
    }
}

/// The canonical line, as read by `route`.
pub fn route_line(route: &Route, names: &Names) -> String {
    let (dst, family) = (dst_text(&route.key.dst), route.key.family());
    let mut line = match &route.target {
        RouteTarget::Via(via) => format!("{dst} {}", hop_text(via, family, names)),
        RouteTarget::Nexthop(id) => format!("{dst} nhid {id}"),
        RouteTarget::Multipath(legs) => {
            let legs = legs.iter().map(|leg| {
                let via = hop_text(&leg.via, family, names);
                match leg.weight {
                    1 => via,
                    weight => format!("{via} weight {weight}"),
                }
            });
            let legs: Vec<String> = legs.collect();
            format!("{dst} nexthop {}", legs.join(" nexthop "))
        }
        RouteTarget::Unreachable => format!("unreachable {dst}"),
        RouteTarget::Throw => format!("throw {dst}"),
        RouteTarget::Other(6) => format!("blackhole {dst}"),
        RouteTarget::Other(_) => format!("prohibit {dst}"),
    };
    line.push_str(&format!(
        " table {} proto {}",
        route.key.table, route.protocol
    ));
    if route.key.metric != default_metric(route.key.family()) {
        line.push_str(&format!(" metric {}", route.key.metric));
    }
    if route.realm.0 != 0 {
        line.push_str(&format!(" realm {}", route.realm));
    }
    if let Some(options) = &route.options {
        line.push_str(&format!(" {options}"));
    }
    line
}

/// The line for `ip route add`, which requires `nexthop` at the end.
pub fn route_command(route: &Route, names: &Names) -> String {
    let line = route_line(route, names);
    match line.split_once(" nexthop ") {
        Some((dst, rest)) => {
            let (hops, rest) = rest.split_once(" table ").expect("the line names a table");
            format!("route add {dst} table {rest} nexthop {hops}")
        }
        None => format!("route add {line}"),
    }
}

/// A line of the main table, one entry a next hop.
pub fn main_routes(line: &str, names: &Names) -> Vec<MainRoute> {
    let route = route(line, names);
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word: &str| {
        let place = words.iter().position(|found| *found == word);
        place.and_then(|place| words.get(place + 1)).copied()
    };
    let entry = MainRoute {
        metric: route.key.metric,
        protocol: route.protocol,
        unicast: route.target.forwards(),
        selective: after("from").is_some(),
        preference: match after("pref") {
            Some("high") => Preference::High,
            Some("low") => Preference::Low,
            _ => Preference::Medium,
        },
        options: route.options.clone(),
        ..MainRoute::unicast(route.key.dst)
    };
    let legs = route.target.legs();
    if legs.is_empty() {
        return vec![entry];
    }
    let hop = |(place, leg): (usize, Leg)| MainRoute {
        gateway: leg.via.gateway,
        device: Some(leg.via.device),
        onlink: leg.via.onlink,
        weight: leg.weight,
        sibling: place > 0,
        ..entry.clone()
    };
    legs.into_iter().enumerate().map(hop).collect()
}

fn hex(text: &str) -> u32 {
    text.strip_prefix("0x").map_or_else(
        || number(text),
        |digits| u32::from_str_radix(digits, 16).expect("hexadecimal digits"),
    )
}

/// `ipv4 30000 from all fwmark 0x3000/0x3000 goto 30099 proto 83`.
pub fn rule(line: &str) -> Rule {
    let mut words = line.split_whitespace();
    let mut next = || words.next();
    let family = match next() {
        Some("ipv4") => Family::Ipv4,
        Some("ipv6") => Family::Ipv6,
        other => panic!("a rule begins with its family, not {other:?}: {line}"),
    };
    let mut rule = Rule {
        family,
        priority: Priority(number(next().unwrap_or_default())),
        iif: None,
        mark: None,
        foreign_selectors: Vec::new(),
        action: RuleAction::Nop,
        protocol: Protocol(3),
    };
    let (mut table, mut suppress) = (None, None);
    while let Some(word) = next() {
        if word == "nop" {
            continue;
        }
        let value = next().unwrap_or_else(|| panic!("`{word}` needs a value: {line}"));
        match word {
            "from" if value == "all" => {}
            "from" => rule
                .foreign_selectors
                .push(ForeignSelector::From(prefix(value, None))),
            "to" => rule
                .foreign_selectors
                .push(ForeignSelector::To(prefix(value, None))),
            "iif" => rule.iif = Some(value.to_owned()),
            "fwmark" => {
                let (value, mask) = value.split_once('/').expect("a mark with its mask");
                rule.mark = Some(Mark {
                    value: hex(value),
                    mask: hex(mask),
                });
            }
            "lookup" => {
                table = Some(TableId(match value {
                    "local" => 255,
                    "main" => 254,
                    "default" => 253,
                    other => number(other),
                }));
            }
            "suppress_prefixlength" => suppress = Some(number(value)),
            "goto" => rule.action = RuleAction::Goto(Priority(number(value))),
            "proto" => rule.protocol = protocol(value),
            other => panic!("`{other}` is no word of a rule: {line}"),
        }
    }
    if let Some(table) = table {
        rule.action = RuleAction::Lookup {
            table,
            suppress_prefixlength: suppress,
        };
    }
    rule
}

/// The canonical line, as read by `rule`.
pub fn rule_line(rule: &Rule) -> String {
    format!(
        "{} {} {} proto {}",
        rule.family,
        rule.priority,
        trailblazer::plan::rule_text::rule_text(rule),
        rule.protocol
    )
}

pub fn rule_command(rule: &Rule) -> String {
    format!(
        "rule add pref {} {} protocol {}",
        rule.priority,
        trailblazer::plan::rule_text::rule_text(rule),
        rule.protocol
    )
}

/// `id 108400 group 108401/108402 proto 83`, `id 108401 via 10.0.1.10 dev eth0 proto 83`.
/// A group of IPv6 members says `group6`: the kernel stores no family.
pub fn nexthop(line: &str, names: &Names) -> NexthopObject {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |word: &str| {
        let place = words.iter().position(|other| *other == word)?;
        words.get(place + 1).copied()
    };
    let members = value("group").or(value("group6"));
    let gateway: Option<IpAddr> = value("via").map(number);
    let kind = match members {
        Some(members) => {
            let member = |id| GroupMember {
                id: NexthopId(number(id)),
                weight: 1,
            };
            NexthopKind::Group(members.split('/').map(member).collect())
        }
        None => NexthopKind::Single(Via {
            gateway,
            device: names.index(value("dev").expect("a nexthop has a device")),
            onlink: words.contains(&"onlink"),
        }),
    };
    let ipv6 = value("group6").is_some() || gateway.is_some_and(|gateway| gateway.is_ipv6());
    NexthopObject {
        id: NexthopId(number(value("id").expect("a nexthop has an id"))),
        family: if ipv6 { Family::Ipv6 } else { Family::Ipv4 },
        kind,
        protocol: value("proto").map_or(Protocol(3), protocol),
    }
}

/// The canonical line, as read by `nexthop`.
pub fn nexthop_line(nexthop: &NexthopObject, names: &Names) -> String {
    let what = match &nexthop.kind {
        NexthopKind::Single(via) => hop_text(via, nexthop.family, names),
        NexthopKind::Group(members) => {
            let members: Vec<String> = members.iter().map(|member| member.id.to_string()).collect();
            let word = match nexthop.family {
                Family::Ipv4 => "group",
                Family::Ipv6 => "group6",
            };
            format!("{word} {}", members.join("/"))
        }
        NexthopKind::Other => panic!("no nexthop of an unknown kind in a case"),
    };
    format!("id {} {what} proto {}", nexthop.id, nexthop.protocol)
}
