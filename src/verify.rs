//! Asks the kernel, and lets the judge compare its answers with the promise.
//!
//! The questions are few, so that every pass asks, also one without a change. After a change, the
//! changed prefixes are asked about too.

mod changed;

use ipnet::IpNet;

use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
use crate::judge::chain::BaseChain;
use crate::judge::{
    Gateways, Promise, Question, Redirect, RouteDecision, Verdicts, answers, doubt_about,
    gateways_of, incoming, judge, judge_answer, judge_incoming, judge_redirects, marked,
    ordinary_partner, questions, silent, unverified,
};
use crate::kernel::Kernel;
use crate::kernel::lookup::{chosen_source, lookup};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::privilege::has_net_admin;
use crate::kernel::{neighbour, redirects, traffic_control};
use crate::ownership::Ownership;
use crate::plan::Step;
use crate::types::{Family, PerFamily};
use changed::about;
pub use changed::bypass_routes_after;

/// Bound of the look-ups for changed prefixes: all changes up to here, a sample above.
const SAMPLES: usize = 256;

/// The answers to a few questions.
struct Answers {
    /// The addresses that the kernel chooses for sockets without one.
    own: PerFamily<Option<std::net::IpAddr>>,
    decisions: Vec<(Question, RouteDecision)>,
}

/// The verdicts about the present state.
///
/// # Errors
/// The kernel gives no answer.
pub fn judge_kernel(promise: &Promise<'_>, kernel: &mut Kernel) -> Result<Verdicts, NetlinkError> {
    Ok(judge_with_chains(promise, kernel)?.0)
}

/// The same, with the foreign chains that were read: none if they are unknown.
///
/// # Errors
/// The kernel gives no answer.
pub fn judge_with_chains(
    promise: &Promise<'_>,
    kernel: &mut Kernel,
) -> Result<(Verdicts, Vec<BaseChain>), NetlinkError> {
    let (chains, unread) = foreign_chains(promise, kernel);
    let promise = Promise {
        chains: &chains,
        ..*promise
    };
    let Answers { own, decisions } = ask(&promise, std::iter::empty(), kernel)?;
    let learned = learned_hops(&promise, kernel)?;
    let mut verdicts = judge(&promise, &own, &decisions);
    verdicts
        .degraded
        .extend(judge_redirects(&promise, &learned));
    let gateways = gateways_of(&promise);
    judge_gateways(&promise, &gateways, kernel, &mut verdicts)?;
    let devices: Vec<_> = gateways.into_keys().map(|it| it.1).collect();
    let filters = traffic_control::filters(kernel.socket(), &devices)?;
    let doubts = filters
        .iter()
        .map(|filter| doubt_about(promise.facts, filter));
    verdicts.doubts.extend(doubts);
    for packet in incoming(&promise) {
        let decision = lookup(kernel.socket(), &packet.lookup)?;
        let found = judge_incoming(&promise, &packet, &decision);
        verdicts.degraded.extend(found);
    }
    for answer in answers(&promise) {
        let decision = lookup(kernel.socket(), &answer.lookup)?;
        for found in judge_answer(&promise, &answer, &decision) {
            // The same fault stops the answers to the hosts of each network.
            if !verdicts.degraded.contains(&found) {
                verdicts.degraded.push(found);
            }
        }
    }
    verdicts.doubts.extend(unread);
    Ok((verdicts, chains))
}

/// The verdicts about the routing decisions alone, those about changed prefixes included. `steps`
/// are those of all attempts of a pass.
///
/// # Errors
/// The kernel gives no answer.
pub fn judge_routes<'a>(
    promise: &Promise<'_>,
    steps: impl Iterator<Item = &'a Step>,
    kernel: &mut Kernel,
) -> Result<Verdicts, NetlinkError> {
    let Answers { own, decisions } = ask(promise, steps, kernel)?;
    Ok(judge(promise, &own, &decisions))
}

fn ask<'a>(
    promise: &Promise<'_>,
    steps: impl Iterator<Item = &'a Step>,
    kernel: &mut Kernel,
) -> Result<Answers, NetlinkError> {
    let own = own_sources(promise, kernel)?;
    let mut asked = questions(promise, &own);
    let changed = sample(changed(steps, promise.ownership));
    asked.extend(changed.flat_map(|prefix| about(promise, prefix)));
    let mut decisions = Vec::with_capacity(asked.len());
    let asked = asked.into_iter();
    for question in asked.flat_map(|question| marked(promise, question)) {
        let decision = lookup(kernel.socket(), &question.lookup)?;
        decisions.push((question, decision));
    }
    Ok(Answers { own, decisions })
}

/// The next hops from ICMP redirects for packets to partners.
///
/// # Errors
/// The kernel refuses a dump.
pub fn learned_hops(
    promise: &Promise<'_>,
    kernel: &mut Kernel,
) -> Result<Vec<Redirect>, NetlinkError> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let egress = &promise.desired.paths.get(family).egress;
        if matches!(egress, EgressPath::Gateways(_)) {
            let table = promise.numbers().egress_table;
            found.append(&mut redirects::dump(kernel.socket(), family, table)?);
        }
    }
    Ok(found)
}

/// Adds the gateways that answer no address resolution, and those with a fixed entry: the kernel asks
/// nobody about them.
fn judge_gateways(
    promise: &Promise<'_>,
    gateways: &Gateways,
    kernel: &mut Kernel,
    verdicts: &mut Verdicts,
) -> Result<(), NetlinkError> {
    for (hop, parts) in gateways {
        let (address, device) = *hop;
        if neighbour::is_silent(kernel.socket(), address, device)? {
            for part in parts {
                verdicts.behind_the_route(silent(promise.facts, *hop, *part));
            }
        } else if let Some(link_address) = neighbour::permanent(kernel.socket(), address, device)? {
            for part in parts {
                let doubt = unverified(promise.facts, *hop, *part, &link_address);
                verdicts.doubts.push(doubt);
            }
        }
    }
    Ok(())
}

/// The addresses that the kernel chooses for sockets without one.
fn own_sources(
    promise: &Promise<'_>,
    kernel: &mut Kernel,
) -> Result<PerFamily<Option<std::net::IpAddr>>, NetlinkError> {
    let mut own = PerFamily::default();
    for family in Family::ALL {
        if promise.forwards(family) {
            continue;
        }
        if let Some(partner) = ordinary_partner(promise, family) {
            *own.get_mut(family) = chosen_source(kernel.socket(), partner)?;
        }
    }
    Ok(own)
}

/// The foreign chains in the way of forwarded packets, or of the host's own.
fn foreign_chains(
    promise: &Promise<'_>,
    kernel: &mut Kernel,
) -> (Vec<BaseChain>, Option<Degradation>) {
    let mut families = Family::ALL.into_iter();
    let forwards = families.any(|family| promise.forwards(family));
    match kernel.foreign_chains() {
        Ok(chains) => (chains, None),
        // A host without the privilege, or without nf_tables, is judged by its routes.
        Err(_) if !forwards && has_net_admin() != Some(true) => (Vec::new(), None),
        Err(error) => {
            let reason = format!("foreign firewall rules are unknown: {error}");
            (
                Vec::new(),
                Some(Degradation::new(Part::Forwarding, None, reason)),
            )
        }
    }
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

/// All of a short list, evenly spread ones of a long one.
fn sample(all: Vec<IpNet>) -> impl Iterator<Item = IpNet> {
    let step = all.len().div_ceil(SAMPLES).max(1);
    all.into_iter().step_by(step)
}
