//! Sets of addresses, with the operations that selection and guard need.

use std::net::IpAddr;

use ipnet::IpNet;

use super::span::{Span, cut_into_prefixes, intersect, normalise, number_of, span_of, subtract};
use crate::types::{Family, PerFamily};

/// A set of addresses of both families. Two sets with the same addresses are equal, regardless of
/// the prefixes that built them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrefixSet {
    /// Invariant: sorted, disjoint and not adjacent.
    spans: PerFamily<Vec<Span>>,
}

impl PrefixSet {
    /// The empty set.
    pub fn new() -> Self {
        PrefixSet::default()
    }

    /// True if the set holds no address.
    pub fn is_empty(&self) -> bool {
        self.spans.ipv4.is_empty() && self.spans.ipv6.is_empty()
    }

    fn merged(&self, other: &PrefixSet, merge: impl Fn(&[Span], &[Span]) -> Vec<Span>) -> Self {
        PrefixSet {
            spans: PerFamily::from_fn(|family| {
                merge(self.spans.get(family), other.spans.get(family))
            }),
        }
    }

    /// The addresses in either set.
    pub fn union(&self, other: &PrefixSet) -> PrefixSet {
        self.merged(other, |a, b| {
            let mut all = [a, b].concat();
            normalise(&mut all);
            all
        })
    }

    /// The addresses in `self` and not in `other`.
    pub fn subtract(&self, other: &PrefixSet) -> PrefixSet {
        self.merged(other, subtract)
    }

    /// The addresses in both sets.
    pub fn intersection(&self, other: &PrefixSet) -> PrefixSet {
        self.merged(other, intersect)
    }

    /// True if any address of the prefix is in the set.
    pub fn intersects(&self, prefix: &IpNet) -> bool {
        let (family, wanted) = span_of(prefix);
        let spans = self.spans.get(family);
        let index = spans.partition_point(|span| span.last < wanted.first);
        spans
            .get(index)
            .is_some_and(|span| span.first <= wanted.last)
    }

    /// True if every address of the prefix is in the set.
    pub fn covers(&self, prefix: &IpNet) -> bool {
        let (family, wanted) = span_of(prefix);
        let spans = self.spans.get(family);
        let index = spans.partition_point(|span| span.last < wanted.first);
        // Spans aren't adjacent, so a covered prefix lies in a single span.
        spans
            .get(index)
            .is_some_and(|span| span.first <= wanted.first && wanted.last <= span.last)
    }

    /// True if the address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number_of(address);
        let spans = self.spans.get(Family::of(address));
        let index = spans.partition_point(|span| span.last < number);
        spans.get(index).is_some_and(|span| span.first <= number)
    }

    /// The number of addresses of the family; the whole IPv6 space (2^128) counts as 2^128 - 1.
    pub fn address_count(&self, family: Family) -> u128 {
        self.spans.get(family).iter().fold(0u128, |count, span| {
            count
                .saturating_add(span.last - span.first)
                .saturating_add(1)
        })
    }

    /// The fewest prefixes that make up one family of the set, sorted.
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let mut prefixes = Vec::with_capacity(self.spans.get(family).len());
        for span in self.spans.get(family) {
            cut_into_prefixes(family, *span, &mut prefixes);
        }
        prefixes
    }

    /// The fewest prefixes of both families, IPv4 first, sorted.
    pub fn all_prefixes(&self) -> Vec<IpNet> {
        let mut prefixes = self.prefixes(Family::Ipv4);
        prefixes.append(&mut self.prefixes(Family::Ipv6));
        prefixes
    }
}

impl<'a> FromIterator<&'a IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(prefixes: I) -> Self {
        let mut spans = PerFamily::<Vec<Span>>::default();
        for prefix in prefixes {
            let (family, span) = span_of(prefix);
            spans.get_mut(family).push(span);
        }
        normalise(&mut spans.ipv4);
        normalise(&mut spans.ipv6);
        PrefixSet { spans }
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let prefixes: Vec<IpNet> = prefixes.into_iter().collect();
        prefixes.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn set(prefixes: &[&str]) -> PrefixSet {
        prefixes.iter().map(|text| net(text)).collect()
    }

    fn texts(prefixes: &[IpNet]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_halves_aggregate_to_one_prefix() {
        assert_eq!(
            texts(&set(&["52.216.128.0/17", "52.216.0.0/17"]).all_prefixes()),
            ["52.216.0.0/16"]
        );
        // Adjacent, but not two halves of one prefix.
        assert_eq!(
            texts(&set(&["10.0.1.0/24", "10.0.2.0/24"]).all_prefixes()),
            ["10.0.1.0/24", "10.0.2.0/24"]
        );
    }

    #[test]
    fn subtraction_splits_a_prefix() {
        let left = set(&["10.0.0.0/30"]).subtract(&set(&["10.0.0.1/32"]));
        assert_eq!(texts(&left.all_prefixes()), ["10.0.0.0/32", "10.0.0.2/31"]);
        let left = set(&["2600::/12"]).subtract(&set(&["2600::/13"]));
        assert_eq!(texts(&left.all_prefixes()), ["2608::/13"]);
    }

    #[test]
    fn first_and_last_addresses_of_both_families_work() {
        let all = set(&["0.0.0.0/0", "::/0"]);
        assert_eq!(texts(&all.all_prefixes()), ["0.0.0.0/0", "::/0"]);
        assert_eq!(all.address_count(Family::Ipv4), 1 << 32);
        assert_eq!(all.address_count(Family::Ipv6), u128::MAX);
        assert!(all.subtract(&all).is_empty());
        let last = set(&[
            "255.255.255.255/32",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ]);
        let rest = all.subtract(&last);
        assert_eq!(rest.prefixes(Family::Ipv4).len(), 32);
        assert_eq!(rest.prefixes(Family::Ipv6).len(), 128);
        assert_eq!(rest.union(&last), all);
        assert!(!rest.contains("255.255.255.255".parse().unwrap()));
        assert!(rest.contains("255.255.255.254".parse().unwrap()));
    }

    #[test]
    fn mapped_addresses_of_the_other_family_are_outside() {
        let set = set(&["::/96"]);
        assert!(!set.contains("1.2.3.4".parse().unwrap()));
        assert!(!set.intersects(&net("0.0.0.0/0")));
        assert!(set.covers(&net("::1/128")));
        assert_eq!(set.address_count(Family::Ipv4), 0);
    }

    #[test]
    fn intersects_with_larger_and_smaller_prefixes() {
        let vpc = set(&["172.31.0.0/16", "10.5.5.5/32"]);
        assert!(vpc.intersects(&net("172.31.4.0/24")));
        assert!(vpc.intersects(&net("172.16.0.0/12")));
        assert!(vpc.intersects(&net("10.0.0.0/8")));
        assert!(!vpc.intersects(&net("172.32.0.0/16")));
        assert!(!vpc.intersects(&net("10.5.5.4/32")));
    }

    // A universe of 256 addresses, so that tests can compare sets address by address.
    const UNIVERSE: u32 = 0xC0A8_0700;

    fn small_prefix() -> impl Strategy<Value = IpNet> {
        (0u32..256, 24u8..=32).prop_map(|(host, length)| {
            IpNet::V4(
                Ipv4Net::new(Ipv4Addr::from(UNIVERSE + host), length)
                    .unwrap()
                    .trunc(),
            )
        })
    }

    fn naive(prefixes: &[IpNet]) -> BTreeSet<u32> {
        (UNIVERSE..UNIVERSE + 256)
            .filter(|number| {
                let address = IpAddr::V4(Ipv4Addr::from(*number));
                prefixes.iter().any(|prefix| prefix.contains(&address))
            })
            .collect()
    }

    fn members(set: &PrefixSet) -> BTreeSet<u32> {
        naive(&set.all_prefixes())
    }

    /// The fewest prefixes for a set of addresses, by dividing the universe.
    fn fewest(addresses: &BTreeSet<u32>, first: u32, size: u32) -> usize {
        let inside = addresses.range(first..first + size).count() as u32;
        if inside == 0 {
            0
        } else if inside == size {
            1
        } else {
            fewest(addresses, first, size / 2) + fewest(addresses, first + size / 2, size / 2)
        }
    }

    fn any_prefix() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(number, length)| IpNet::V4(
                Ipv4Net::new(Ipv4Addr::from(number), length)
                    .unwrap()
                    .trunc()
            )),
            (any::<u128>(), 0u8..=128).prop_map(|(number, length)| IpNet::V6(
                Ipv6Net::new(Ipv6Addr::from(number), length)
                    .unwrap()
                    .trunc()
            )),
        ]
    }

    proptest! {
        #[test]
        fn operations_equal_their_naive_versions(
            a in prop::collection::vec(small_prefix(), 0..12),
            b in prop::collection::vec(small_prefix(), 0..12),
        ) {
            let (x, y): (PrefixSet, PrefixSet) = (a.iter().collect(), b.iter().collect());
            let (na, nb) = (naive(&a), naive(&b));
            prop_assert_eq!(members(&x), na.clone());
            prop_assert_eq!(members(&x.union(&y)), &na | &nb);
            prop_assert_eq!(members(&x.subtract(&y)), &na - &nb);
            prop_assert_eq!(members(&x.intersection(&y)), &na & &nb);
            prop_assert_eq!(x.address_count(Family::Ipv4), na.len() as u128);
            for prefix in &b {
                let wanted = naive(&[*prefix]);
                prop_assert_eq!(x.intersects(prefix), !na.is_disjoint(&wanted));
                prop_assert_eq!(x.covers(prefix), wanted.is_subset(&na));
            }
            for number in UNIVERSE..UNIVERSE + 256 {
                prop_assert_eq!(
                    x.contains(IpAddr::V4(Ipv4Addr::from(number))),
                    na.contains(&number)
                );
            }
        }

        #[test]
        fn prefixes_are_sorted_disjoint_and_fewest(
            a in prop::collection::vec(small_prefix(), 0..20),
            b in prop::collection::vec(small_prefix(), 0..6),
        ) {
            let set = a.iter().collect::<PrefixSet>().subtract(&b.iter().collect());
            let prefixes = set.all_prefixes();
            let addresses = &naive(&a) - &naive(&b);
            prop_assert_eq!(prefixes.len(), fewest(&addresses, UNIVERSE, 256));
            let ascending = prefixes
                .windows(2)
                .all(|pair| pair[0].broadcast() < pair[1].network());
            prop_assert!(ascending);
            prop_assert!(prefixes.iter().all(|prefix| *prefix == prefix.trunc()));
        }

        #[test]
        fn set_laws_hold_over_the_whole_space(
            a in prop::collection::vec(any_prefix(), 0..20),
            b in prop::collection::vec(any_prefix(), 0..20),
            probes in prop::collection::vec(any_prefix(), 1..20),
        ) {
            let (x, y): (PrefixSet, PrefixSet) = (a.iter().collect(), b.iter().collect());
            prop_assert_eq!(x.union(&y), y.union(&x));
            prop_assert_eq!(&x.subtract(&y).union(&x.intersection(&y)), &x);
            prop_assert_eq!(x.subtract(&y).union(&y), x.union(&y));
            prop_assert!(x.subtract(&y).intersection(&y).is_empty());
            prop_assert_eq!(&x.all_prefixes().iter().collect::<PrefixSet>(), &x);
            // Mistakes show at the edges of prefixes and just outside.
            let both: Vec<IpNet> = a.iter().chain(&b).chain(&probes).copied().collect();
            for address in both.iter().flat_map(|net| [net.network(), net.broadcast()]) {
                let in_a = a.iter().any(|net| net.contains(&address));
                let in_b = b.iter().any(|net| net.contains(&address));
                prop_assert_eq!(x.contains(address), in_a);
                prop_assert_eq!(x.union(&y).contains(address), in_a || in_b);
                prop_assert_eq!(x.subtract(&y).contains(address), in_a && !in_b);
            }
        }

        #[test]
        fn aggregation_equals_that_of_ipnet(a in prop::collection::vec(any_prefix(), 0..40)) {
            let mut theirs = IpNet::aggregate(&a);
            theirs.sort();
            prop_assert_eq!(a.iter().collect::<PrefixSet>().all_prefixes(), theirs);
        }
    }
}
