//! Parsers for values of flags and arguments, and the exit code of a parser error.

use std::net::IpAddr;

use clap::error::ErrorKind;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::exit;
use crate::types::SyncToken;

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        "not an IP address; names are not resolved: pass one address of the name \
         (`getent ahosts NAME` lists them)"
            .to_owned()
    })?;
    // Programs with IPv6 sockets log an IPv4 peer as ::ffff:192.0.2.1; the packets are IPv4.
    match address.to_canonical() {
        address if address.is_unspecified() => {
            Err("the unspecified address is no destination of packets".to_owned())
        }
        address => Ok(address),
    }
}

pub(super) fn sync_token(text: &str) -> Result<SyncToken, String> {
    text.parse().map(SyncToken).map_err(|_| {
        "a sync token is the number in the hold's message and in `syncToken` of the document, \
         such as 1710355389"
            .to_owned()
    })
}

/// Reads a span before now, such as `2h`, or a time.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let span = text.parse::<Span>().ok().filter(|span| span.is_positive());
    span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .and_then(|span| Timestamp::now().checked_sub(span).ok())
        .ok_or_else(|| {
            "expected a span before now, such as 90min, 2h or 3d, or a time such as \
             2026-11-28T03:00:00Z"
                .to_owned()
        })
}

/// The exit code after an error or a help text from clap. The default of clap for wrong usage, 2,
/// means "changes pending" here.
pub fn exit_code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
        _ => exit::USAGE,
    }
}
