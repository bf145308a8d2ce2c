//! The kernel's routing decision for the address.

use std::net::IpAddr;

use crate::desired::DesiredState;
use crate::kernel::Kernel;
use crate::kernel::lookup::{Decision, Lookup, lookup};
use crate::kernel::netlink::NetlinkError;
use crate::objects::RouteTarget;
use crate::reconcile::View;
use crate::types::{Family, TableId};
use crate::verify::{Agreement, Expected, UNREACHABLE, compare, forwarded, forwarding};

/// The decision for one kind of packet.
#[derive(Debug)]
pub(super) struct KernelAnswer {
    /// Source and incoming interface of a forwarded packet; `None` for the host's own.
    pub from: Option<(Option<IpAddr>, String)>,
    /// `None` if the kernel was not asked.
    pub decision: Option<Decision>,
    pub device: Option<String>,
    pub agreement: Agreement,
    /// The reason of a disagreement, if known.
    pub reason: Option<String>,
}

/// Asks the kernel; in the nat role once per input interface.
pub(super) fn ask(
    view: &View,
    desired: &DesiredState,
    expected: &Expected,
    address: IpAddr,
    kernel: &mut Kernel,
) -> Result<Vec<KernelAnswer>, NetlinkError> {
    let family = Family::of(address);
    let inputs = &desired.paths.get(family).inputs;
    if inputs.is_empty() || view.facts.is_own(address) {
        let question = Lookup {
            destination: address,
            source: None,
            input: None,
            mark: 0,
        };
        let decision = lookup(kernel.socket(), &question)?;
        return Ok(vec![judge(view, expected, address, None, decision)]);
    }
    let mut answers = Vec::new();
    for input in inputs {
        let question = forwarded(&view.facts, input, address);
        let from = (
            question.as_ref().and_then(|question| question.source),
            input.device.clone(),
        );
        let silent = |reason: String| KernelAnswer {
            from: Some(from.clone()),
            decision: None,
            device: None,
            agreement: Agreement::No,
            reason: Some(reason),
        };
        if forwarding(&view.facts, family) == Some(false) {
            answers.push(silent(format!(
                "{family} forwarding is off, so the kernel forwards no packet: enable it, or set [kernel] manage = [\"ip_forward\"]"
            )));
            continue;
        }
        let Some(question) = question else {
            answers.push(silent(format!(
                "no source address of {} available for the lookup: the interface is missing, or this host owns all of its addresses",
                input.source
            )));
            continue;
        };
        let decision = lookup(kernel.socket(), &question)?;
        answers.push(judge(view, expected, address, Some(from), decision));
    }
    Ok(answers)
}

fn judge(
    view: &View,
    expected: &Expected,
    address: IpAddr,
    from: Option<(Option<IpAddr>, String)>,
    decision: Decision,
) -> KernelAnswer {
    let own = view.facts.is_own(address);
    let local = matches!(&decision, Decision::Route(route) if route.key.table == TableId::LOCAL);
    let agreement = if own && local {
        Agreement::Yes
    } else {
        compare(&view.ownership, expected, &decision)
    };
    let reason = match (&decision, &agreement) {
        (_, Agreement::Foreign(what)) => Some(what.clone()),
        (Decision::Errno(errno), Agreement::No)
            if from.is_some() && !UNREACHABLE.contains(errno) =>
        {
            Some(
                "the kernel rejects the packet's source: check rp_filter and the route back"
                    .to_owned(),
            )
        }
        _ => None,
    };
    let device = match &decision {
        Decision::Route(route) => match &route.target {
            RouteTarget::Via(via) => Some(view.facts.device_name(via.device)),
            _ => None,
        },
        Decision::Errno(_) => None,
    };
    KernelAnswer {
        from,
        decision: Some(decision),
        device,
        agreement,
        reason,
    }
}
