//! Readers of single values: one function a type, each message saying what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::de::DeValue;

use super::AutoOr;
use super::document::Wrong;
use crate::nearest::nearest;
use crate::types::{Region, Service, has_leading_zero};
use crate::words::Words;

/// A string, read further by a function of its text.
pub(super) fn text<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| match value.as_str() {
        Some(text) => Ok(read(text)?),
        None => Err(Wrong::Type),
    }
}

/// Like [`text`], but a bare number gets the message that names the units.
pub(super) fn with_unit<T>(
    read: impl Fn(&str) -> Result<T, String>,
    bare: impl Fn(&str) -> String,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| match value {
        DeValue::String(text) => Ok(read(text)?),
        DeValue::Integer(number) => Err(Wrong::Value(bare(&number.to_string()))),
        DeValue::Float(number) => Err(Wrong::Value(bare(&number.to_string()))),
        _ => Err(Wrong::Type),
    }
}

/// The word of an enum.
pub(super) fn word<T: Words>(value: &DeValue<'_>) -> Result<T, Wrong> {
    let read = |text: &str| {
        let words = T::VARIANTS.iter().map(|variant| variant.word());
        T::from_word(text).ok_or_else(|| unknown_word(text, words))
    };
    text(read)(value)
}

/// The message for a word that isn't one of the allowed ones.
pub(super) fn unknown_word<'a>(text: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    let allowed: Vec<String> = words.clone().map(|word| format!("{word:?}")).collect();
    let hint =
        nearest(text, words).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    format!("{text:?} is not one of {}{hint}", allowed.join(", "))
}

/// `auto`, or what the function reads.
pub(super) fn auto_or<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<AutoOr<T>, Wrong> {
    text(move |text| match text {
        "auto" => Ok(AutoOr::Auto),
        "" => Err("is empty: write \"auto\" to have it found out".to_owned()),
        _ if text.eq_ignore_ascii_case("auto") => {
            Err(format!("{text:?} is not a value; did you mean \"auto\"?"))
        }
        _ => read(text).map(AutoOr::Set),
    })
}

/// A whole number inside a range; strings of digits or hex digits (`"0x53"`) are taken too.
pub(super) fn integer(
    min: u64,
    max: u64,
    reason: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let (digits, radix) = match value {
            DeValue::Integer(number) => (number.as_str(), number.radix()),
            DeValue::String(text) => match text.strip_prefix("0x") {
                Some(digits) => (digits, 16),
                None => (text.as_ref(), 10),
            },
            _ => return Err(Wrong::Type),
        };
        // i128: the parser keeps the sign and any length.
        let number = i128::from_str_radix(digits, radix).map_err(|_| Wrong::Type)?;
        u64::try_from(number)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| Wrong::Value(format!("{number} is out of range {min} to {max}{reason}")))
    }
}

/// A price or another number that is not negative.
pub(super) fn price(value: &DeValue<'_>) -> Result<f64, Wrong> {
    let number: f64 = match value {
        DeValue::Integer(number) => number.to_string().parse().map_err(|_| Wrong::Type)?,
        DeValue::Float(number) => number.to_string().parse().map_err(|_| Wrong::Type)?,
        _ => return Err(Wrong::Type),
    };
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(Wrong::Value(format!(
            "{number} is not a price: write 0 or more"
        )))
    }
}

/// The address of a router or of this host: one that packets can be sent to.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let hint = if text.parse::<IpNet>().is_ok() {
            "it is a prefix: write the address alone, without the /"
        } else if text.contains('%') {
            "write it without the % and the interface, which has a key of its own"
        } else {
            "write one such as \"10.0.1.10\" or \"fd00::10\"; names are not resolved"
        };
        return Err(format!("{text:?} is not an IP address: {hint}"));
    };
    let refuse = |what: &str| Err(format!("{address} is {what}: no router or host has it"));
    match address {
        _ if address.is_unspecified() => refuse("the unspecified address"),
        _ if address.is_loopback() => refuse("a loopback address"),
        _ if address.is_multicast() => refuse("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => refuse("the broadcast address"),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!(
                "{v6} is an IPv4 address in IPv6 clothes: write {v4}"
            )),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

/// A prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => format!(
                "{text:?} is an address, not a prefix: write \"{}\"",
                IpNet::from(address)
            ),
            Err(_) => format!(
                "{text:?} is not a prefix: write one such as \"10.0.0.0/16\" or \"fd00::/8\""
            ),
        });
    };
    if net.addr().is_ipv4() && has_leading_zero(text) {
        return Err(format!(
            "{text:?} has a number that begins with 0, which some readers take for octal: write \"{net}\" if that is meant"
        ));
    }
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!(
            "{net} is an IPv4 prefix in IPv6 clothes: write it as IPv4"
        ));
    }
    if net.trunc() != net {
        return Err(format!(
            "{net} has host bits set: write \"{}\", or \"{}\" for that one address",
            net.trunc(),
            IpNet::from(net.addr())
        ));
    }
    Ok(net)
}

/// A prefix that isn't everything.
pub(super) fn narrow_prefix(text: &str) -> Result<IpNet, String> {
    let net = prefix(text)?;
    if net.prefix_len() == 0 {
        return Err(format!(
            "{net} is a default route: it would take all traffic, not only this network's"
        ));
    }
    Ok(net)
}

/// The name of an interface as the kernel allows it (`dev_valid_name`, net/core/dev.c: no slash,
/// colon or white space), or an alternative name, of up to 127 bytes (`ALTIFNAMSIZ`).
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if text.is_empty() || text.len() > 127 || text == "." || text == ".." || text.contains(bad) {
        return Err(format!(
            "{text:?} can't be an interface: write a name as `ip link` shows it, such as \"eth1\", or \"auto\""
        ));
    }
    Ok(text.to_owned())
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(format!(
            "{text:?} is not an absolute path: it must begin with /, since a service has no \
             working directory to speak of"
        ));
    }
    Ok(path)
}

/// Where metrics are served; the empty string means nowhere.
pub(super) fn listener(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        format!(
            "{text:?} is not an address with a port: write one such as \"127.0.0.1:9683\" or \"[::1]:9683\", or \"\" for none"
        )
    };
    let address: SocketAddr = text.parse().map_err(|_| wrong())?;
    if address.port() == 0 {
        return Err(wrong());
    }
    Ok(Some(address))
}

/// A region as the document names it; all since 2015 match (`us-gov-west-1`, `eusc-de-east-1`,
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
        format!("it is an availability zone; its region is {zone:?}")
    } else if plausible(&lower) {
        format!("did you mean {lower:?}?")
    } else {
        "write one such as \"us-east-1\", or \"auto\" for this instance's own".to_owned()
    };
    Err(format!("{text:?} is not a region: {hint}"))
}

/// A service as the document names it: capitals, digits and underscores, in all documents
/// since 2015.
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
        "write one as in ip-ranges.json, such as \"S3\"".to_owned()
    };
    Err(format!("{text:?} is not a service: {hint}"))
}

/// Where the document comes from; relative paths only on the command line.
pub(super) fn source(text: &str, relative: bool) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(format!("{text:?} is not a URL or path"));
    }
    // A colon before any slash makes a scheme; RFC 3986, section 4.2 knows no other way.
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
                    "{text:?} has no host: write one such as \"https://ip-ranges.amazonaws.com/ip-ranges.json\""
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
                    "{text:?} is no local file: write file:/// and the absolute path"
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
