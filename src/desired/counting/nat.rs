//! The NAT role's paths: told apart as the translation tells them.

use ipnet::IpNet;

use super::Told;
use crate::firewall::Match;

/// How the NAT role tells a family's paths apart. `asks` recognise the bypass path, `out` is where
/// the egress path leaves; what stays in `private` space is neither.
pub fn of_nat(sources: &[IpNet], asks: Option<&[Match]>, out: &str, private: &[IpNet]) -> Told {
    let past = asks.unwrap_or_default();
    // A substitute for what the routing decision can't say: both paths leave alike.
    let substitute =
        |condition: &Match| matches!(condition, Match::Realm(_) | Match::DestinationAnyOf(_));
    let for_good = past.iter().any(substitute);
    let stays = || Match::DestinationNoneOf(private.to_vec());
    let bypass = |from: &[Match]| {
        let mut conditions = [from, asks?].concat();
        // The substitutes are exact without it.
        conditions.extend((!for_good).then(stays));
        Some(conditions)
    };
    let egress = |from: &[Match]| {
        let mut conditions = from.to_vec();
        conditions.push(Match::OutputInterface(out.to_owned()));
        conditions.extend(past.iter().filter_map(|condition| match condition {
            Match::NextHop(gateway) => Some(Match::NotNextHop(*gateway)),
            _ => None,
        }));
        conditions.push(stays());
        conditions
    };
    // This box's own addresses lie in the sources' networks too.
    let from = |source: &IpNet| [Match::Source(*source), Match::SourceNotLocal];
    Told {
        bypass: sources.iter().filter_map(|s| bypass(&from(s))).collect(),
        egress: sources.iter().map(|s| egress(&from(s))).collect(),
        for_good,
    }
}
