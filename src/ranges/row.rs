//! The strict parser of a row's prefix.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::publisher::Row;
use crate::printable::shortened;
use crate::types::{Family, has_leading_zero};

/// Why the prefix of a row is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// No prefix of the family whose list holds the row.
    #[error("not an {0} prefix")]
    NotAPrefix(&'static str),
    /// A number that some readers parse as decimal and others as octal.
    #[error("a number begins with 0, which some readers take for octal")]
    LeadingZero,
    /// A selected row must name all three: without a name, the row may or may not be selected.
    #[error("the row has no {0}")]
    Missing(&'static str),
    /// Address bits behind the length: one typing error may have changed the network.
    #[error("host bits are set; its network would be {0}")]
    HostBits(IpNet),
}

/// A row with an unusable prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row `{prefix}` ({service}, {region}): {reason}")]
pub struct BadRow {
    pub prefix: String,
    pub service: String,
    pub region: String,
    pub reason: BadPrefix,
}

/// The longest quotation of a row's field, in characters.
const LONGEST_QUOTE: usize = 60;

impl BadRow {
    fn new(row: &Row<'_>, reason: BadPrefix) -> BadRow {
        BadRow {
            prefix: shortened(&row.prefix, LONGEST_QUOTE),
            service: shortened(&row.service, LONGEST_QUOTE),
            region: shortened(&row.region, LONGEST_QUOTE),
            reason,
        }
    }
}

/// Splits the text at the slash. The standard library parses addresses in half the time of ipnet's
/// parser and rejects leading zeros in addresses, but accepts the lengths "+19" and "019".
fn address_and_length(text: &str) -> Option<(&str, u8)> {
    let (address, length) = text.split_once('/')?;
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (length.len() == 1 || !length.starts_with('0'));
    Some((address, length.parse().ok().filter(|_| plain)?))
}

/// Parses the prefix of a row that names its service and its region.
pub(super) fn parse_prefix(row: &Row<'_>) -> Result<IpNet, BadRow> {
    for (field, name) in [(&row.service, "service"), (&row.region, "region")] {
        if field.is_empty() {
            return Err(BadRow::new(row, BadPrefix::Missing(name)));
        }
    }
    let parsed = address_and_length(&row.prefix).and_then(|(address, length)| {
        let prefix = match row.family {
            Family::Ipv4 => IpNet::V4(Ipv4Net::new(address.parse().ok()?, length).ok()?),
            Family::Ipv6 => IpNet::V6(Ipv6Net::new(address.parse().ok()?, length).ok()?),
        };
        Some(prefix)
    });
    let reason = match parsed {
        None if row.prefix.is_empty() => BadPrefix::Missing("prefix"),
        Some(prefix) if prefix.trunc() == prefix => return Ok(prefix),
        Some(prefix) => BadPrefix::HostBits(prefix.trunc()),
        None => match row.family {
            Family::Ipv4 if has_leading_zero(&row.prefix) => BadPrefix::LeadingZero,
            Family::Ipv4 => BadPrefix::NotAPrefix("IPv4"),
            Family::Ipv6 => BadPrefix::NotAPrefix("IPv6"),
        },
    };
    Err(BadRow::new(row, reason))
}
