//! The kernel's own word about an address.

use std::net::IpAddr;

use crate::desired::DesiredState;
use crate::kernel::Kernel;
use crate::kernel::lookup::{Decision, Lookup, lookup};
use crate::kernel::netlink::NetlinkError;
use crate::objects::RouteTarget;
use crate::reconcile::View;
use crate::types::{Family, TableId};
use crate::verify::{Agreement, Expected, UNREACHABLE, compare, forwarded, forwarding};

/// What it says of one kind of packet.
#[derive(Debug)]
pub(super) struct Answer {
    /// Source and incoming interface of a forwarded packet; `None` for the host's own.
    pub from: Option<(Option<IpAddr>, String)>,
    /// Its decision; `None` where it wasn't worth asking.
    pub decision: Option<Decision>,
    /// Device name of the decision.
    pub device: Option<String>,
    /// Whether it is what was expected.
    pub agreement: Agreement,
    /// Why not, where there is more to say than that.
    pub reason: Option<String>,
}

/// Asks, in the nat role once an input path.
pub(super) fn ask(
    view: &View,
    desired: &DesiredState,
    expected: &Expected,
    address: IpAddr,
    kernel: &mut Kernel,
) -> Result<Vec<Answer>, NetlinkError> {
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
        let silent = |reason: String| Answer {
            from: Some(from.clone()),
            decision: None,
            device: None,
            agreement: Agreement::No,
            reason: Some(reason),
        };
        if forwarding(&view.facts, family) == Some(false) {
            answers.push(silent(format!(
                "{family} forwarding is off, so no packet of a host takes any path: switch it on, or let [kernel] manage = [\"ip_forward\"] do it"
            )));
            continue;
        }
        let Some(question) = question else {
            answers.push(silent(format!(
                "no address of {} to ask with: the interface has gone, or all of it is this host's",
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
) -> Answer {
    let own = view.facts.is_own(address);
    let local = matches!(&decision, Decision::Route(route) if route.key.table == TableId::LOCAL);
    let agreement = match own {
        true if local => Agreement::Yes,
        _ => compare(&view.ownership, expected, &decision),
    };
    let reason = match (&decision, &agreement) {
        (_, Agreement::Foreign(what)) => Some(what.clone()),
        (Decision::Errno(errno), Agreement::No)
            if from.is_some() && !UNREACHABLE.contains(errno) =>
        {
            Some("it refuses the packet's source: see rp_filter and the route back".to_owned())
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
    Answer {
        from,
        decision: Some(decision),
        device,
        agreement,
        reason,
    }
}
