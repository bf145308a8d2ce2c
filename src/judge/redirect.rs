//! Next hops from ICMP redirects.
//!
//! A NAT with one interface that forwards a packet without translation tells the host a shorter way:
//! the VPC router. The host then sends packets for that partner past the NAT until 300 seconds after
//! the last redirect (`__ip_do_redirect`, net/ipv4/route.c), and the route of our table still looks
//! right.

use super::expected::{Expected, Promise};
use super::packet::Redirect;
use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
use crate::types::Family;

/// Bound of the destinations named.
const NAMED: usize = 3;

/// The redirects that lead packets to partners past the egress gateways (host role).
pub fn judge_redirects(promise: &Promise<'_>, redirects: &[Redirect]) -> Vec<Degradation> {
    let past_us = |redirect: &&Redirect| {
        let family = Family::of(redirect.destination);
        let EgressPath::Gateways(gateways) = &promise.desired.paths.get(family).egress else {
            return false;
        };
        promise.expected(redirect.destination) == Expected::Egress
            && !gateways.contains(&redirect.gateway)
    };
    let found = redirects.iter().filter(past_us).take(NAMED);
    found.map(defeat).collect()
}

fn defeat(redirect: &Redirect) -> Degradation {
    let Redirect {
        destination,
        gateway,
    } = redirect;
    let reason = format!(
        "an ICMP redirect leads packets to {destination} to {gateway}, past the egress gateway"
    );
    Degradation::new(Part::Egress, Family::of(*destination), reason).with_advice(
        "set [kernel] manage = [\"accept_redirects\"] here and net.ipv4.conf.*.send_redirects = 0 on the NAT; the kernel forgets a redirect after 300 seconds",
    )
}
