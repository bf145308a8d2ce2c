//! Readers of texts: one function for each kind of text in the config file. Each error message
//! says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::types::{Region, Service, has_leading_zero};

/// Reads the address of a router or of this host, so of a possible destination of packets.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let hint = if text.parse::<IpNet>().is_ok() {
            "a prefix: write the address alone, without the /"
        } else if text.contains('%') {
            "remove the % and the interface; `interface` is a separate key"
        } else {
            "write an address such as \"10.0.1.10\" or \"fd00::10\"; names are not resolved"
        };
        return Err(format!("{text:?} is not an IP address: {hint}"));
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
        IpAddr::V4(v4) if v4.is_broadcast() => refuse("the broadcast address"),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("{v6} is an IPv4-mapped IPv6 address: write {v4}")),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
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
            Err(_) => format!(
                "{text:?} is not a prefix: write a prefix such as \"10.0.0.0/16\" or \"fd00::/8\""
            ),
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

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(format!(
            "{text:?} is not an absolute path: write a path from / on, since a service has no \
             fixed working directory"
        ));
    }
    Ok(path)
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
    } else if plausible(&lower) {
        format!("did you mean {lower:?}?")
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

/// Reads the source of the document. Relative paths are allowed on the command line only.
pub(super) fn source(text: &str, relative: bool) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(format!("{text:?} is not a URL or path"));
    }
    // A colon before any slash ends a scheme (RFC 3986, section 4.2).
    let scheme = text
        .split_once(':')
        .map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest))
        .filter(|(scheme, _)| !scheme.contains('/') && !scheme.is_empty());
    match scheme {
        Some((scheme, rest)) if scheme == "http" || scheme == "https" => {
            let host = rest
                .strip_prefix("//")
                .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(""))
                .unwrap_or("");
            if host.is_empty() || text.contains(char::is_whitespace) {
                return Err(format!(
                    "{text:?} has no host: write a URL such as \"https://ip-ranges.amazonaws.com/ip-ranges.json\""
                ));
            }
        }
        Some((scheme, rest)) if scheme == "file" => {
            let local = rest.starts_with('/')
                && (!rest.starts_with("//")
                    || rest.starts_with("///")
                    || rest.starts_with("//localhost/"));
            if !local {
                return Err(format!(
                    "{text:?} is not a local file: write file:/// and the absolute path"
                ));
            }
        }
        Some((scheme, _)) => {
            return Err(format!(
                "{text:?} has the scheme {scheme:?}: only https, http and file can be fetched"
            ));
        }
        None if relative || text.starts_with('/') => {}
        None => {
            return Err(format!(
                "{text:?} is neither a URL nor an absolute path: write https:// before a host, or a path from / on"
            ));
        }
    }
    Ok(text.to_owned())
}
