//! The formats of the metadata service's answers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::types::{Family, PerFamily};

/// `i-` and 17 hexadecimal digits, 8 on instances from before 2016 ("Resource IDs").
pub(crate) fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A network that AWS can have assigned. Traffic to the VPC passes our tables by, so `0.0.0.0/0` in
/// place of a VPC would send everything past the NAT.
pub(super) fn network(line: &str, lengths: &PerFamily<RangeInclusive<u8>>) -> Option<IpNet> {
    let net: IpNet = line.parse().ok()?;
    let assigned = match net.addr() {
        IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_link_local())
                && (1..224).contains(&address.octets()[0])
        }
        // Global unicast, or unique local addresses of IPAM.
        IpAddr::V6(address) => matches!(address.segments()[0] >> 8, 0x20..=0x3f | 0xfc | 0xfd),
    };
    let family = Family::of(net.addr());
    let sound = assigned && net == net.trunc() && lengths.get(family).contains(&net.prefix_len());
    sound.then_some(net)
}

/// Like `us-east-1` or `us-gov-west-1`: lower-case words and a number, joined by dashes.
pub(super) fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    words.len() >= 2
        && words
            .iter()
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A region and letters, as `us-east-1a` or, for a local zone, `us-west-2-lax-1a`.
pub(super) fn zone(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    sound.then(|| text.to_owned())
}

/// Six pairs of hexadecimal digits, in lower case, checked for use in a path.
pub(crate) fn mac_address(text: &str) -> Option<String> {
    let pairs: Vec<&str> = text.split(':').collect();
    let sound = pairs.len() == 6
        && pairs
            .iter()
            .all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
    sound.then(|| text.to_ascii_lowercase())
}

pub(super) fn ipv4(line: &str) -> Option<IpAddr> {
    line.parse().ok().map(IpAddr::V4)
}
