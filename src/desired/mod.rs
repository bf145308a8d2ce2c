//! Computes the wanted kernel state from prefixes, settings and host facts. Pure.

mod addresses;
mod by_realm;
mod bypass_match;
mod chains;
mod closed;
mod counting;
mod divert;
pub mod drain;
mod fault;
mod gateway;
mod host;
mod inbound;
mod known_slots;
mod last;
mod masquerade;
mod mss;
mod nat;
mod pins;
mod pins_nat;
mod place;
mod presence;
mod realm;
mod rules;
pub mod shares;
pub mod shut;
pub mod special;
pub mod spread;
mod switch;
mod sysctl;
mod translate;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Role};
use crate::degraded::{self, Degradation, Part};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, Ruleset, Traces};
use crate::health::Health;
use crate::objects::{BypassPath, ForwardPolicy, Route, RouteKey, RouteTarget, Rule};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex, Metric, PerFamily, Realm, Slot, TableId};

pub use addresses::{Presence, presence};
use fault::Fault;
pub use inbound::local_ports;
pub use known_slots::KnownSlots;
pub use pins::EGRESS_OF_NAT;
use rules::{landing, lookup, main_without_default, rule};
use shares::Shares;
pub use sysctl::{SysctlSetting, conntrack_max, hash_policy, is_crowded};

/// The inputs of the desired state.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub role: Role,
    /// The prefixes in force, aggregated and sorted; `None` before the first accepted document.
    pub prefixes: Option<&'a PerFamily<Vec<IpNet>>>,
    pub facts: &'a HostFacts,
    /// The VPC's CIDRs, from the settings and the metadata service.
    pub vpc_cidrs: &'a [IpNet],
    /// The capabilities of the firewall for the rules.
    pub backend: BackendKind,
    /// True if chains of nf_tables can lie beside iptables.
    pub nf_tables_beside: bool,
    /// The present path of our bypass routes, for a family without a default route for the moment.
    pub last_bypass: PerFamily<Option<BypassPath>>,
    /// The families that the kernel supports.
    pub available: PerFamily<bool>,
    /// NAT role: families without translation and guard, since no firewall takes the rules; each
    /// with the reason. Routes close their egress path.
    pub unfiltered: PerFamily<Option<String>>,
    /// NAT role: families without policies against packets that the firewall has not seen, each with
    /// the reason.
    pub no_switch: PerFamily<Option<String>>,
    /// NAT role: the stored owners of the slots of source hosts.
    pub shares: &'a Shares,
    /// Host role: the gateways of pinned flows.
    pub slots: KnownSlots,
    /// The ways out of use by the verdict of probes; by default none.
    pub health: Health,
}

/// The state that a pass establishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DesiredState {
    /// Sorted by key; each key occurs once.
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    /// `None` for no firewall object of ours.
    pub firewall: Option<Ruleset>,
    /// Host role: the firewall for as long as the routes change, if gateways leave: it also passes and
    /// marks new flows through them.
    pub on_the_way: Option<Ruleset>,
    /// Sorted.
    pub policies: Vec<ForwardPolicy>,
    pub sysctls: Vec<SysctlSetting>,
    /// Families with unknown bypass routes, for lack of a gateway or of a document: the present
    /// bypass routes stay.
    pub frozen: PerFamily<bool>,
    /// The paths as resolved, for `verify` and `explain`.
    pub paths: PerFamily<Paths>,
    /// NAT role: the owners of the slots of source hosts, to store.
    pub shares: Shares,
    /// Messages for the operator.
    pub notes: Vec<String>,
    /// Messages about the rules of this host that ask for nothing: `check` has no warning for these.
    pub means: Vec<String>,
    /// The parts left out, the most important part first.
    pub degraded: Vec<Degradation>,
}

impl DesiredState {
    /// All messages of a pass.
    pub fn messages(&self) -> impl Iterator<Item = &String> {
        self.means.iter().chain(&self.notes)
    }
}

/// The two paths of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// `None` for a family without a bypass path.
    pub bypass: Option<BypassPath>,
    /// True while new flows to selected prefixes take the egress path: probes have found the bypass path
    /// down.
    pub diverted: bool,
    pub egress: EgressPath,
    /// Host role: usable gateways without new flows.
    pub unused: Vec<(IpAddr, spread::Unused)>,
    /// Host role: the gateways of pinned flows; `None` if no flow is pinned.
    pub slots: Option<BTreeMap<Slot, IpAddr>>,
    /// NAT role: the incoming interfaces of our sources.
    pub inputs: Vec<InputPath>,
    /// NAT role: the interface of the translation for partners; `None` without a translation.
    pub leaves_by: Option<IfIndex>,
    /// NAT role: the addresses of the translation for partners.
    pub egress_addresses: Vec<IpAddr>,
    /// NAT role: destinations without translation.
    pub exempt: Vec<IpNet>,
}

/// The egress path of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EgressPath {
    /// The default of the main table, without any of ours.
    #[default]
    Main,
    Gateways(Vec<IpAddr>),
    Closed,
}

/// Packets of one source network on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPath {
    pub device: String,
    pub source: IpNet,
}

#[cfg(test)]
impl<'a> Inputs<'a> {
    /// With nftables, one family, and nothing known besides the host.
    pub(crate) fn of_one_family(
        (config, facts, shares): (&'a Config, &'a HostFacts, &'a Shares),
        role: Role,
        family: Family,
    ) -> Self {
        Inputs {
            config,
            role,
            prefixes: None,
            facts,
            vpc_cidrs: &[],
            backend: BackendKind::Nftables,
            nf_tables_beside: true,
            last_bypass: PerFamily::default(),
            available: PerFamily::from_fn(|other| other == family),
            unfiltered: PerFamily::default(),
            no_switch: PerFamily::default(),
            shares,
            slots: KnownSlots::default(),
            health: Health::default(),
        }
    }
}

/// Computes the desired state: all parts that this host can have. The parts left out are named in
/// [`DesiredState::degraded`], so a fault of one part or family never stops another one.
pub fn desired(inputs: &Inputs) -> DesiredState {
    let mut state = DesiredState::default();
    for family in Family::ALL {
        if *inputs.available.get(family) {
            bypass_routes(inputs, family, &mut state);
        }
    }
    match inputs.role {
        Role::Host => host::complete(inputs, &mut state),
        Role::Nat => nat::complete(inputs, &mut state),
    }
    if !inputs.config.kernel.log_drops {
        let (log, record) = (false, true);
        let policy = state.firewall.take();
        state.firewall = policy.map(|policy| policy.with_traces(Traces { log, record }));
    }
    for family in Family::ALL {
        note_disguised_defaults(inputs.facts, family, &mut state);
    }
    state.sysctls = sysctl::settings(inputs, &state);
    state.routes.sort();
    state.rules.sort();
    state.policies.sort();
    state.policies.dedup();
    degraded::merge(&mut state.degraded, []);
    if inputs.role == Role::Host {
        state.on_the_way = host::on_the_way(inputs);
    }
    state
}

/// Names halves of the default (`0.0.0.0/1`, `::/1`), which a full-tunnel VPN installs. Our rules
/// pass over them as over any default, so that the egress path stays the promised one; the operator
/// of the VPN expects something else.
fn note_disguised_defaults(facts: &HostFacts, family: Family, state: &mut DesiredState) {
    if state.rules.iter().all(|rule| rule.family != family) {
        return;
    }
    let mut halves: Vec<String> = facts
        .disguised_defaults(family)
        .filter(|route| route.unicast && !route.selective && route.dst.prefix_len() == 1)
        .map(|route| {
            let device = route.device.map(|device| facts.device_name(device));
            format!("{} dev {}", route.dst, device.unwrap_or_default())
        })
        .collect();
    halves.sort();
    halves.dedup();
    if !halves.is_empty() {
        let paths = match state.paths.get(family).egress {
            EgressPath::Main => "the bypass path takes",
            EgressPath::Gateways(_) | EgressPath::Closed => "the bypass and egress paths take",
        };
        state.notes.push(format!(
            "{family}: the main table has {} (a VPN for all traffic?): {paths} precedence, as over any default route",
            halves.join(" and ")
        ));
    }
}

/// The metric of our routes. IPv4: 0, the best, so that no foreign route with the same prefix can
/// precede ours. IPv6: the kernel's default, since IPv6 has no metric 0 (`IP6_RT_PRIO_USER`,
/// include/net/ip6_fib.h).
pub fn metric(family: Family) -> Metric {
    match family {
        Family::Ipv4 => Metric(0),
        Family::Ipv6 => Metric(1024),
    }
}

/// The worst possible metric: for the fallback below every other default.
pub const WORST_METRIC: Metric = Metric(u32::MAX);

fn bypass_routes(inputs: &Inputs, family: Family, state: &mut DesiredState) {
    if !inputs.config.select.families.contains(&family) {
        return;
    }
    let path = gateway::bypass(inputs, family, &mut state.notes)
        .or_else(|fault| without_bypass(inputs, family, &fault, state).ok_or(fault));
    let Ok(path) = path else {
        *state.frozen.get_mut(family) = true;
        return;
    };
    let (target, options) = (path.target(), path.options.clone());
    state.paths.get_mut(family).bypass = Some(path);
    let Some(prefixes) = inputs.prefixes else {
        *state.frozen.get_mut(family) = true;
        return;
    };
    let some = |family| !prefixes.get(family).is_empty();
    // A selection without any prefix is the guard's finding.
    if !some(family) && Family::ALL.into_iter().any(some) && presence::in_use(inputs.facts, family)
    {
        let fault = Fault::NoPrefixes { family };
        state
            .degraded
            .push(fault.degrades(Part::Selection, family, ""));
    }
    let numbers = Numbers::of(inputs.config);
    state
        .routes
        .extend(prefixes.get(family).iter().map(|prefix| Route {
            key: RouteKey {
                table: numbers.bypass_table,
                dst: *prefix,
                tos: 0,
                metric: metric(family),
            },
            target: target.clone(),
            realm: Realm(0),
            options: options.clone(),
            protocol: numbers.protocol,
        }));
}

/// Names the missing bypass path of a family. Returns the path of our present bypass routes if
/// the kernel still accepts routes through it: a mistake in the settings breaks no working path.
fn without_bypass(
    inputs: &Inputs,
    family: Family,
    fault: &Fault,
    state: &mut DesiredState,
) -> Option<BypassPath> {
    let facts = inputs.facts;
    let elsewhere = Family::ALL
        .into_iter()
        .any(|other| other != family && presence::in_use(facts, other));
    let unused = !presence::in_use(facts, family) && elsewhere;
    if unused && matches!(fault, Fault::NoBypassGateway { .. }) {
        // No packet of the family leaves this host, so the bypass path lacks nothing.
        state.notes.push(format!("{family}: {fault}"));
        return None;
    }
    if family == Family::Ipv6 && presence::ipv6_is_off(facts) {
        state
            .notes
            .push(format!("{family}: {}", presence::IPV6_IS_OFF));
        return None;
    }
    let last = gateway::last_bypass(inputs, family);
    let consequence = match (&last, fault) {
        (Some(last), _) => format!(
            "the last known gateway {} stays in use",
            gateway::describe(facts, last)
        ),
        (None, Fault::NoBypassGateway { .. }) => String::new(),
        (None, _) => format!("{family} storage traffic gets no bypass"),
    };
    state
        .degraded
        .push(fault.degrades(Part::Bypass, family, &consequence));
    last
}

fn route(
    numbers: &Numbers,
    table: TableId,
    dst: IpNet,
    metric: Metric,
    target: RouteTarget,
) -> Route {
    Route {
        key: RouteKey {
            table,
            dst,
            tos: 0,
            metric,
        },
        target,
        realm: Realm(0),
        options: None,
        protocol: numbers.protocol,
    }
}

/// Sorts the prefixes and removes those covered by another prefix.
fn disjoint(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    prefixes.sort();
    prefixes.dedup();
    let all = prefixes.clone();
    prefixes.retain(|prefix| {
        !all.iter()
            .any(|other| other != prefix && other.contains(prefix))
    });
    prefixes
}
