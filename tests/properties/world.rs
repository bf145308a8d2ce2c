//! Random worlds: a config, a host and prefixes; the kernel as left by an earlier world; later
//! damage; and foreign objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use trailblazer::config::{Config, Role, parse};
use trailblazer::desired::{DesiredState, Inputs, desired};
use trailblazer::facts::{Address, HostFacts, Link, MainRoute};
use trailblazer::firewall::{BackendKind, ObservedFirewall};
use trailblazer::objects::{
    ForeignSelector, GroupMember, NexthopKind, NexthopObject, Route, RouteKey, RouteTarget, Rule,
    RuleAction, Via,
};
use trailblazer::observed::ObservedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::plan::Goal;
use trailblazer::ranges::{Origin, RangeSet};
use trailblazer::types::{
    Family, IfIndex, Metric, NexthopId, PerFamily, Priority, Protocol, Realm, TableId,
};

use crate::model::{ETH0, ETH1, Model, Packet};

/// A config and a host at one moment.
#[derive(Debug, Clone)]
pub struct World {
    pub role: Role,
    pub config: Config,
    pub prefixes: Option<PerFamily<Vec<IpNet>>>,
    pub facts: HostFacts,
    pub backend: BackendKind,
}

const V4: [&str; 8] = [
    "3.5.0.0/19",
    "16.182.0.0/16",
    "52.216.0.0/15",
    "52.216.0.0/16",
    "52.217.0.0/16",
    "52.217.128.0/17",
    "54.231.0.0/16",
    "54.231.7.0/24",
];
const V6: [&str; 5] = [
    "2600:1fa0:8000::/39",
    "2600:1fa0:8000::/40",
    "2600:1fa0:8100::/40",
    "2600:1ff8:8000::/40",
    "2600:1ff8:80ff::/48",
];

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Bypass table, egress table, priority, protocol. The fourth takes the place of the first's
/// rules with other tables; the last keeps a table in another meaning.
const NUMBERS: [(u32, u32, u32, u8); 5] = [
    (1083, 1084, 30000, 83),
    (2083, 2084, 20000, 83),
    (1083, 1084, 30000, 84),
    (2083, 2084, 30000, 83),
    (1083, 1084, 31000, 83),
];

prop_compose! {
    fn config(role: Role)(
        numbers in 0..NUMBERS.len(),
        gateways4 in subsequence(vec!["10.0.1.10", "10.0.1.20", "10.0.2.10"], 0..=3),
        gateways6 in subsequence(vec!["2600:1f18:1000:1::10", "2600:1f18:1000:1::20"], 0..=2),
        close in subsequence(vec!["ipv4", "ipv6"], 0..=2),
        families in subsequence(vec!["ipv4", "ipv6"], 1..=2),
        spread in prop_oneof![2 => Just("flow"), 1 => Just("host"), 1 => Just("order")],
        when_down in prop_oneof![4 => Just("unreachable"), 1 => Just("bypass")],
        addresses in subsequence(vec!["10.0.1.11", "10.0.1.12", "2600:1f18:1000:1::11"], 1..=3),
        vpc in prop_oneof![Just("10.0.0.0/16"), Just("54.231.0.0/16")],
    ) -> Config {
        let (bypass, egress, priority, protocol) = NUMBERS[numbers];
        let mut close = close;
        close.retain(|family| match *family {
            "ipv4" => gateways4.is_empty(),
            _ => gateways6.is_empty(),
        });
        let mut gateways = gateways4;
        gateways.extend(gateways6);
        let quoted = |words: &[&str]| format!("{words:?}");
        let (egress_keys, nat) = match role {
            Role::Host => (
                format!("gateways = {}\nspread = \"{spread}\"\nclose = {}\nwhen_down = \"{when_down}\"\n",
                    quoted(&gateways), quoted(&close)),
                String::new(),
            ),
            Role::Nat => (
                String::new(),
                format!("[nat]\nsources = [\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]\n\
                    egress_addresses = {}\n", quoted(&addresses)),
            ),
        };
        let text = format!(
            "role = \"{}\"\n[select]\nregions = [\"us-east-1\"]\nfamilies = {}\n\
             [vpc]\ncidrs = [\"{vpc}\"]\n[bypass]\ntable = {bypass}\n\
             [egress]\ntable = {egress}\n{egress_keys}\
             [kernel]\npriority = {priority}\nprotocol = {protocol}\n{nat}",
            role.as_str(), quoted(&families),
        );
        parse(&text, "generated").unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

fn main_route(dst: &str, gateway: Option<&str>, device: IfIndex, metric: u32) -> MainRoute {
    MainRoute {
        metric: Metric(metric),
        gateway: gateway.map(address),
        device: Some(device),
        protocol: Protocol(if gateway.is_some() { 16 } else { 2 }),
        ..MainRoute::unicast(net(dst))
    }
}

prop_compose! {
    fn facts()(
        default4 in prop_oneof![1 => Just(None), 4 => Just(Some("10.0.1.1")), 1 => Just(Some("10.0.1.2"))],
        default6 in prop_oneof![1 => Just(None), 4 => Just(Some("fe80::1")), 1 => Just(Some("fe80::2"))],
        eth1 in prop::bool::weighted(0.7),
        specific in any::<bool>(),
    ) -> HostFacts {
        let link = |index, name: &str, up| Link {
            index,
            name: name.to_owned(),
            altnames: Vec::new(),
            up,
            carrier: true,
            loopback: name == "lo",
            mac: Vec::new(),
            mtu: 1500,
        };
        let own = |link, text: &str| Address { link, net: net(text) };
        let mut main_routes = vec![
            main_route("10.0.1.0/24", None, ETH0, 0),
            main_route("2600:1f18:1000:1::/64", None, ETH0, 256),
        ];
        if eth1 {
            main_routes.push(main_route("10.0.2.0/24", None, ETH1, 0));
        }
        if let Some(gateway) = default4 {
            main_routes.push(main_route("0.0.0.0/0", Some(gateway), ETH0, 512));
        }
        if let Some(gateway) = default6 {
            main_routes.push(main_route("::/0", Some(gateway), ETH0, 512));
        }
        if specific {
            main_routes.push(main_route("192.0.2.0/24", Some("10.0.1.77"), ETH0, 0));
        }
        HostFacts {
            links: vec![link(IfIndex(1), "lo", true), link(ETH0, "eth0", true), link(ETH1, "eth1", eth1)],
            addresses: vec![
                own(ETH0, "10.0.1.11/24"),
                own(ETH0, "10.0.1.12/24"),
                own(ETH0, "2600:1f18:1000:1::11/64"),
                own(ETH1, "10.0.2.11/24"),
            ],
            main_routes,
            ..HostFacts::default()
        }
    }
}

fn prefixes() -> impl Strategy<Value = PerFamily<Vec<IpNet>>> {
    (
        subsequence(V4.to_vec(), 0..=V4.len()),
        subsequence(V6.to_vec(), 0..=V6.len()),
        subsequence(vec!["52.216.64.0/18", "54.231.7.7/32"], 0..=2),
    )
        .prop_map(|(v4, v6, exclude)| {
            let all = v4.into_iter().chain(v6).map(net).collect();
            let origins = BTreeMap::from([(Origin::Include, all)]);
            let exclude: Vec<IpNet> = exclude.into_iter().map(net).collect();
            RangeSet::build(None, String::new(), origins, &exclude).prefixes
        })
}

pub fn world() -> impl Strategy<Value = World> {
    prop_oneof![3 => Just(Role::Host), 1 => Just(Role::Nat)].prop_flat_map(|role| {
        (
            config(role),
            prop::option::weighted(0.85, prefixes()),
            facts(),
            prop_oneof![2 => Just(BackendKind::Nftables), 1 => Just(BackendKind::Iptables)],
        )
            .prop_map(move |(config, prefixes, facts, backend)| World {
                role,
                config,
                prefixes,
                facts,
                backend,
            })
    })
}

impl World {
    pub fn desired(&self, state: &ObservedState, ownership: &Ownership) -> DesiredState {
        let vpc_cidrs: Vec<IpNet> = self
            .config
            .vpc_cidrs
            .iter()
            .filter_map(|cidr| cidr.set().copied())
            .collect();
        desired(&Inputs {
            config: &self.config,
            role: self.role,
            prefixes: self.prefixes.as_ref(),
            facts: &self.facts,
            vpc_cidrs: &vpc_cidrs,
            backend: self.backend,
            nf_tables_beside: true,
            last_bypass: state.last_bypass(ownership),
            slots: trailblazer::desired::KnownSlots {
                gateways: state.slots(ownership),
                ..Default::default()
            },
            health: trailblazer::health::Health::default(),
            unfiltered: PerFamily::default(),
            no_switch: PerFamily::default(),
            shares: &trailblazer::desired::shares::Shares::default(),
            available: PerFamily {
                ipv4: true,
                ipv6: true,
            },
        })
    }

    pub fn goal(&self, desired: DesiredState) -> Goal {
        // Only equality of a backend's text matters here.
        let text = vec![format!("{:?}", desired.firewall)];
        Goal::of(desired, self.backend, text)
    }
}

/// Damage to our objects between two passes.
#[derive(Debug, Clone)]
pub enum Drift {
    DropRoute(Index),
    Redirect(Index),
    DropRule(Index),
    Twice(Index),
    ExtraRoute(Index),
    ExtraRule(Index),
    DropFirewall,
    DropNexthop(Index),
    /// `ip route flush table` of one of our tables.
    EmptyTable(Index),
    /// The link went down and up: IPv4 routes through the link are gone, routes without a device
    /// stay.
    Flap,
}

fn drift() -> impl Strategy<Value = Drift> {
    prop_oneof![
        any::<Index>().prop_map(Drift::DropRoute),
        any::<Index>().prop_map(Drift::Redirect),
        any::<Index>().prop_map(Drift::DropRule),
        any::<Index>().prop_map(Drift::Twice),
        any::<Index>().prop_map(Drift::ExtraRoute),
        any::<Index>().prop_map(Drift::ExtraRule),
        Just(Drift::DropFirewall),
        any::<Index>().prop_map(Drift::DropNexthop),
        any::<Index>().prop_map(Drift::EmptyTable),
        Just(Drift::Flap),
    ]
}

/// Foreign objects.
#[derive(Debug, Clone)]
pub enum Foreign {
    Route(Route),
    Rule(Rule),
    Nexthop(NexthopObject),
}

fn foreign() -> impl Strategy<Value = Foreign> {
    let table = prop_oneof![Just(1083u32), Just(1084), Just(2083), Just(2084), Just(500)];
    let dst = prop_oneof![
        6 => Just("198.51.100.0/24"),
        6 => Just("52.216.5.0/24"),
        6 => Just("2001:db8:7::/48"),
        1 => Just("52.216.0.0/15"),
        1 => Just("0.0.0.0/0"),
        1 => Just("fc00::/7"),
    ];
    let route = (table, dst, prop_oneof![Just(0u32), Just(50), Just(1024)]).prop_map(
        |(table, dst, metric)| {
            let dst = net(dst);
            let metric = match Family::of_net(&dst) {
                Family::Ipv6 if metric == 0 => 1024,
                _ => metric,
            };
            Foreign::Route(Route {
                key: RouteKey {
                    table: TableId(table),
                    dst,
                    tos: 0,
                    metric: Metric(metric),
                },
                target: RouteTarget::Unreachable,
                realm: Realm(0),
                options: None,
                protocol: Protocol(12),
            })
        },
    );
    let rule = (
        prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)],
        prop_oneof![
            Just(10000u32),
            Just(20010),
            Just(30005),
            Just(30010),
            Just(30020)
        ],
        any::<bool>(),
    )
        .prop_map(|(family, priority, twin)| {
            Foreign::Rule(Rule {
                family,
                priority: Priority(priority),
                iif: None,
                mark: None,
                foreign_selectors: match twin {
                    true => Vec::new(),
                    false => vec![ForeignSelector::From("10.9.9.9/32".parse().unwrap())],
                },
                // A copy of one of our rules, or a foreign source rule.
                action: RuleAction::Lookup {
                    table: TableId(if twin { 254 } else { 1083 }),
                    suppress_prefixlength: twin.then_some(u32::from(family.default_length())),
                },
                protocol: Protocol(3),
            })
        });
    let nexthop = prop_oneof![8 => Just(7u32), 1 => Just(108_401)].prop_map(|id| {
        Foreign::Nexthop(NexthopObject {
            id: NexthopId(id),
            family: Family::Ipv4,
            kind: NexthopKind::Single(Via {
                gateway: Some(address("10.0.1.99")),
                device: ETH0,
                onlink: false,
            }),
            protocol: Protocol(3),
        })
    });
    prop_oneof![3 => route, 2 => rule, 1 => nexthop]
}

/// The start of a pass: the world now, and the kernel as an earlier world and other programs left
/// it.
#[derive(Debug, Clone)]
pub struct Start {
    pub world: World,
    pub ownership: Ownership,
    pub model: Model,
    /// Nothing of ours is there, or only the document has changed.
    pub calm: bool,
}

pub fn start() -> impl Strategy<Value = Start> {
    let before = prop_oneof![
        1 => Just(None),
        3 => world().prop_map(Some),
    ];
    let drifts = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(drift(), 1..4)];
    let others = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(foreign(), 1..4)];
    let parts = (before, world(), drifts, others, 0..4u8, any::<bool>());
    // Often the same host and config, except for one part.
    parts.prop_map(|(before, mut now, drifts, others, same, upgraded)| {
        if let Some(before) = &before {
            match same {
                0 => {
                    now = World {
                        prefixes: now.prefixes,
                        ..before.clone()
                    }
                }
                1 => {
                    now = World {
                        facts: now.facts,
                        ..before.clone()
                    }
                }
                2 if now.role == before.role => {
                    now = World {
                        config: now.config,
                        ..before.clone()
                    }
                }
                _ => {}
            }
        }
        let same_but_document = same == 0;
        let happened = Happened {
            upgraded,
            drifts: &drifts,
            others: &others,
        };
        build(before.as_ref(), now, &happened, same_but_document)
    })
}

/// The events between the pass before and the pass at hand.
struct Happened<'a> {
    /// The earlier pass was one of a version with nexthop objects.
    upgraded: bool,
    drifts: &'a [Drift],
    others: &'a [Foreign],
}

fn build(
    before: Option<&World>,
    world: World,
    happened: &Happened,
    same_but_document: bool,
) -> Start {
    let numbers = Numbers::of(&world.config);
    let ownership = Ownership::new(numbers, before.map(|before| Numbers::of(&before.config)));
    let mut state = ObservedState::empty();
    for family in Family::ALL {
        state.rules.push(kernel_rule(family));
    }
    let mut model = Model::of(&state);
    if let Some(before) = before {
        let its = Ownership::new(Numbers::of(&before.config), []);
        let goal = before.goal(before.desired(&state, &its));
        let plan = trailblazer::plan::plan(&goal, &state, &its);
        for step in &plan.steps {
            model.apply(step).expect("a first installation goes in");
        }
    }
    if happened.upgraded {
        use_nexthop_objects(&mut model);
    }
    for drift in happened.drifts {
        happen(&mut model, drift, &ownership);
    }
    for other in happened.others {
        put_foreign(&mut model, other);
    }
    Start {
        world,
        ownership,
        model,
        calm: happened.drifts.is_empty() && (before.is_none() || same_but_document),
    }
}

fn kernel_rule(family: Family) -> Rule {
    Rule {
        family,
        priority: Priority(32766),
        iif: None,
        mark: None,
        foreign_selectors: Vec::new(),
        action: RuleAction::Lookup {
            table: TableId::MAIN,
            suppress_prefixlength: None,
        },
        protocol: Protocol(2),
    }
}

fn insert_rule(model: &mut Model, rule: Rule) {
    let place = model
        .rules
        .iter()
        .position(|there| there.family == rule.family && there.priority > rule.priority)
        .unwrap_or(model.rules.len());
    model.rules.insert(place, rule);
}

fn put_foreign(model: &mut Model, other: &Foreign) {
    match other {
        Foreign::Route(route) => {
            model.routes.entry(route.key).or_insert(route.clone());
        }
        Foreign::Rule(rule) => insert_rule(model, rule.clone()),
        Foreign::Nexthop(nexthop) => {
            model.nexthops.entry(nexthop.id).or_insert(nexthop.clone());
        }
    }
}

fn happen(model: &mut Model, drift: &Drift, ownership: &Ownership) {
    let keys: Vec<RouteKey> = model.routes.keys().copied().collect();
    let ours: Vec<usize> = (0..model.rules.len())
        .filter(|place| ownership.owns_rule(&model.rules[*place]))
        .collect();
    match drift {
        Drift::DropRoute(index) if !keys.is_empty() => {
            model.routes.remove(index.get(&keys));
        }
        Drift::Redirect(index) if !keys.is_empty() => {
            let route = model.routes.get_mut(index.get(&keys)).expect("its key");
            match &mut route.target {
                RouteTarget::Via(via) => {
                    via.gateway = Some(match route.key.family() {
                        Family::Ipv4 => address("10.0.1.66"),
                        Family::Ipv6 => address("fe80::66"),
                    });
                }
                // Somebody takes a leg out.
                RouteTarget::Multipath(legs) => {
                    let left = legs[1..].to_vec();
                    route.target = RouteTarget::through(left).expect("two legs or more");
                }
                _ => {}
            }
        }
        Drift::DropRule(index) if !ours.is_empty() => {
            model.rules.remove(*index.get(&ours));
        }
        Drift::Twice(index) if !ours.is_empty() => {
            let rule = model.rules[*index.get(&ours)].clone();
            insert_rule(model, rule);
        }
        Drift::ExtraRoute(index) if !keys.is_empty() => {
            let mut route = model.routes[index.get(&keys)].clone();
            route.key.dst = match route.key.family() {
                Family::Ipv4 => net("198.18.5.0/24"),
                Family::Ipv6 => net("2001:db8:5::/48"),
            };
            model.routes.insert(route.key, route);
        }
        Drift::ExtraRule(index) if !ours.is_empty() => {
            let mut rule = model.rules[*index.get(&ours)].clone();
            rule.iif = Some("eth7".to_owned());
            insert_rule(model, rule);
        }
        Drift::DropFirewall => {
            for found in model.firewalls.values_mut() {
                *found = ObservedFirewall::Absent;
            }
        }
        Drift::DropNexthop(index) if !model.nexthops.is_empty() => {
            let ids: Vec<NexthopId> = model.nexthops.keys().copied().collect();
            drop_nexthop(model, *index.get(&ids));
        }
        Drift::EmptyTable(index) if !keys.is_empty() => {
            let table = index.get(&keys).table;
            model.routes.retain(|key, _| key.table != table);
        }
        Drift::Flap => {
            let ids: Vec<NexthopId> = model.nexthops.keys().copied().collect();
            for id in ids {
                drop_nexthop(model, id);
            }
            model.routes.retain(|_, route| {
                !matches!(
                    route.target,
                    RouteTarget::Via(_) | RouteTarget::Multipath(_)
                )
            });
        }
        _ => {}
    }
}

/// Turns multipath routes into routes through a group of nexthop objects, numbered as earlier
/// versions did: a hundred ids a table, fifty a family, the first of each for the group.
fn use_nexthop_objects(model: &mut Model) {
    let mut objects = Vec::new();
    for route in model.routes.values_mut() {
        let RouteTarget::Multipath(legs) = &route.target else {
            continue;
        };
        let family = route.key.family();
        let half = if family == Family::Ipv6 { 50 } else { 0 };
        let group = route.key.table.0 * 100 + half;
        let object = |id: u32, kind| NexthopObject {
            id: NexthopId(id),
            family,
            kind,
            protocol: route.protocol,
        };
        let ids = group + 1..;
        let members: Vec<u32> = ids.take(legs.len()).collect();
        for (id, leg) in members.iter().zip(legs) {
            objects.push(object(*id, NexthopKind::Single(leg.via)));
        }
        let member = |id| GroupMember {
            id: NexthopId(id),
            weight: 1,
        };
        let members = members.into_iter().map(member).collect();
        objects.push(object(group, NexthopKind::Group(members)));
        route.target = RouteTarget::Nexthop(NexthopId(group));
    }
    for object in objects {
        model.nexthops.insert(object.id, object);
    }
}

/// Like the kernel: the object leaves its groups, and empty groups vanish with their routes.
fn drop_nexthop(model: &mut Model, id: NexthopId) {
    model.nexthops.remove(&id);
    let mut gone = vec![id];
    for nexthop in model.nexthops.values_mut() {
        if let NexthopKind::Group(members) = &mut nexthop.kind {
            members.retain(|member| member.id != id);
            if members.is_empty() {
                gone.push(nexthop.id);
            }
        }
    }
    model.nexthops.retain(|id, _| !gone.contains(id));
    model
        .routes
        .retain(|_, route| !matches!(route.target, RouteTarget::Nexthop(id) if gone.contains(&id)));
}

/// Packets of every kind: storage, partners, the neighbourhood; from here, from a client
/// outside, from a host behind us.
pub fn packets() -> Vec<Packet> {
    let destinations = [
        "3.5.1.1",
        "16.182.1.1",
        "52.216.1.1",
        "52.216.64.1",
        "52.217.1.1",
        "52.217.200.1",
        "54.231.1.1",
        "54.231.7.7",
        "54.231.7.8",
        "203.0.113.9",
        "192.0.2.9",
        "10.0.1.77",
        "10.99.0.1",
        "169.254.169.254",
        "2600:1fa0:8000::1",
        "2600:1fa0:81ff::1",
        "2600:1ff8:8000::1",
        "2600:1ff8:80ff::1",
        "2001:db8::9",
        "2600:1f18:1000:1::77",
        "fd00:ec2::254",
    ];
    let mut packets = Vec::new();
    for destination in destinations {
        for mark in [0, 0x10] {
            for input in [None, Some("eth0".to_owned()), Some("eth1".to_owned())] {
                packets.push(Packet {
                    destination: address(destination),
                    mark,
                    input,
                });
            }
        }
    }
    packets
}
