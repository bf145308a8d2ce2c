//! Limits TCP segments of the NAT role to the path outside.
//!
//! Hosts inside may have jumbo frames (9001 bytes in a VPC), and the path to the internet has 1500.
//! Where the message "fragmentation needed" is filtered, a connection opens and then stands still.
//! A rule lowers the segment size that both ends announce in their first packets.

use ipnet::IpNet;

use super::Inputs;
use crate::config::Mss;
use crate::facts::HostFacts;
use crate::firewall::{FwRule, Match, Statement};
use crate::types::{Family, IfIndex};

/// The packets that every path outside carries (RFC 894, RFC 2464).
const ETHERNET: u32 = 1500;
/// The smallest size that a limit may have (RFC 9293 §3.7.1).
const LEAST: u16 = 536;

/// The limit for the connections by an interface; `None` for no limit.
fn limit(inputs: &Inputs, family: Family, device: IfIndex) -> Option<u16> {
    let headers = match family {
        Family::Ipv4 => 40,
        Family::Ipv6 => 60,
    };
    match inputs.config.nat.mss {
        Mss::Off => None,
        Mss::Bytes(size) => Some(size),
        Mss::Auto => {
            let outer = outer(inputs.facts, family, device);
            let mut links = inputs.facts.links.iter().filter(|link| !link.loopback);
            let size = u16::try_from(outer.saturating_sub(headers)).ok()?;
            let longer = links.any(|link| link.up && link.mtu > outer);
            (longer && size >= LEAST).then_some(size)
        }
    }
}

/// The largest packet of the path outside: the interface's, the default route's, at most 1500.
fn outer(facts: &HostFacts, family: Family, device: IfIndex) -> u32 {
    let link = facts.link(device).map(|link| link.mtu);
    let route = facts
        .default_path(family, None)
        .filter(|path| path.vias().any(|via| via.device == device))
        .and_then(|path| path.options?.mtu());
    let known = [link, route].into_iter().flatten();
    known.filter(|mtu| *mtu > 0).fold(ETHERNET, u32::min)
}

/// The rules for one family: both directions of connections by an interface to hosts outside
/// `private`.
pub(super) fn clamp(
    inputs: &Inputs,
    family: Family,
    devices: &[IfIndex],
    private: &[IpNet],
) -> Vec<FwRule> {
    let mut rules = Vec::new();
    for device in devices {
        let Some(size) = limit(inputs, family, *device) else {
            continue;
        };
        let name = inputs.facts.device_name(*device);
        let out = vec![
            Match::OutputInterface(name.clone()),
            Match::TcpSyn,
            Match::DestinationNoneOf(private.to_vec()),
        ];
        let mut back = vec![Match::InputInterface(name), Match::TcpSyn];
        back.extend(private.iter().copied().map(Match::NotSource));
        rules.extend([out, back].map(|matches| FwRule {
            family: Some(family),
            matches,
            verdict: Statement::ClampMss(size),
        }));
    }
    rules
}
