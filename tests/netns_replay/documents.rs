//! The changes of S3's space from 2017 to 2023, as AWS published them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use lab::replay::{Replay, ReplayRow};
use lab::*;

/// The regions whose space is selected.
const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1"];

pub type Space = BTreeSet<IpNet>;

/// The space of each version with another space than the version before; `None` without the data.
pub fn versions() -> Option<Vec<Space>> {
    let mut replay = Replay::open(&data::ip_ranges_dir()?);
    let wanted = |row: &ReplayRow| REGIONS.iter().any(|region| row.is("S3", region));
    let mut versions: Vec<Space> = Vec::new();
    while replay.advance_to_change(wanted) {
        let mut space = replay.selected(wanted);
        // The servers of the lab have addresses of their own.
        let servers = [PARTNER, PARTNER6, OPERATOR, OPERATOR6, MIRROR, MIRROR6];
        space.retain(|net| !servers.iter().any(|it| net.contains(it)));
        if versions.last() != Some(&space) {
            versions.push(space);
        }
    }
    Some(versions)
}

/// At most `count` addresses of one family that enter or leave the selection, spread over the space.
pub fn changing(versions: &[Space], ipv4: bool, count: usize) -> Vec<IpAddr> {
    let holds = |space: &Space, it: &IpAddr| space.iter().any(|net| net.contains(it));
    let changes = versions
        .windows(2)
        .flat_map(|pair| pair[0].symmetric_difference(&pair[1]));
    let addresses: BTreeSet<IpAddr> = changes.map(|net| address_in(&net.to_string())).collect();
    let moves = |it: &IpAddr| {
        let first = holds(&versions[0], it);
        versions.iter().any(|space| holds(space, it) != first)
    };
    let moving = addresses
        .into_iter()
        .filter(|it| it.is_ipv4() == ipv4 && moves(it));
    let found: Vec<IpAddr> = moving.collect();
    // Numbers that are no multiple of each other, so that the picks reach both ends.
    (0..count.min(found.len()))
        .map(|number| found[number * found.len() / count.min(found.len())])
        .collect()
}
