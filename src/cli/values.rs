//! Parsers for values of flags and arguments, and the exit code of a parser error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use ipnet::IpNet;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::exit;
use crate::types::SyncToken;

/// The argument of `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Address(IpAddr),
    /// Without host bits, and shorter than an address.
    Prefix(IpNet),
    /// A host name, to be resolved.
    Name(String),
}

pub(super) fn destination(text: &str) -> Result<Destination, String> {
    if text.contains("://") {
        return Err("a URL: pass its host alone".to_owned());
    }
    if text.contains('/') {
        let prefix: IpNet = text.parse().map_err(|_| {
            "not a prefix: write an address and a length, such as 52.216.0.0/15".to_owned()
        })?;
        if prefix.prefix_len() < prefix.max_prefix_len() {
            return Ok(Destination::Prefix(prefix.trunc()));
        }
        return address(prefix.addr()).map(Destination::Address);
    }
    if let Ok(found) = text.parse() {
        return address(found).map(Destination::Address);
    }
    if is_name(text) {
        return Ok(Destination::Name(text.to_owned()));
    }
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let hint = if text.contains('%') {
        ": remove the % and the interface"
    } else if text.parse::<SocketAddr>().is_ok() || text.starts_with('[') {
        ": write the address alone, without brackets and port (--probe=PORT names a port)"
    } else if text.chars().all(digits) && !text.is_empty() {
        ": an IPv4 address has four numbers from 0 to 255 without leading zeros"
    } else {
        ", such as 52.216.1.1, 52.216.0.0/15 or s3.amazonaws.com"
    };
    Err(format!(
        "neither an IP address nor a prefix nor a host name{hint}"
    ))
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    let port = text.parse::<u16>().ok().filter(|port| *port != 0);
    port.ok_or_else(|| "a TCP port is a number from 1 to 65535".to_owned())
}

/// Reads a number of lines.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a number, such as 50; --all prints everything".to_owned())
}

/// Reads a number of flows.
pub(super) fn flow_count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a number of flows, such as 1000".to_owned())
}

/// The argument of `probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbedWay {
    Gateway(IpAddr),
    /// The bypass path of both families.
    Bypass,
}

/// Reads a way.
pub(super) fn probed_way(text: &str) -> Result<ProbedWay, String> {
    match text {
        "bypass" => Ok(ProbedWay::Bypass),
        _ => gateway(text).map(ProbedWay::Gateway).map_err(|_| {
            "expected the address of a gateway, such as 10.0.1.10, or the word bypass".to_owned()
        }),
    }
}

/// Reads the address of a gateway.
pub(super) fn gateway(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>();
    let address = address.map(|address| address.to_canonical());
    address.map_err(|_| {
        "expected the address of a gateway, such as 10.0.1.10; `trailblazer status` lists them"
            .to_owned()
    })
}

fn address(address: IpAddr) -> Result<IpAddr, String> {
    // Programs with IPv6 sockets log an IPv4 peer as ::ffff:192.0.2.1; the packets are IPv4.
    match address.to_canonical() {
        address if address.is_unspecified() => {
            Err("the unspecified address is no destination of packets".to_owned())
        }
        IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err("the broadcast address of the link is no destination on the internet".to_owned())
        }
        address => Ok(address),
    }
}

/// True for the form of a host name (RFC 1123, with underscores). The last label of a name has a
/// letter, so that a mistyped address is none.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known) && !label.starts_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(is_label)
        && last.bytes().any(|byte| byte.is_ascii_alphabetic())
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

/// Takes the hidden commands out of an error's lists and proposals: clap lists them too.
pub fn without_hidden_commands(mut error: clap::Error) -> clap::Error {
    let program = super::Cli::command();
    let shown = |name: &String| {
        let mut commands = program.get_subcommands();
        !commands.any(|command| command.is_hide_set() && command.get_name() == name)
    };
    for kind in [
        ContextKind::ValidSubcommand,
        ContextKind::SuggestedSubcommand,
    ] {
        let Some(ContextValue::Strings(names)) = error.remove(kind) else {
            continue;
        };
        let names: Vec<String> = names.into_iter().filter(shown).collect();
        if !names.is_empty() {
            error.insert(kind, ContextValue::Strings(names));
        }
    }
    error
}

/// The exit code after an error or a help text from clap. The default of clap for wrong usage, 2,
/// means "changes pending" here.
pub fn exit_code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
        _ => exit::USAGE,
    }
}
