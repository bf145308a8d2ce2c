//! Matches for the paths of the NAT role, equal to those of the translation.

use ipnet::IpNet;

use super::PathMatches;
use crate::desired::bypass_match::is_substitute;
use crate::firewall::Match;

/// The path matches of a family in the NAT role. Each of `asks` matches a part of the bypass path,
/// `out` is the interface of the egress path; traffic to `private` space belongs to neither path.
pub fn of_nat(sources: &[IpNet], asks: &[Vec<Match>], out: &str, private: &[IpNet]) -> PathMatches {
    let by_substitute = asks.iter().flatten().any(is_substitute);
    let stays = || Match::DestinationNoneOf(private.to_vec());
    let bypass = |from: &[Match]| -> Vec<Vec<Match>> {
        let line = |ask: &Vec<Match>| {
            let mut conditions = [from, ask].concat();
            // A substitute is exact without the exception for private space.
            conditions.extend((!by_substitute).then(stays));
            conditions
        };
        asks.iter().map(line).collect()
    };
    let egress = |from: &[Match]| {
        let mut conditions = from.to_vec();
        conditions.push(Match::OutputInterface(out.to_owned()));
        conditions.extend(
            asks.iter()
                .flatten()
                .filter_map(|condition| match condition {
                    Match::NextHop(gateway) => Some(Match::NotNextHop(*gateway)),
                    _ => None,
                }),
        );
        conditions.push(stays());
        conditions
    };
    // The sources' networks contain this host's own addresses too.
    let from = |source: &IpNet| [Match::Source(*source), Match::SourceNotLocal];
    PathMatches {
        bypass: sources.iter().flat_map(|s| bypass(&from(s))).collect(),
        egress: sources.iter().map(|s| egress(&from(s))).collect(),
        decided_by_first_packet: by_substitute,
    }
}
