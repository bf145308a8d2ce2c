//! The kernel's answers about changed prefixes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::judge::{Lookup, Promise, Question, RouteDecision, forwarded, inside};
use crate::kernel::Kernel;
use crate::kernel::lookup::lookup;
use crate::kernel::netlink::NetlinkError;
use crate::objects::{Route, RouteKey};
use crate::plan::{Action, Step};
use crate::types::Family;

/// The number of routes for each look-up from which on look-ups are worthwhile: a look-up is a message
/// with two system calls of its own, a dump packs hundreds of routes into one message.
const ROUTES_FOR_A_LOOKUP: usize = 8;

/// The least bypass table for which look-ups are worthwhile.
const SMALL: usize = 256;

/// The questions about one prefix: from a socket, or a packet of each input interface.
pub(super) fn about(promise: &Promise<'_>, prefix: IpNet) -> Vec<Question> {
    let address = inside(prefix);
    let family = Family::of(address);
    if *promise.desired.frozen.get(family) {
        return Vec::new();
    }
    let inputs = &promise.desired.paths.get(family).inputs;
    let lookups: Vec<Lookup> = if inputs.is_empty() {
        vec![Lookup::from_socket(address)]
    } else {
        let forwarded = |input| forwarded(promise.facts, input, address);
        inputs.iter().filter_map(forwarded).collect()
    };
    let about = |lookup| Question::about(promise, lookup);
    lookups.into_iter().map(about).collect()
}

/// The routes of the bypass table after `steps`, which were all carried out: `before`, the table as
/// read before the steps, and the kernel's answer about each changed route.
///
/// A netlink request for the route of one key and table does not exist. A look-up passes the policy
/// rules and answers with the route that decides, table, prefix and protocol included. Only an
/// answer that proves the presence or the absence of the changed route counts.
///
/// Returns `None` if the table must be read: many changes, another answer, or no rule that leads
/// packets to the table.
///
/// # Errors
/// The kernel gives no answer.
pub fn bypass_routes_after(
    promise: &Promise<'_>,
    steps: &[Step],
    before: &[Route],
    kernel: &mut Kernel,
) -> Result<Option<Vec<Route>>, NetlinkError> {
    let table = promise.numbers().bypass_table;
    let of_table = || before.iter().filter(|route| route.key.table == table);
    let mut changed = Vec::new();
    for step in steps {
        if let Step::Route { action, route, .. } = step
            && route.key.table == table
        {
            changed.push((*action, route));
        }
    }
    let present = of_table().count();
    if present < SMALL || changed.len() * ROUTES_FOR_A_LOOKUP > present {
        return Ok(None);
    }
    for (action, route) in &changed {
        let Some(question) = about(promise, route.key.dst).into_iter().next() else {
            return Ok(None);
        };
        let decision = lookup(kernel.socket(), &question.lookup)?;
        let proven = match (action, &decision) {
            (Action::Delete, RouteDecision::Route(found)) => proves_absence(promise, route, found),
            (_, RouteDecision::Route(found)) => found == *route,
            (_, RouteDecision::Errno(_)) => false,
        };
        if !proven {
            return Ok(None);
        }
    }
    let keys: BTreeSet<RouteKey> = changed.iter().map(|(_, route)| route.key).collect();
    let kept = of_table().filter(|route| !keys.contains(&route.key));
    let put = changed
        .iter()
        .filter(|(action, _)| *action != Action::Delete);
    let put = put.map(|(_, route)| *route);
    Ok(Some(kept.chain(put).cloned().collect()))
}

/// True if the kernel could not have answered with `found` while the route `gone` was there: a rule
/// leads to the bypass table, and the answer is a wider route of that table, or comes from the
/// egress table behind.
fn proves_absence(promise: &Promise<'_>, gone: &Route, found: &Route) -> bool {
    let numbers = promise.numbers();
    let family = gone.key.family();
    let mut rules = promise.desired.rules.iter();
    let looked_up = rules
        .any(|rule| rule.family == family && rule.leads_to(|table| table == numbers.bypass_table));
    let wider = found.key.dst.prefix_len() < gone.key.dst.prefix_len();
    let after = [numbers.bypass_table, numbers.egress_table].contains(&found.key.table);
    looked_up && wider && after
}
