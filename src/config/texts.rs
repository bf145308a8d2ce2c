//! Readers of texts: one function for each kind of text in the config file. Each error message
//! says what to write instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::Exemption;
use crate::types::{METADATA, Region, Service, has_leading_zero};

/// Reads the address of a router or of this host, so of a possible destination of packets.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!("{text:?} is not an IP address: {}", hint(text)));
    };
    let refuse = |kind: &str| {
        Err(format!(
            "{address} is {kind}, which belongs to no router or host"
        ))
    };
    match address {
        _ if address.is_unspecified() => refuse("the unspecified address"),
        _ if address.is_loopback() => refuse("a loopback address"),
        _ if address.is_multicast() => refuse("a multicast address"),
        _ if METADATA.contains(&address) => refuse("the address of the metadata service"),
        IpAddr::V4(v4) if v4.is_broadcast() => refuse("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => refuse("in 0.0.0.0/8"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => refuse("in the reserved block 240.0.0.0/4"),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("{v6} is an IPv4-mapped IPv6 address: write {v4}")),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

/// The correction of a text that is no address.
fn hint(text: &str) -> &'static str {
    let numbers = text.split('.').count();
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if text.parse::<IpNet>().is_ok() {
        "a prefix: write the address alone, without the /"
    } else if text.contains('%') {
        "remove the % and the interface; `interface` is a separate key"
    } else if text.contains([',', ' ', ';']) {
        "write each address in quotes of its own, as [\"10.0.1.10\", \"10.0.2.10\"]"
    } else if text.chars().all(digits) && has_leading_zero(text) {
        "a number begins with 0, which some readers take for octal: write the number without the 0"
    } else if text.chars().all(digits) && numbers == 4 {
        "each of the four numbers is 0 to 255"
    } else if text.chars().all(digits) {
        "an IPv4 address has four numbers"
    } else if text.parse::<SocketAddr>().is_ok() || text.starts_with('[') {
        "write the address alone, without brackets and port"
    } else {
        "write an address such as \"10.0.1.10\" or \"fd00::10\"; names are not resolved"
    }
}

/// Reads a prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => format!(
                "{text:?} is an address, not a prefix: write \"{}\"",
                IpNet::from(address)
            ),
            Err(_) => format!("{text:?} is not a prefix: {}", prefix_hint(text)),
        });
    };
    if net.addr().is_ipv4() && has_leading_zero(text) {
        return Err(format!(
            "{text:?} has a number that begins with 0, which some readers take for octal: write \"{net}\" for the decimal reading"
        ));
    }
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!(
            "{net} is an IPv4-mapped IPv6 prefix: write the IPv4 prefix"
        ));
    }
    if net.trunc() != net {
        return Err(format!(
            "{net} has host bits set: write \"{}\", or \"{}\" for the single address",
            net.trunc(),
            IpNet::from(net.addr())
        ));
    }
    Ok(net)
}

/// The correction of a text that is no prefix.
fn prefix_hint(text: &str) -> String {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let mask = length.parse::<Ipv4Addr>().map(u32::from);
    match mask {
        Ok(mask) if mask.leading_ones() == mask.count_ones() => {
            format!(
                "write the length in place of the mask, \"{address}/{}\"",
                mask.count_ones()
            )
        }
        _ if text.contains([',', ' ', ';']) => {
            "write each prefix in quotes of its own, as [\"10.0.0.0/16\", \"10.1.0.0/16\"]"
                .to_owned()
        }
        _ if text.contains('-') => {
            "a range of addresses: write the prefixes that make up the range".to_owned()
        }
        _ if text.contains('*') => {
            "write the length in place of the *, such as \"10.0.0.0/16\"".to_owned()
        }
        _ if length.len() > 1 && length.starts_with('0') => {
            "the length begins with 0: write the number without the 0".to_owned()
        }
        _ => "write a prefix such as \"10.0.0.0/16\" or \"fd00::/8\"".to_owned(),
    }
}

/// Reads a prefix other than the default route.
pub(super) fn narrow_prefix(text: &str) -> Result<IpNet, String> {
    let net = prefix(text)?;
    if net.prefix_len() == 0 {
        return Err(format!(
            "{net} is a default route: the setting would apply to all traffic, not to one network"
        ));
    }
    Ok(net)
}

/// Reads the name of an interface, by the kernel's rules (`dev_valid_name`, net/core/dev.c: no slash,
/// colon or white space), or an alternative name, of up to 127 bytes (`ALTIFNAMSIZ`).
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if text.is_empty() || text.len() > 127 || text == "." || text == ".." || text.contains(bad) {
        return Err(format!(
            "{text:?} can't be an interface: write a name from `ip link`, such as \"eth1\", or \"auto\""
        ));
    }
    Ok(text.to_owned())
}

/// Reads an interface, or sources as a prefix or an address.
pub(super) fn exemption(text: &str) -> Result<Exemption, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        Ok(Exemption::Source(IpNet::from(address)))
    } else if text.contains(['/', ':']) {
        narrow_prefix(text).map(Exemption::Source)
    } else {
        interface(text).map(Exemption::Interface)
    }
}

/// Reads the listener of metrics; the empty string means none.
pub(super) fn listener(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        format!(
            "{text:?} is not an address with a port: write an address such as \"127.0.0.1:9683\" or \"[::1]:9683\", or \"\" for none"
        )
    };
    let address: SocketAddr = text.parse().map_err(|_| wrong())?;
    if address.port() == 0 {
        return Err(wrong());
    }
    Ok(Some(address))
}

/// Reads a region of this host, for an argument.
///
/// # Errors
/// The text is no name of a region; the message proposes one.
pub fn own_region(text: &str) -> Result<Region, String> {
    match region(text)? {
        region if region.0 == "GLOBAL" => Err("no host runs in \"GLOBAL\"".to_owned()),
        region => Ok(region),
    }
}

/// Reads a region. All region names since 2015 match (`us-gov-west-1`, `eusc-de-east-1`,
/// `GLOBAL`).
pub(super) fn region(text: &str) -> Result<Region, String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text == "GLOBAL" {
        return Ok(Region::from(text));
    }
    let plausible = |text: &str| {
        text.chars().all(letters)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.ends_with(|c: char| c.is_ascii_digit())
            && text.contains('-')
    };
    if plausible(text) {
        return Ok(Region::from(text));
    }
    let zone = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let lower = text.to_ascii_lowercase();
    let hint = if text.eq_ignore_ascii_case("auto") {
        "did you mean \"auto\"?".to_owned()
    } else if text.eq_ignore_ascii_case("global") {
        "did you mean \"GLOBAL\"?".to_owned()
    } else if zone.len() + 1 == text.len() && plausible(zone) {
        format!("an availability zone, in the region {zone:?}")
    } else if plausible(&lower.replace(['_', ' '], "-")) {
        format!("did you mean {:?}?", lower.replace(['_', ' '], "-"))
    } else {
        "write a region such as \"us-east-1\", or \"auto\" for the region of this instance"
            .to_owned()
    };
    Err(format!("{text:?} is not a region: {hint}"))
}

/// Reads a service: capitals, digits and underscores, as in all documents since 2015.
pub(super) fn service(text: &str) -> Result<Service, String> {
    let plausible = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    if plausible(text) {
        return Ok(Service::from(text));
    }
    let upper = text.to_ascii_uppercase().replace(['-', ' '], "_");
    let hint = if plausible(&upper) {
        format!("AWS writes services in capitals; did you mean {upper:?}?")
    } else {
        "write a name from ip-ranges.json, such as \"S3\"".to_owned()
    };
    Err(format!("{text:?} is not a service: {hint}"))
}
