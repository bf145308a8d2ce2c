//! Spans of addresses: the sorted lists below [`PrefixSet`](super::PrefixSet).
//!
//! All operations are linear merges of sorted lists, after one initial sort. Tries and per-prefix
//! splitting are slower by one to two orders of magnitude at 10,000 prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// The addresses from `first` to `last` inclusive, as numbers; IPv4 in the low 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

pub(super) fn span_of(prefix: &IpNet) -> (Family, Span) {
    match prefix {
        IpNet::V4(net) => (
            Family::Ipv4,
            Span {
                first: u32::from(net.network()).into(),
                last: u32::from(net.broadcast()).into(),
            },
        ),
        IpNet::V6(net) => (
            Family::Ipv6,
            Span {
                first: net.network().into(),
                last: net.broadcast().into(),
            },
        ),
    }
}

pub(super) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[allow(clippy::expect_used)]
fn prefix_at(family: Family, first: u128, length: u8) -> IpNet {
    let length_fits = "the length is at most the family's, since trailing zeros give it";
    match family {
        Family::Ipv4 => {
            let number = u32::try_from(first).expect("IPv4 spans stay below 2^32");
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(number), length).expect(length_fits))
        }
        Family::Ipv6 => IpNet::V6(Ipv6Net::new(Ipv6Addr::from(first), length).expect(length_fits)),
    }
}

/// Sorts spans, and merges overlapping and adjacent spans.
pub(super) fn normalise(spans: &mut Vec<Span>) {
    spans.sort_unstable();
    let mut kept = 0;
    for index in 0..spans.len() {
        let span = spans[index];
        // Saturating: no span is adjacent to the last address of the space, only overlapping.
        if kept > 0 && span.first <= spans[kept - 1].last.saturating_add(1) {
            spans[kept - 1].last = spans[kept - 1].last.max(span.last);
        } else {
            spans[kept] = span;
            kept += 1;
        }
    }
    spans.truncate(kept);
}

pub(super) fn subtract(from: &[Span], cut: &[Span]) -> Vec<Span> {
    let mut left = Vec::with_capacity(from.len());
    let mut cuts = cut;
    for span in from {
        // A cut that ends before this span can't reach a later span either.
        while let [cut, rest @ ..] = cuts
            && cut.last < span.first
        {
            cuts = rest;
        }
        let mut first = Some(span.first);
        for cut in cuts.iter().take_while(|cut| cut.first <= span.last) {
            if let Some(start) = first
                && start < cut.first
            {
                left.push(Span {
                    first: start,
                    last: cut.first - 1,
                });
            }
            first = cut.last.checked_add(1);
        }
        if let Some(start) = first
            && start <= span.last
        {
            left.push(Span {
                first: start,
                last: span.last,
            });
        }
    }
    left
}

pub(super) fn intersect(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut a, mut b) = (a, b);
    let mut both = Vec::new();
    while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b) {
        let (first, last) = (x.first.max(y.first), x.last.min(y.last));
        if first <= last {
            both.push(Span { first, last });
        }
        if x.last < y.last {
            a = rest_a;
        } else {
            b = rest_b;
        }
    }
    both
}

/// Appends the fewest prefixes that make up the span: repeatedly the largest aligned prefix within
/// the rest of the span.
pub(super) fn cut_into_prefixes(family: Family, span: Span, prefixes: &mut Vec<IpNet>) {
    let bits = u32::from(family.bits());
    let mut first = span.first;
    loop {
        let aligned = first.trailing_zeros().min(bits);
        // log2 of the number of addresses left, rounded down; the whole IPv6 space is 2^128.
        let fits = match (span.last - first).checked_add(1) {
            Some(count) => count.ilog2(),
            None => bits,
        };
        let size = aligned.min(fits);
        #[allow(clippy::expect_used)]
        let length = u8::try_from(bits - size).expect("between 0 and 128");
        prefixes.push(prefix_at(family, first, length));
        let step = 1u128.checked_shl(size);
        match step.and_then(|step| first.checked_add(step)) {
            Some(next) if next <= span.last => first = next,
            _ => break,
        }
    }
}
