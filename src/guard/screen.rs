//! Prefixes that no document may put into the bypass table: a route there would cut off the host's
//! own network, its router, its name servers or a whole address family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

use super::figures;
use super::verdict::Verdict;
use crate::config::GuardConfig;
use crate::ranges::{Groups, PrefixSet};
use crate::types::{Family, PerFamily};

/// Addresses that this host must keep reaching through the main table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// The VPC's CIDRs, which may be public.
    pub vpc_cidrs: Vec<IpNet>,
    pub own_addresses: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    pub name_servers: Vec<IpAddr>,
    pub metadata: Vec<IpAddr>,
    /// The sources that are named by address.
    pub sources: Vec<IpAddr>,
}

/// Special-purpose blocks, each with the name of its guard. From the IANA IPv4 and IPv6
/// Special-Purpose Address Registries (RFC 6890 and the RFCs named), as far as a route to the block
/// can only be a mistake. Blocks of ordinary global space in the registries (192.31.196.0/24 of
/// AS112, for example) are left out.
const SPECIAL: &[(&str, &str)] = &[
    ("prefix-reserved", "0.0.0.0/8"),            // this network, RFC 791
    ("prefix-private", "10.0.0.0/8"),            // RFC 1918
    ("prefix-private", "100.64.0.0/10"),         // shared, RFC 6598
    ("prefix-loopback", "127.0.0.0/8"),          // RFC 1122
    ("prefix-link-local", "169.254.0.0/16"),     // RFC 3927
    ("prefix-private", "172.16.0.0/12"),         // RFC 1918
    ("prefix-reserved", "192.0.0.0/24"),         // IETF protocol assignments, RFC 6890
    ("prefix-documentation", "192.0.2.0/24"),    // RFC 5737
    ("prefix-reserved", "192.88.99.0/24"),       // was 6to4 relays, RFC 7526
    ("prefix-private", "192.168.0.0/16"),        // RFC 1918
    ("prefix-reserved", "198.18.0.0/15"),        // benchmarking, RFC 2544
    ("prefix-documentation", "198.51.100.0/24"), // RFC 5737
    ("prefix-documentation", "203.0.113.0/24"),  // RFC 5737
    ("prefix-multicast", "224.0.0.0/4"),         // RFC 5771
    ("prefix-reserved", "240.0.0.0/4"),          // RFC 1112; Amazon once listed 252.0.0.0/10
    ("prefix-loopback", "::1/128"),              // RFC 4291
    ("prefix-unique-local", "fc00::/7"),         // RFC 4193; Amazon once listed nineteen
    ("prefix-link-local", "fe80::/10"),          // RFC 4291
    ("prefix-multicast", "ff00::/8"),            // RFC 4291
    ("prefix-reserved", "2001::/23"),            // IETF protocol assignments, RFC 2928
    ("prefix-documentation", "2001:db8::/32"),   // RFC 3849
    ("prefix-reserved", "2002::/16"),            // 6to4, RFC 3056
    ("prefix-documentation", "3fff::/20"),       // RFC 9637
    // Everything outside 2000::/3: the only block that IANA has opened for global unicast
    // ("Internet Protocol Version 6 Address Space", RFC 4291). Last, since the blocks above name
    // parts of the same space more exactly.
    ("prefix-reserved", "::/3"),
    ("prefix-reserved", "4000::/2"),
    ("prefix-reserved", "8000::/1"),
];

static SPECIAL_PREFIXES: LazyLock<Vec<(&'static str, IpNet)>> = LazyLock::new(|| {
    SPECIAL
        .iter()
        .filter_map(|(guard, text)| text.parse().ok().map(|prefix| (*guard, prefix)))
        .collect()
});

/// The blocks of `SPECIAL` and of the environment, prepared for look-ups.
pub(super) struct Screen {
    forbidden: Vec<(&'static str, IpNet)>,
    shortest: PerFamily<u8>,
    // One look-up settles the many prefixes without an overlap.
    all: PrefixSet,
}

/// A dropped prefix, the overlapping block, and the list that named the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Dropped {
    prefix: IpNet,
    touches: IpNet,
    from: String,
}

/// The dropped prefixes of one judgement, by guard; a prefix in two documents counts once.
#[derive(Debug, Default)]
pub(super) struct Rejects(BTreeMap<&'static str, BTreeSet<Dropped>>);

impl Screen {
    pub(super) fn new(environment: &Environment, config: &GuardConfig) -> Self {
        let single = |guard, addresses: &[IpAddr]| -> Vec<(&'static str, IpNet)> {
            addresses
                .iter()
                .map(|address| (guard, IpNet::from(*address)))
                .collect()
        };
        let mut forbidden = SPECIAL_PREFIXES.clone();
        forbidden.extend(environment.vpc_cidrs.iter().map(|net| ("prefix-vpc", *net)));
        forbidden.extend(single("prefix-own-address", &environment.own_addresses));
        forbidden.extend(single("prefix-gateway", &environment.gateways));
        forbidden.extend(single("prefix-name-server", &environment.name_servers));
        forbidden.extend(single("prefix-metadata", &environment.metadata));
        forbidden.extend(single("prefix-source", &environment.sources));
        let canaries = config.canaries.iter();
        forbidden.extend(canaries.map(|net| ("prefix-canary", *net)));
        let all = forbidden.iter().map(|(_, prefix)| prefix).collect();
        let shortest = config.shortest_prefix;
        Screen {
            forbidden,
            all,
            shortest,
        }
    }

    /// The guard that drops the prefix, and the overlapping block.
    fn reject(&self, prefix: &IpNet) -> Option<(&'static str, IpNet)> {
        if prefix.prefix_len() == 0 {
            return Some(("prefix-default", *prefix));
        }
        let touches = |(_, block): &(&str, IpNet)| block.contains(prefix) || prefix.contains(block);
        let found = self.all.intersects(prefix);
        let found = found.then(|| self.forbidden.iter().copied().find(touches));
        let too_short = prefix.prefix_len() < *self.shortest.get(Family::of_net(prefix));
        found
            .flatten()
            .or_else(|| too_short.then_some(("prefix-too-short", *prefix)))
    }

    /// Returns the harmless prefixes and adds the others to `rejects`.
    pub(super) fn apply(
        &self,
        prefixes: &[IpNet],
        from: &dyn std::fmt::Display,
        rejects: &mut Rejects,
    ) -> Vec<IpNet> {
        let mut kept = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            match self.reject(prefix) {
                None => kept.push(*prefix),
                Some((guard, touches)) => {
                    rejects.0.entry(guard).or_default().insert(Dropped {
                        prefix: *prefix,
                        touches,
                        from: from.to_string(),
                    });
                }
            }
        }
        kept
    }

    /// As [`Screen::apply`], for all groups; empty groups are removed.
    pub(super) fn apply_groups(&self, groups: &Groups, rejects: &mut Rejects) -> Groups {
        groups
            .iter()
            .map(|(group, prefixes)| (group.clone(), self.apply(prefixes, group, rejects)))
            .filter(|(_, prefixes)| !prefixes.is_empty())
            .collect()
    }
}

impl Rejects {
    pub(super) fn append(&mut self, other: Rejects) {
        for (guard, mut dropped) in other.0 {
            self.0.entry(guard).or_default().append(&mut dropped);
        }
    }

    pub(super) fn into_verdicts(self) -> Vec<Verdict> {
        self.0
            .into_iter()
            .map(|(guard, dropped)| {
                let list = dropped.iter().map(|dropped| {
                    if dropped.prefix == dropped.touches {
                        format!("{} ({})", dropped.prefix, dropped.from)
                    } else {
                        let Dropped {
                            prefix,
                            touches,
                            from,
                        } = dropped;
                        format!("{prefix} ({from}, overlaps {touches})")
                    }
                });
                Verdict::reject(
                    guard,
                    format!(
                        "{} left out, the rest is kept: {}: {}; list the prefix in `[select] include` if the route is intended",
                        figures::prefixes(dropped.len()),
                        why(guard),
                        figures::first_few(list),
                    ),
                )
            })
            .collect()
    }
}

fn why(guard: &str) -> &'static str {
    match guard {
        "prefix-default" => "a default route would catch all traffic",
        "prefix-private" => "private or shared space is not Amazon's to publish",
        "prefix-loopback" => "loopback",
        "prefix-link-local" => "link-local space",
        "prefix-multicast" => "multicast",
        "prefix-documentation" => "documentation space",
        "prefix-unique-local" => "unique-local space",
        "prefix-vpc" => "overlap with the VPC's own CIDRs",
        "prefix-own-address" => "an address of this host is inside",
        "prefix-gateway" => "a gateway is inside",
        "prefix-too-short" => "shorter than `[guard] shortest_prefix` allows",
        "prefix-canary" => "a prefix of `[guard] canaries` is inside",
        "prefix-source" => "the source of the document is inside",
        "prefix-name-server" => "a name server is inside",
        "prefix-metadata" => "the metadata service is inside",
        _ => "reserved space",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::Group;

    fn guard_of(environment: &Environment, prefix: &str) -> Option<&'static str> {
        Screen::new(environment, &GuardConfig::default())
            .reject(&prefix.parse().unwrap())
            .map(|(guard, _)| guard)
    }

    #[test]
    fn every_block_of_the_list_parses() {
        assert_eq!(SPECIAL_PREFIXES.len(), SPECIAL.len());
        for (_, prefix) in SPECIAL_PREFIXES.iter() {
            assert_eq!(*prefix, prefix.trunc());
        }
    }

    #[test]
    fn special_blocks_and_their_supernets_are_refused() {
        let nothing = Environment::default();
        for (prefix, guard) in [
            ("0.0.0.0/0", "prefix-default"),
            ("::/0", "prefix-default"),
            ("0.1.0.0/16", "prefix-reserved"),
            ("10.1.0.0/16", "prefix-private"),
            ("8.0.0.0/6", "prefix-private"),
            ("100.100.0.0/16", "prefix-private"),
            ("172.20.0.0/16", "prefix-private"),
            ("192.168.4.0/24", "prefix-private"),
            ("127.0.0.1/32", "prefix-loopback"),
            ("::1/128", "prefix-loopback"),
            ("169.254.169.254/32", "prefix-link-local"),
            ("fe80::/64", "prefix-link-local"),
            ("224.0.0.0/8", "prefix-multicast"),
            ("ff02::1/128", "prefix-multicast"),
            ("252.0.0.0/10", "prefix-reserved"),
            ("198.19.0.0/16", "prefix-reserved"),
            ("192.0.2.128/25", "prefix-documentation"),
            ("198.51.100.7/32", "prefix-documentation"),
            ("203.0.113.0/24", "prefix-documentation"),
            ("2001:db8:1::/48", "prefix-documentation"),
            ("3fff:1::/32", "prefix-documentation"),
            ("fd00:ec2::254/128", "prefix-unique-local"),
            ("fc00::/7", "prefix-unique-local"),
            ("64:ff9b::/96", "prefix-reserved"),
            ("2002::/16", "prefix-reserved"),
            ("2001::/32", "prefix-reserved"),
            ("4000::/16", "prefix-reserved"),
        ] {
            assert_eq!(guard_of(&nothing, prefix), Some(guard), "{prefix}");
        }
    }

    #[test]
    fn prefixes_published_by_amazon_are_accepted() {
        for prefix in [
            "3.5.0.0/19",
            "52.216.0.0/15",
            "99.77.128.0/18",
            "172.96.97.0/24",
            "192.157.36.0/22",
            "198.99.2.0/24",
            "203.83.220.0/22",
            "223.71.11.0/27",
            "2400:6500:ff00::/64",
            "2600:9000::/28",
            "2600:1fa0:8000::/39",
            "2605:9cc0:1ff0:500::/56",
            "2620:107:300f::/64",
            "2a05:d000::/25",
            "2406:da00::/24",
            "2804:800::/32",
        ] {
            assert_eq!(guard_of(&Environment::default(), prefix), None, "{prefix}");
        }
    }

    #[test]
    fn prefixes_around_own_networks_and_addresses_are_refused() {
        let environment = Environment {
            vpc_cidrs: vec!["52.95.0.0/16".parse().unwrap()],
            own_addresses: vec!["18.1.1.1".parse().unwrap()],
            gateways: vec!["2600:1f00::1".parse().unwrap()],
            name_servers: vec!["8.8.8.8".parse().unwrap()],
            sources: Vec::new(),
            metadata: vec!["9.9.9.9".parse().unwrap()],
        };
        for (prefix, guard) in [
            ("52.95.4.0/24", Some("prefix-vpc")),
            ("52.94.0.0/15", Some("prefix-vpc")),
            ("52.96.0.0/16", None),
            ("18.1.0.0/16", Some("prefix-own-address")),
            ("18.1.1.1/32", Some("prefix-own-address")),
            ("18.1.1.2/32", None),
            ("2600:1f00::/32", Some("prefix-gateway")),
            ("8.8.8.0/24", Some("prefix-name-server")),
            ("9.9.9.0/24", Some("prefix-metadata")),
        ] {
            assert_eq!(guard_of(&environment, prefix), guard, "{prefix}");
        }
    }

    #[test]
    fn each_guard_gives_one_verdict_listing_its_prefixes() {
        let screen = Screen::new(&Environment::default(), &GuardConfig::default());
        let group = Group {
            service: "EC2".into(),
            region: "us-east-1".into(),
            family: Family::Ipv4,
        };
        let prefixes: Vec<IpNet> = ["252.0.0.0/10", "252.64.0.0/10", "3.5.0.0/19"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let mut rejects = Rejects::default();
        let kept = screen.apply(&prefixes, &group, &mut rejects);
        assert_eq!(kept, prefixes[2..]);
        // The same prefixes from a second document.
        screen.apply(&prefixes, &group, &mut rejects);
        let verdicts = rejects.into_verdicts();
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].guard, "prefix-reserved");
        assert!(
            verdicts[0].message.starts_with(
                "2 prefixes left out, the rest is kept: reserved space: 252.0.0.0/10 \
                 (EC2 us-east-1 ipv4, overlaps 240.0.0.0/4), 252.64.0.0/10"
            ),
            "{}",
            verdicts[0].message
        );
    }
}
