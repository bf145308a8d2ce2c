//! Whether this kernel can carry our rules: for `backend = "auto"` and for `check`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::contact::{absence, contact, failed};
use super::{encode, transaction};
use crate::firewall::{Chain, FwRule, Hook, Match, ObservedFirewall, Path, Ruleset, Verdict};
use crate::kernel::firewall::error::FirewallError;
use crate::types::{Family, Mark};

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// nf_tables with everything that our rules ask of it.
    Available,
    /// No nf_tables here, or one that lacks something: the reason.
    Unavailable(String),
    /// The kernel doesn't say without CAP_NET_ADMIN: the reason.
    Unprivileged(String),
}

/// The first kernel that keeps a table's comment, our mark of ownership (commit 7a81575b806e).
const OLDEST: (u32, u32) = (5, 10);

/// Asks the kernel. Beyond "is there an nf_tables" it checks a transaction with every expression
/// that our rules may need, which is thrown away: kernels are built without some of them, and
/// modules may be missing. It changes nothing, but the kernel may load its modules for it.
///
/// # Errors
/// When the answer remains unknown.
pub fn probe() -> Result<Probe, FirewallError> {
    const OPERATION: &str = "look for nf_tables";
    let mut wire = match contact() {
        Ok(wire) => wire,
        Err(error) => {
            return match absence(&error) {
                Some(ObservedFirewall::Unavailable(reason)) => Ok(Probe::Unavailable(reason)),
                Some(ObservedFirewall::Unreadable(reason)) => Ok(Probe::Unprivileged(reason)),
                _ => Err(failed(OPERATION, error)),
            };
        }
    };
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if parse_release(&release).is_some_and(|version| version < OLDEST) {
        return Ok(Probe::Unavailable(format!(
            "Linux {release} keeps no comment on a table, the mark of ownership; {}.{} does",
            OLDEST.0, OLDEST.1
        )));
    }
    let mut table = encode::table(&everything())?;
    // Whatever lies in the kernel under our name, the check starts from nothing: nobody else uses
    // this name, and it is never committed.
    table.name = "trailblazer-probe".to_owned();
    match transaction::check(&mut wire, &table.messages()) {
        Ok(()) => Ok(Probe::Available),
        Err((what, error)) => match error.errno() {
            // What a missing chain type, expression or hook is answered with.
            Some(2 | 22 | 93 | 95 | 97) => Ok(Probe::Unavailable(format!(
                "the kernel's nf_tables lacks something that our rules need: {what}: {error}"
            ))),
            _ => Err(failed(&format!("{OPERATION}: {what}"), error)),
        },
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A policy that uses all that the nf_tables backend can say.
fn everything() -> Ruleset {
    let mark = Mark { value: 1, mask: 3 };
    let rule = |matches, verdict| FwRule {
        family: None,
        matches,
        verdict,
    };
    let any = |family: Family| vec![family.default_prefix()];
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let bucket = |family| FwRule {
        family: Some(family),
        matches: vec![Match::SourceBucket {
            bucket: 0,
            buckets: 2,
            seed: 1,
        }],
        verdict: Verdict::Accept,
    };
    let chains = vec![
        Chain {
            hook: Hook::Prerouting,
            rules: vec![
                rule(
                    vec![Match::NewFlow, Match::DestinationIsLocal],
                    Verdict::SetFlowMark(mark),
                ),
                rule(
                    vec![Match::FlowMark(mark)],
                    Verdict::RestoreMark { mask: mark.mask },
                ),
            ],
        },
        Chain {
            hook: Hook::OutputReroute,
            rules: Vec::new(),
        },
        Chain {
            hook: Hook::PostroutingCount,
            rules: vec![FwRule {
                family: Some(Family::Ipv4),
                matches: vec![
                    Match::OriginalDirection,
                    Match::PacketMark(mark),
                    Match::NotNextHop(v4),
                ],
                verdict: Verdict::Count(Path::Bypass),
            }],
        },
        Chain {
            hook: Hook::PostroutingNat,
            rules: vec![
                rule(
                    vec![
                        Match::OutputInterface("lo".to_owned()),
                        Match::Realm(crate::types::Realm(1)),
                    ],
                    Verdict::Masquerade,
                ),
                rule(
                    vec![Match::SourceNotLocal, Match::NextHop(v4)],
                    Verdict::Snat(v4),
                ),
                rule(vec![Match::NextHop(v6)], Verdict::Snat(v6)),
                bucket(Family::Ipv4),
                bucket(Family::Ipv6),
            ],
        },
        Chain {
            hook: Hook::PostroutingGuard,
            rules: vec![
                rule(
                    vec![Match::DestinationAnyOf(any(Family::Ipv4))],
                    Verdict::Drop,
                ),
                rule(
                    vec![Match::DestinationNoneOf(any(Family::Ipv6))],
                    Verdict::Accept,
                ),
            ],
        },
    ];
    Ruleset { chains }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        assert_eq!(
            parse_release("6.1.112-124.190.amzn2023.x86_64"),
            Some((6, 1))
        );
        assert_eq!(parse_release("5.4.0"), Some((5, 4)));
        assert_eq!(parse_release("4.14-x"), Some((4, 14)));
        assert_eq!(parse_release("nonsense"), None);
    }
}
