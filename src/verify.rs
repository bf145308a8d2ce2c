//! Verifies a pass: the kernel's routing decisions must equal those of the desired state. (The caller
//! also checks that a second plan is empty.)

use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::{DesiredState, EgressPath, InputPath, special};
use crate::facts::HostFacts;
use crate::kernel::Kernel;
use crate::kernel::lookup::{Decision, Lookup, lookup};
use crate::kernel::netlink::NetlinkError;
use crate::objects::{Route, RouteTarget, Via};
use crate::ownership::{Numbers, Ownership};
use crate::plan::Step;
use crate::types::{Family, TableId};

/// The maximal number of look-ups in a pass: all changed prefixes, or a sample of more.
const SAMPLES: usize = 256;
/// `EHOSTUNREACH` and `ENETUNREACH`: the answers of an `unreachable` route to applications.
pub const UNREACHABLE: [i32; 2] = [113, 101];

/// The expected routing decision for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The bypass table's route of this prefix.
    Bypass(IpNet),
    Egress,
    Closed,
    Main,
}

/// The routing decision for an address by the desired state.
pub fn expected(
    desired: &DesiredState,
    numbers: &Numbers,
    vpc_cidrs: &[IpNet],
    address: IpAddr,
) -> Expected {
    let family = Family::of(address);
    let paths = desired.paths.get(family);
    if paths.bypass.is_some()
        && let Some(prefix) = bypass_prefix(&desired.routes, numbers.bypass_table, address)
    {
        return Expected::Bypass(prefix);
    }
    if special::thrown(family, vpc_cidrs)
        .iter()
        .any(|prefix| prefix.contains(&address))
    {
        return Expected::Main;
    }
    match paths.egress {
        EgressPath::Main => Expected::Main,
        EgressPath::Gateways(_) => Expected::Egress,
        EgressPath::Closed => Expected::Closed,
    }
}

/// The prefix that contains the address, among the sorted, disjoint routes of the table.
fn bypass_prefix(routes: &[Route], table: TableId, address: IpAddr) -> Option<IpNet> {
    let after =
        routes.partition_point(|route| (route.key.table, route.key.dst.addr()) <= (table, address));
    routes[..after]
        .last()
        .filter(|route| route.key.table == table && route.key.dst.contains(&address))
        .map(|route| route.key.dst)
}

/// The findings of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    pub mismatches: Vec<String>,
    /// Facts beyond our control.
    pub notes: Vec<String>,
}

/// The state to compare the kernel with.
pub struct Promise<'a> {
    pub desired: &'a DesiredState,
    pub facts: &'a HostFacts,
    pub ownership: &'a Ownership,
    pub vpc_cidrs: &'a [IpNet],
}

/// Asks the kernel for the route to one address in each changed prefix, and to one address like a
/// partner's. `steps` are those of all attempts, since an earlier attempt may have changed a prefix
/// that the last attempt did not.
pub fn ask_kernel<'a>(
    promise: &Promise,
    steps: impl Iterator<Item = &'a Step>,
    kernel: &mut Kernel,
) -> Result<Findings, NetlinkError> {
    let mut findings = Findings::default();
    let mut addresses: Vec<IpAddr> = sample(changed(steps, promise.ownership))
        .map(inside)
        .collect();
    addresses.extend(
        Family::ALL
            .into_iter()
            .filter_map(|family| partner_like(promise, family)),
    );
    for address in addresses {
        ask_about(promise, address, kernel, &mut findings)?;
    }
    findings.notes.sort();
    findings.notes.dedup();
    Ok(findings)
}

fn changed<'a>(steps: impl Iterator<Item = &'a Step>, ownership: &Ownership) -> Vec<IpNet> {
    steps
        .filter_map(|step| match step {
            Step::Route { route, .. } if ownership.is_bypass_table(route.key.table) => {
                Some(route.key.dst)
            }
            _ => None,
        })
        .collect()
}

/// The whole list, or an evenly spread sample of a long list.
fn sample(all: Vec<IpNet>) -> impl Iterator<Item = IpNet> {
    let step = all.len().div_ceil(SAMPLES).max(1);
    all.into_iter().step_by(step)
}

/// The second address of a prefix, since the first may be special; the only address of a host prefix.
fn inside(prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(v4) if v4.prefix_len() < 32 => {
            IpAddr::V4(std::net::Ipv4Addr::from_bits(v4.network().to_bits() | 1))
        }
        IpNet::V6(v6) if v6.prefix_len() < 128 => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.network().to_bits() | 1))
        }
        single => single.addr(),
    }
}

/// An address like a partner's: in no bypass prefix, and with no route in the main table but a
/// default. Taken from the documentation blocks (RFC 5737, RFC 3849).
fn partner_like(promise: &Promise, family: Family) -> Option<IpAddr> {
    let candidates: &[&str] = match family {
        Family::Ipv4 => &["203.0.113.1", "192.0.2.1", "198.51.100.1"],
        Family::Ipv6 => &["2001:db8::1", "2001:db8:ffff::1"],
    };
    let numbers = &promise.ownership.current;
    candidates
        .iter()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .find(|address| {
            let led = promise
                .facts
                .main_lookup(*address)
                .is_some_and(|route| !Family::is_default(&route.dst));
            !led && !matches!(
                expected(promise.desired, numbers, promise.vpc_cidrs, *address),
                Expected::Bypass(_) | Expected::Main
            )
        })
}

fn ask_about(
    promise: &Promise,
    address: IpAddr,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<(), NetlinkError> {
    let family = Family::of(address);
    let paths = promise.desired.paths.get(family);
    if *promise.desired.frozen.get(family) {
        return Ok(());
    }
    let numbers = &promise.ownership.current;
    let expectation = expected(promise.desired, numbers, promise.vpc_cidrs, address);
    if paths.inputs.is_empty() {
        let question = Lookup {
            destination: address,
            source: None,
            input: None,
            mark: 0,
        };
        let decision = lookup(kernel.socket(), &question)?;
        judge(promise, address, "", &expectation, &decision, findings);
        return Ok(());
    }
    if forwarding(promise.facts, family) == Some(false) {
        findings.notes.push(format!(
            "{family}: forwarding is off, so no forwarded packet takes either path: enable forwarding, or set [kernel] manage = [\"ip_forward\"]"
        ));
        return Ok(());
    }
    for path in &paths.inputs {
        let Some(question) = forwarded(promise.facts, path, address) else {
            continue;
        };
        let from = question
            .source
            .map(|source| format!(" from {source} on {}", path.device))
            .unwrap_or_default();
        match lookup(kernel.socket(), &question)? {
            // The kernel refuses the source address (rp_filter, no route back): not caused by us.
            Decision::Errno(errno) if !UNREACHABLE.contains(&errno) => {
                findings.notes.push(format!(
                    "the kernel refuses packets{from}: {}; see rp_filter and the route back",
                    std::io::Error::from_raw_os_error(errno)
                ))
            }
            decision => judge(promise, address, &from, &expectation, &decision, findings),
        }
    }
    Ok(())
}

/// True if the kernel forwards packets of a family; `None` if unknown.
pub fn forwarding(facts: &HostFacts, family: Family) -> Option<bool> {
    let path = match family {
        Family::Ipv4 => "net/ipv4/ip_forward",
        Family::Ipv6 => "net/ipv6/conf/all/forwarding",
    };
    facts.sysctls.values.get(path).map(|value| value != "0")
}

/// The look-up for a packet from one of our sources.
pub fn forwarded(facts: &HostFacts, path: &InputPath, destination: IpAddr) -> Option<Lookup> {
    let device = facts.link_named(&path.device)?.index;
    // An address in a connected part of the source network passes the reverse path check.
    let network = facts
        .main_routes
        .iter()
        .filter(|route| route.device == Some(device) && route.gateway.is_none())
        .map(|route| route.dst)
        .find(|dst| path.source.contains(dst))
        .unwrap_or(path.source);
    let source = first_hosts(network).find(|candidate| !facts.is_own(*candidate))?;
    Some(Lookup {
        destination,
        source: Some(source),
        input: Some(device),
        mark: 0,
    })
}

/// Some host addresses from the middle of a network: the ends are routers and broadcasts.
fn first_hosts(network: IpNet) -> impl Iterator<Item = IpAddr> {
    (0..64u128)
        .map(move |offset| match network {
            IpNet::V4(v4) => {
                let half = (1u64 << (32 - v4.prefix_len())) / 2;
                IpAddr::V4(std::net::Ipv4Addr::from_bits(
                    v4.network()
                        .to_bits()
                        .wrapping_add((half + offset as u64) as u32),
                ))
            }
            IpNet::V6(v6) => IpAddr::V6(std::net::Ipv6Addr::from_bits(
                v6.network().to_bits().wrapping_add(0xffff + offset),
            )),
        })
        .filter(move |address| network.contains(address))
}

/// Compares the expectation with the decision.
fn judge(
    promise: &Promise,
    address: IpAddr,
    from: &str,
    expectation: &Expected,
    decision: &Decision,
    findings: &mut Findings,
) {
    match compare(promise.ownership, expectation, decision) {
        Agreement::Yes => {}
        Agreement::Foreign(what) => findings.notes.push(format!("{address}{from}: {what}")),
        Agreement::No => findings.mismatches.push(format!(
            "{address}{from}: expected {}, but the kernel chose {}",
            promised_text(expectation, &promise.ownership.current),
            decision_text(decision, promise.facts)
        )),
    }
}

/// The result of comparing an expectation with the kernel's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    Yes,
    /// A foreign route takes precedence: reported, not repaired.
    Foreign(String),
    No,
}

/// Compares an expectation with the kernel's decision.
pub fn compare(ownership: &Ownership, expectation: &Expected, decision: &Decision) -> Agreement {
    let numbers = &ownership.current;
    let route = match decision {
        Decision::Errno(errno) => {
            let closed = *expectation == Expected::Closed && UNREACHABLE.contains(errno);
            // The main table also refuses an address without a route.
            let nowhere = *expectation == Expected::Main && UNREACHABLE.contains(errno);
            return if closed || nowhere {
                Agreement::Yes
            } else {
                Agreement::No
            };
        }
        Decision::Route(route) => route,
    };
    let ours = route.protocol == numbers.protocol;
    let agrees = match expectation {
        Expected::Bypass(prefix) => {
            ours && route.key.table == numbers.bypass_table && route.key.dst == *prefix
        }
        Expected::Egress => {
            ours && route.key.table == numbers.egress_table && route.key.dst.prefix_len() == 0
        }
        Expected::Closed => false,
        Expected::Main => {
            route.key.table != numbers.bypass_table && route.key.table != numbers.egress_table
        }
    };
    if agrees {
        return Agreement::Yes;
    }
    let specific_main = route.key.table == TableId::MAIN && route.key.dst.prefix_len() > 0;
    let local = route.key.table == TableId::LOCAL;
    let foreign_in_ours = !ours
        && (route.key.table == numbers.bypass_table || route.key.table == numbers.egress_table);
    let elsewhere =
        ![TableId::MAIN, numbers.bypass_table, numbers.egress_table].contains(&route.key.table);
    if specific_main || local || foreign_in_ours || elsewhere {
        return Agreement::Foreign(format!(
            "foreign route {} in table {} (protocol {}) takes precedence",
            route.key.dst, route.key.table, route.protocol
        ));
    }
    Agreement::No
}

/// An expectation in words.
pub fn promised_text(expectation: &Expected, numbers: &Numbers) -> String {
    match expectation {
        Expected::Bypass(prefix) => format!("{prefix} in table {} (bypass)", numbers.bypass_table),
        Expected::Egress => format!("the default of table {} (egress)", numbers.egress_table),
        Expected::Closed => "unreachable (egress closed)".to_owned(),
        Expected::Main => "the main table".to_owned(),
    }
}

/// A decision in words.
pub fn decision_text(decision: &Decision, facts: &HostFacts) -> String {
    let hop = |via: &Via| {
        let gateway = via.gateway.map(|gateway| format!(" via {gateway}"));
        let device = facts.device_name(via.device);
        format!("{} dev {device}", gateway.unwrap_or_default())
    };
    match decision {
        Decision::Errno(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        Decision::Route(route) => {
            let via = match &route.target {
                RouteTarget::Via(via) => hop(via),
                RouteTarget::Multipath(legs) => {
                    let legs = legs.iter().map(|leg| hop(&leg.via));
                    legs.collect::<Vec<_>>().join(" or")
                }
                RouteTarget::Nexthop(id) => format!(" nhid {id}"),
                _ => String::new(),
            };
            format!(
                "{}{via} (table {}, protocol {})",
                route.key.dst, route.key.table, route.protocol
            )
        }
    }
}
