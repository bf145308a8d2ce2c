//! Documents in AWS's format, generated, the same in every run.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The selected service.
pub const SERVICE: &str = "S3";
/// The selected region.
pub const REGION: &str = "us-east-1";

/// `count` prefixes, three quarters of them IPv4 as in AWS's own document, with a gap behind each:
/// nothing aggregates, so each prefix becomes a route.
pub fn prefixes(count: usize) -> Vec<IpNet> {
    let ipv6 = count / 4;
    let v4 = (0..count - ipv6).map(v4);
    v4.chain((0..ipv6).map(v6)).collect()
}

/// A prefix outside `prefixes(count)`.
pub fn another(count: usize) -> IpNet {
    v4(count)
}

fn v4(index: usize) -> IpNet {
    // From 44.0.0.0 on, every second /24: 100,000 prefixes end in 47/8.
    let bits = (44 << 24) + ((index as u32) << 9);
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), 24))
}

fn v6(index: usize) -> IpNet {
    // From 2600:1f00:: on, every second /48.
    let bits = (0x2600_1f00_u128 << 96) + ((index as u128) << 81);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 48))
}

/// A document with the prefixes under the selected service and region.
pub fn document(token: u64, prefixes: &[IpNet]) -> String {
    let rows = prefixes.iter().map(|prefix| (*prefix, REGION, SERVICE));
    write_document(token, rows)
}

/// A document as large as AWS's own (17,000 rows, 2.6 MB), with `count` prefixes in the selection.
pub fn large_document(token: u64, count: usize) -> String {
    const OTHERS: [(&str, &str); 6] = [
        ("eu-west-1", "AMAZON"),
        ("us-east-1", "AMAZON"),
        ("ap-southeast-2", "EC2"),
        ("us-east-1", "EC2"),
        ("eu-central-1", "S3"),
        ("GLOBAL", "CLOUDFRONT"),
    ];
    let others = prefixes(17_000);
    let selected = prefixes(count);
    let selected = selected.iter().map(|prefix| (*prefix, REGION, SERVICE));
    let others = others
        .iter()
        .zip(OTHERS.iter().cycle())
        .map(|(prefix, (region, service))| (*prefix, *region, *service));
    write_document(token, selected.chain(others))
}

fn write_document<'a>(
    token: u64,
    rows: impl Iterator<Item = (IpNet, &'a str, &'a str)> + Clone,
) -> String {
    let list = |ipv6: bool, key: &str| {
        let mut text = String::new();
        let rows = rows.clone();
        for (prefix, region, service) in
            rows.filter(|(prefix, ..)| matches!(prefix, IpNet::V6(_)) == ipv6)
        {
            let comma = if text.is_empty() { "" } else { ",\n" };
            let _ = write!(
                text,
                "{comma}    {{\n      \"{key}\": \"{prefix}\",\n      \"region\": \"{region}\",\n      \
                 \"service\": \"{service}\",\n      \"network_border_group\": \"{region}\"\n    }}"
            );
        }
        text
    };
    format!(
        "{{\n  \"syncToken\": \"{token}\",\n  \"createDate\": \"2025-11-22-07-23-04\",\n  \
         \"prefixes\": [\n{}\n  ],\n  \"ipv6_prefixes\": [\n{}\n  ]\n}}\n",
        list(false, "ip_prefix"),
        list(true, "ipv6_prefix")
    )
}
