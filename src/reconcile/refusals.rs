//! Parts of the firewall policy that the kernel refuses, as degradations.

use crate::config::Role;
use crate::degraded::{Degradation, Part};
use crate::firewall::{BackendKind, ObservedFirewall, Piece};
use crate::kernel::firewall::Refusals;
use crate::types::{Family, PerFamily};

const ADVICE: &str =
    "load the missing kernel module or install the missing program; every pass tries again";

/// The refused parts, except translations: the desired state closes their paths and names them.
pub(super) fn degradations(role: Role, refused: &Refusals) -> Vec<Degradation> {
    let named = refused.iter().filter_map(|((family, piece), words)| {
        let (part, effect) = match piece {
            Piece::All if role == Role::Nat => return None,
            Piece::All => (
                Part::Inbound,
                "no firewall rule is in; answers to flows opened from outside take the egress path",
            ),
            Piece::Inbound => (
                Part::Inbound,
                "no flow is marked; answers to flows opened from outside take the egress path",
            ),
            Piece::Clamp => (
                Part::Forwarding,
                "TCP segments are not limited; packets of hosts with jumbo frames may be lost",
            ),
            Piece::Last => (
                Part::Translation,
                "packets that another program translates are not dropped",
            ),
            Piece::Closed => (
                Part::Egress,
                "[egress] enforce is not in force: packets on neither path are not dropped",
            ),
            // The desired state goes without policies and names them.
            Piece::Switch => return None,
            Piece::Counting => (Part::Counting, "bytes are not counted by path"),
            Piece::Ended => (
                Part::Egress,
                "forwarded connections get no reset when their gateway is down, and stand still",
            ),
        };
        let reason = format!("{effect}: the firewall refuses the rules ({words})");
        Some(Degradation::new(part, *family, reason).with_advice(ADVICE))
    });
    named.collect()
}

/// The families without translation and guard, each with the reason. `read` is the state of the
/// firewall for our rules; `None` if no firewall can be used.
pub(super) fn unfiltered(
    backend: BackendKind,
    read: Option<&ObservedFirewall>,
    refused: &Refusals,
) -> PerFamily<Option<String>> {
    let whole = match read {
        Some(ObservedFirewall::Foreign(what)) => Some(what.clone()),
        Some(ObservedFirewall::Unavailable(why)) => Some(format!("{backend}: {why}")),
        _ => None,
    };
    let of_family = |family: Family| {
        let words = refused.get(&(family, Piece::All))?;
        Some(format!(
            "the firewall refuses the rules ({words}); {ADVICE}"
        ))
    };
    PerFamily::from_fn(|family| whole.clone().or_else(|| of_family(family)))
}
