//! Tests the kernel's support of all expressions in our rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::contact::{absence, contact, failed};
use super::message::TABLE;
use super::{encode, transaction};
use crate::firewall::{
    Chain, DropReason, FwRule, Hook, Match, ObservedFirewall, Path, Ports, Ruleset, Statement,
    Traces,
};
use crate::kernel::firewall::error::FirewallError;
use crate::types::{Family, Mark, Realm};

/// The result of the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// nf_tables supports everything in our rules.
    Available,
    /// No nf_tables, or a part is missing: the reason.
    Unavailable(String),
    /// The kernel refuses an answer without CAP_NET_ADMIN: the reason.
    Unprivileged(String),
}

/// The first kernel to store a comment on a table, our mark of ownership (commit 7a81575b806e).
const OLDEST: (u32, u32) = (5, 10);

/// Tests nf_tables with a transaction of every expression in our rules, since a kernel build may
/// lack an expression or a module. The kernel checks the transaction and discards the result; the
/// only lasting effect may be loaded modules.
///
/// # Errors
/// If the answer remains unknown.
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
            "Linux {release} can't store a comment on a table, which marks the table as Trailblazer's; {}.{} and later can",
            OLDEST.0, OLDEST.1
        )));
    }
    let mut table = encode::table(TABLE, &everything())?;
    // A name of its own, so that the check doesn't depend on an existing table of our name. The
    // table is never committed.
    table.name = "trailblazer-probe".to_owned();
    match transaction::check(&mut wire, &table.messages()) {
        Ok(()) => Ok(Probe::Available),
        Err((what, error)) => match error.errno() {
            // ENOENT, EINVAL, EPROTONOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT: the kernel's answers to a
            // missing chain type, expression or hook.
            Some(2 | 22 | 93 | 95 | 97) => Ok(Probe::Unavailable(format!(
                "the kernel's nf_tables lacks a feature that Trailblazer needs: {what}: {error}"
            ))),
            _ => Err(failed(&format!("{OPERATION}: {what}"), error)),
        },
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn rule(matches: Vec<Match>, verdict: Statement) -> FwRule {
    FwRule {
        family: None,
        matches,
        verdict,
    }
}

fn rule_of(family: Family, matches: Vec<Match>, verdict: Statement) -> FwRule {
    FwRule {
        family: Some(family),
        ..rule(matches, verdict)
    }
}

/// Rules with every expression of prerouting.
fn marking(mark: Mark) -> Vec<FwRule> {
    let mut prerouting = vec![
        rule(
            vec![Match::NewFlow, Match::DestinationIsLocal],
            Statement::SetFlowMark(mark),
        ),
        rule(
            vec![Match::FlowMark(mark)],
            Statement::RestoreMark { mask: mark.mask },
        ),
    ];
    let ports = Ports::LOCAL;
    let answers = [
        Match::TcpSyn,
        Match::TcpAnswer(ports),
        Match::TcpAnswerFrom(ports),
        Match::UdpAnswer(ports),
    ];
    prerouting.push(rule_of(
        Family::Ipv4,
        vec![Match::Redirect],
        Statement::Drop,
    ));
    prerouting.extend(answers.map(|answer| rule(vec![answer], Statement::Accept)));
    prerouting
}

/// A policy with every expression of the nf_tables backend.
fn everything() -> Ruleset {
    let mark = Mark { value: 1, mask: 3 };
    let any = |family: Family| vec![family.default_prefix()];
    let bucket = || Match::SourceSlots {
        slots: vec![0],
        of: 2,
        seed: 1,
    };
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let counting = [
        Match::OriginalDirection,
        Match::PacketMark(mark),
        Match::NotNextHop(v4),
    ];
    let leaving = vec![
        Match::OutputInterface("lo".to_owned()),
        Match::Realm(Realm(1)),
    ];
    let translation = vec![
        rule(leaving, Statement::Masquerade),
        rule(
            vec![Match::SourceNotLocal, Match::NextHop(v4)],
            Statement::Snat(v4),
        ),
        rule(vec![Match::NextHop(v6)], Statement::Snat(v6)),
        rule_of(Family::Ipv4, vec![bucket()], Statement::Accept),
        rule_of(Family::Ipv6, vec![bucket()], Statement::Accept),
    ];
    let guard = vec![
        rule(
            vec![Match::DestinationAnyOf(any(Family::Ipv4))],
            Statement::Drop,
        ),
        rule(
            vec![Match::DestinationNoneOf(any(Family::Ipv6))],
            Statement::Accept,
        ),
    ];
    let count = rule_of(
        Family::Ipv4,
        counting.to_vec(),
        Statement::Count(Path::Bypass),
    );
    let last = rule_of(
        Family::Ipv4,
        vec![Match::Forwarded, Match::OpensFlow],
        // A kernel without the traces gets the rules without them.
        Statement::DropTraced(DropReason::Sources, Traces::NONE),
    );
    let chains = [
        (Hook::Prerouting, marking(mark)),
        (Hook::OutputReroute, Vec::new()),
        (Hook::PostroutingCount, vec![count]),
        (Hook::PostroutingNat, translation),
        (Hook::PostroutingGuard, guard),
        (Hook::PostroutingLast, vec![last]),
    ];
    Ruleset {
        chains: chains.map(|(hook, rules)| Chain { hook, rules }).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_release_is_parsed_to_major_and_minor() {
        assert_eq!(
            parse_release("6.1.112-124.190.amzn2023.x86_64"),
            Some((6, 1))
        );
        assert_eq!(parse_release("5.4.0"), Some((5, 4)));
        assert_eq!(parse_release("4.14-x"), Some((4, 14)));
        assert_eq!(parse_release("nonsense"), None);
    }
}
