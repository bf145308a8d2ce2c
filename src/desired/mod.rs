//! What should be in the kernel: prefixes, settings and host facts → [`DesiredState`]. Pure.

mod bypass_match;
mod counting;
mod gateway;
mod host;
mod masquerade;
mod nat;
mod realm;
pub mod special;
mod sysctl;

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::config::{Config, Role};
use crate::facts::HostFacts;
use crate::firewall::{BackendKind, Ruleset};
use crate::objects::{Route, RouteKey, RouteTarget, Rule, RuleAction, Via};
use crate::ownership::Numbers;
use crate::types::{Family, Metric, PerFamily, Priority, Realm, TableId};

pub use sysctl::SysctlSetting;

/// What the desired state depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The settings.
    pub config: &'a Config,
    /// What this machine is.
    pub role: Role,
    /// The prefixes in force, aggregated and sorted; `None` while no document was ever accepted.
    pub prefixes: Option<&'a PerFamily<Vec<IpNet>>>,
    /// The host.
    pub facts: &'a HostFacts,
    /// The VPC's CIDRs, from the settings and the metadata service.
    pub vpc_cidrs: &'a [IpNet],
    /// Which firewall will carry the rules: they differ in what they can ask.
    pub backend: BackendKind,
    /// The gateway that our bypass routes use now, for a family whose default has just gone.
    pub last_bypass: PerFamily<Option<Via>>,
    /// Families that the kernel has.
    pub available: PerFamily<bool>,
}

/// Why there can be no desired state: the host doesn't fit the settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DesiredError {
    /// A gateway on no link of ours.
    #[error(
        "{key}: gateway {gateway} is not on-link: no connected network of this host{device} holds it; check the address, or the interface's own"
    )]
    NotOnLink {
        /// The setting.
        key: &'static str,
        /// The address.
        gateway: IpAddr,
        /// ` on NAME` where an interface is set.
        device: String,
    },
    /// A gateway that is this host.
    #[error(
        "{key}: gateway {gateway} is an address of this host itself: nothing sent there leaves; write the router's address, and on the NAT instance itself set role = \"nat\""
    )]
    OwnGateway {
        /// The setting.
        key: &'static str,
        /// The address.
        gateway: IpAddr,
    },
    /// A named interface that isn't there.
    #[error("{key}: this host has no interface {name}; it has: {present}")]
    NoInterface {
        /// The setting.
        key: &'static str,
        /// The name.
        name: String,
        /// Those that are there.
        present: String,
    },
    /// An IPv6 link-local gateway says nothing without its interface.
    #[error("{key}: link-local gateway {gateway} needs an interface: set [bypass] interface")]
    LinkLocalNeedsInterface {
        /// The setting.
        key: &'static str,
        /// The address.
        gateway: IpAddr,
    },
    /// `auto` found the NAT.
    #[error(
        "[bypass] gateway: auto finds {gateway}, which is an egress gateway: the bypass would silently go through the NAT; set [bypass] gateway to the VPC router (the first address of the subnet)"
    )]
    BypassIsEgress {
        /// The address.
        gateway: IpAddr,
    },
    /// An egress address that isn't here.
    #[error(
        "[nat] egress_addresses: {address} is no address of this host{hint}; assign it to an interface, or name the private address behind it"
    )]
    NotOurAddress {
        /// The address.
        address: IpAddr,
        /// What the metadata service said.
        hint: String,
    },
    /// `sources = "auto"` without an answer.
    #[error(
        "[nat] sources: auto needs the VPC's CIDRs, and neither the metadata service nor [vpc] cidrs gives any; set sources, for example [\"10.0.0.0/16\"]"
    )]
    NoSources,
    /// No way out to translate on.
    #[error(
        "[nat] egress_interface: auto needs a default route in the main table, and there is none; set egress_interface"
    )]
    NoEgressInterface,
    /// More incoming interfaces than priorities.
    #[error(
        "[nat] sources are reached through {count} interfaces; at most {most} are supported; set sources to fewer networks"
    )]
    TooManyInputs {
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// The state that a pass brings about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DesiredState {
    /// Our routes, sorted by key.
    pub routes: Vec<Route>,
    /// Our rules.
    pub rules: Vec<Rule>,
    /// Our firewall policy; `None` for none at all.
    pub firewall: Option<Ruleset>,
    /// Sysctls that the settings tell us to write.
    pub sysctls: Vec<SysctlSetting>,
    /// Families whose bypass routes stay as they are, whatever they are: there is no gateway or
    /// no document to say better.
    pub frozen: PerFamily<bool>,
    /// The paths as resolved, for `verify` and `explain`.
    pub paths: PerFamily<Paths>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// The two paths of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// The bypass path; `None` where the family has none.
    pub bypass: Option<Via>,
    /// The egress path.
    pub egress: EgressPath,
    /// NAT role: where the packets of our sources come in.
    pub inputs: Vec<InputPath>,
}

/// The egress path of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EgressPath {
    /// The main table's default: ours isn't configured.
    #[default]
    Main,
    /// Through these gateways.
    Gateways(Vec<IpAddr>),
    /// Nothing leaves.
    Closed,
}

/// Packets of one source network on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPath {
    /// The interface.
    pub device: String,
    /// The network.
    pub source: IpNet,
}

/// Computes the desired state.
///
/// # Errors
/// When the host doesn't fit the settings; nothing may be changed then.
pub fn desired(inputs: &Inputs) -> Result<DesiredState, DesiredError> {
    let mut state = DesiredState::default();
    for family in Family::ALL {
        if *inputs.available.get(family) {
            bypass_routes(inputs, family, &mut state)?;
        }
    }
    match inputs.role {
        Role::Host => host::complete(inputs, &mut state)?,
        Role::Nat => nat::complete(inputs, &mut state)?,
    }
    state.sysctls = sysctl::settings(inputs, &state);
    state.routes.sort();
    state.rules.sort();
    Ok(state)
}

/// The metric of our routes: the best for IPv4, so that no foreign route of the same prefix can
/// come before ours; the kernel's default for IPv6, which has no 0 (`IP6_RT_PRIO_USER`,
/// include/net/ip6_fib.h).
pub fn metric(family: Family) -> Metric {
    match family {
        Family::Ipv4 => Metric(0),
        Family::Ipv6 => Metric(1024),
    }
}

/// The worst metric there is: the fallback below every other default.
pub const WORST_METRIC: Metric = Metric(u32::MAX);

fn bypass_routes(
    inputs: &Inputs,
    family: Family,
    state: &mut DesiredState,
) -> Result<(), DesiredError> {
    if !inputs.config.select.families.contains(&family) {
        return Ok(());
    }
    let Some(via) = gateway::bypass(inputs, family, &mut state.notes)? else {
        *state.frozen.get_mut(family) = true;
        return Ok(());
    };
    state.paths.get_mut(family).bypass = Some(via);
    let Some(prefixes) = inputs.prefixes else {
        *state.frozen.get_mut(family) = true;
        return Ok(());
    };
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
            target: RouteTarget::Via(via),
            realm: Realm(0),
            protocol: numbers.protocol,
        }));
    Ok(())
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
        protocol: numbers.protocol,
    }
}

/// Places of our rules in the range; the gaps are for the rules of pinned flows and for the
/// administrator, who may want one of his between ours.
mod place {
    /// Flows opened from outside skip the rest.
    pub const INBOUND: u32 = 0;
    /// The main table without its default.
    pub const MAIN: u32 = 10;
    /// The bypass table.
    pub const BYPASS: u32 = 20;
    /// The egress table.
    pub const EGRESS: u32 = 30;
    /// Rules of one kind, one an incoming interface.
    pub const MOST: usize = 10;
}

/// A rule of ours without selectors.
fn rule(numbers: &Numbers, family: Family, place: u32, action: RuleAction) -> Rule {
    Rule {
        family,
        priority: Priority(numbers.priority.0 + place),
        iif: None,
        mark: None,
        foreign_selectors: Vec::new(),
        action,
        protocol: numbers.protocol,
    }
}

/// The main table without its default: connected networks and the administrator's routes win.
fn main_without_default() -> RuleAction {
    RuleAction::Lookup {
        table: TableId::MAIN,
        suppress_prefixlength: Some(0),
    }
}

fn lookup(table: TableId) -> RuleAction {
    RuleAction::Lookup {
        table,
        suppress_prefixlength: None,
    }
}

/// The landing place behind our rules.
fn landing(numbers: &Numbers, family: Family) -> Rule {
    rule(
        numbers,
        family,
        numbers.landing().0 - numbers.priority.0,
        RuleAction::Nop,
    )
}

/// Sorted, without prefixes that another one covers.
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
