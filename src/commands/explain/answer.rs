//! The kernel's routing decision for the address.

use std::net::IpAddr;

use crate::judge::{
    Agreement, Expected, Lookup, Promise, Question, RouteDecision, agreement, forwarded, marked,
    siblings, switched_off,
};
use crate::kernel::Kernel;
use crate::kernel::lookup::{chosen_source, lookup};
use crate::kernel::netlink::NetlinkError;
use crate::objects::RouteTarget;
use crate::reconcile::View;
use crate::types::{Family, TableId};

#[derive(Debug)]
pub(super) struct KernelAnswer {
    /// Source and incoming interface of a forwarded packet, or the source of a socket; `None` for
    /// a socket without an address.
    pub from: Option<(Option<IpAddr>, Option<String>)>,
    /// `None` if the kernel was not asked.
    pub decision: Option<RouteDecision>,
    pub device: Option<String>,
    pub agreement: Agreement,
    pub reason: Option<String>,
}

/// True for packets that stay on this host.
pub(super) fn is_here(view: &View, address: IpAddr) -> bool {
    view.facts.is_own(address) || address.is_loopback()
}

/// Asks the kernel; in the nat role once per input interface. Of the packets that foreign rules and
/// chains tell apart, the first with another path is shown too.
pub(super) fn ask(
    view: &View,
    promise: &Promise<'_>,
    expected: &Expected,
    address: IpAddr,
    kernel: &mut Kernel,
) -> Result<Vec<KernelAnswer>, NetlinkError> {
    let family = Family::of(address);
    let inputs = &promise.desired.paths.get(family).inputs;
    if inputs.is_empty() || is_here(view, address) {
        return from_sockets(view, promise, expected, address, kernel);
    }
    let mut answers = Vec::new();
    for input in inputs {
        let question = forwarded(&view.facts, input, address);
        let from = (
            question.as_ref().and_then(|question| question.source),
            Some(input.device.clone()),
        );
        let silent = |reason: String| KernelAnswer {
            from: Some(from.clone()),
            decision: None,
            device: None,
            agreement: Agreement::No,
            reason: Some(reason),
        };
        if let Some(off) = switched_off(&view.facts, family, &input.device) {
            answers.push(silent(off.fault_and_remedy()));
            continue;
        }
        let Some(question) = question else {
            answers.push(silent(format!(
                "no source address of {} available for the lookup: the interface is missing, or this host owns all of its addresses",
                input.source
            )));
            continue;
        };
        answers.extend(ask_about(view, promise, expected, &question, kernel)?);
    }
    Ok(answers)
}

/// A socket without an address, and one with the address that the kernel chooses: the kernel routes
/// a TCP connection again after the choice. The second answer is shown if only that one differs.
fn from_sockets(
    view: &View,
    promise: &Promise<'_>,
    expected: &Expected,
    address: IpAddr,
    kernel: &mut Kernel,
) -> Result<Vec<KernelAnswer>, NetlinkError> {
    let question = Lookup::from_socket(address);
    let mut answers = ask_about(view, promise, expected, &question, kernel)?;
    if answers
        .iter()
        .all(|answer| answer.agreement == Agreement::Yes)
        && !is_here(view, address)
        && let Some(source) = chosen_source(kernel.socket(), address)?
    {
        let bound = Lookup {
            source: Some(source),
            ..question
        };
        let of_bound = ask_about(view, promise, expected, &bound, kernel)?.into_iter();
        answers.extend(of_bound.filter(|answer| answer.agreement != Agreement::Yes));
    }
    Ok(answers)
}

/// The answer about a packet, and the first other one about its siblings.
fn ask_about(
    view: &View,
    promise: &Promise<'_>,
    expected: &Expected,
    packet: &Lookup,
    kernel: &mut Kernel,
) -> Result<Vec<KernelAnswer>, NetlinkError> {
    let mut answers: Vec<KernelAnswer> = Vec::new();
    for packet in siblings(promise, packet) {
        let question = Question {
            expected: expected.clone(),
            ..Question::about(promise, packet)
        };
        for question in marked(promise, question) {
            let decision = lookup(kernel.socket(), &question.lookup)?;
            let answer = judge(view, promise, &question, decision);
            let first = answers.is_empty();
            let wrong = answer.agreement != Agreement::Yes;
            if wrong && !first {
                answers.push(answer);
                return Ok(answers);
            }
            answers.extend(first.then_some(answer));
            if wrong {
                return Ok(answers);
            }
        }
    }
    Ok(answers)
}

fn judge(
    view: &View,
    promise: &Promise<'_>,
    question: &Question,
    decision: RouteDecision,
) -> KernelAnswer {
    let lookup = &question.lookup;
    let own = is_here(view, lookup.destination);
    let local =
        matches!(&decision, RouteDecision::Route(route) if route.key.table == TableId::LOCAL);
    let agreement = match agreement(promise, question, &decision) {
        _ if own && local => Agreement::Yes,
        // The judge names the doubt.
        Agreement::PerhapsDefeated { .. } => Agreement::Yes,
        found => found,
    };
    let reason = match &agreement {
        Agreement::Foreign(what) => Some(what.to_string()),
        Agreement::Defeated { reason, advice } if advice.is_empty() => Some(reason.clone()),
        Agreement::Defeated { reason, advice } => Some(format!("{reason}; {advice}")),
        Agreement::Yes | Agreement::PerhapsDefeated { .. } | Agreement::No => None,
    };
    let device = match &decision {
        RouteDecision::Route(route) => match &route.target {
            RouteTarget::Via(via) => Some(view.facts.device_name(via.device)),
            _ => None,
        },
        RouteDecision::Errno(_) => None,
    };
    let input = lookup.input.map(|index| view.facts.device_name(index));
    let from = (lookup.source.is_some() || input.is_some()).then_some((lookup.source, input));
    KernelAnswer {
        from,
        decision: Some(decision),
        device,
        agreement,
        reason,
    }
}
