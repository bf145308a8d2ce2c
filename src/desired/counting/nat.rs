//! Matches for the paths of the NAT role, equal to those of the translation.

use ipnet::IpNet;

use super::PathMatches;
use crate::firewall::Match;

/// The path matches of a family in the NAT role. `asks` match the bypass path, `out` is the interface
/// of the egress path; traffic to `private` space belongs to neither path.
pub fn of_nat(
    sources: &[IpNet],
    asks: Option<&[Match]>,
    out: &str,
    private: &[IpNet],
) -> PathMatches {
    let past = asks.unwrap_or_default();
    // Substitutes for the routing decision, which is equal for both paths.
    let substitute =
        |condition: &Match| matches!(condition, Match::Realm(_) | Match::DestinationAnyOf(_));
    let by_substitute = past.iter().any(substitute);
    let stays = || Match::DestinationNoneOf(private.to_vec());
    let bypass = |from: &[Match]| {
        let mut conditions = [from, asks?].concat();
        // A substitute is exact without the exception for private space.
        conditions.extend((!by_substitute).then(stays));
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
    // The sources' networks contain this host's own addresses too.
    let from = |source: &IpNet| [Match::Source(*source), Match::SourceNotLocal];
    PathMatches {
        bypass: sources.iter().filter_map(|s| bypass(&from(s))).collect(),
        egress: sources.iter().map(|s| egress(&from(s))).collect(),
        decided_by_first_packet: by_substitute,
    }
}
