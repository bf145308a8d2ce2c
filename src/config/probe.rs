//! `[probe]`: the health checks of the ways out.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::texts::address;
use super::{AutoOr, settings};

/// The host of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetHost {
    Address(IpAddr),
    /// A name, resolved before the probes.
    Name(String),
}

/// A TCP server that answers probes. A refused connection is an answer too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub host: TargetHost,
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
            TargetHost::Address(v4) => write!(f, "{v4}:{}", self.port),
            TargetHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Three operators with anycast addresses, each with both families: Cloudflare, Google, Quad9. All
/// serve DNS over HTTPS. Addresses and not names, so that an outage of DNS is no outage of a gateway.
const TARGETS: [&str; 6] = [
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2620:fe::fe",
];

fn targets() -> Vec<Target> {
    let target = |address| Target {
        host: TargetHost::Address(address),
        port: 443,
    };
    let addresses = TARGETS.iter().filter_map(|text| text.parse().ok());
    addresses.map(target).collect()
}

settings! {
    /// `[probe]`: health checks of the ways out.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ProbeConfig {
        pub enabled: bool = true,
        /// The servers that answer probes through the gateways.
        pub targets: Vec<Target> = targets(),
        /// The servers that answer probes of the bypass path; `auto` is the S3 endpoint of each selected
        /// region.
        pub bypass_targets: Vec<AutoOr<Target>> = vec![AutoOr::Auto],
        /// The time between two probes of a gateway without traffic.
        // 10,000 hosts with three gateways send 3,000 probes a second to all targets together.
        pub interval: Duration = Duration::from_secs(10),
        /// The time between two probes of the bypass path.
        // Storage is noticed within five seconds: this time, the time limit, and the rounds.
        pub bypass_interval: Duration = Duration::from_millis(1500),
        /// The time after a change of the bypass path in which a failed round ends its use at once.
        pub settle: Duration = Duration::from_secs(5),
        /// The time between two rounds of probes while a gateway is in doubt.
        pub suspect_interval: Duration = Duration::from_millis(200),
        /// The time limit of a probe.
        // Below the first retransmission of a SYN, which comes after a second (RFC 6298).
        pub timeout: Duration = Duration::from_millis(900),
        /// The failed rounds in a row after which a path is down.
        pub fall: u32 = 3,
        /// The good rounds in a row after which a path that was down is up.
        pub rise: u32 = 2,
        /// The least time of good rounds before a path that was down is used again.
        pub hold: Duration = Duration::from_secs(10),
        /// The most that the hold of a path grows to.
        pub hold_limit: Duration = Duration::from_secs(300),
    }
}

impl ProbeConfig {
    /// True if gateways are probed.
    pub fn is_active(&self) -> bool {
        self.enabled && !self.targets.is_empty()
    }
}

/// Reads a target: a host and a port.
///
/// # Errors
/// The mistake, with the right form.
pub fn target(text: &str) -> Result<Target, String> {
    let wrong = |hint: String| Err(format!("{text:?} is not a target: {hint}"));
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?']).next().unwrap_or(rest);
        let port = if host.contains(':') { "" } else { ":443" };
        return wrong(format!(
            "probes open a TCP connection and send nothing: write \"{host}{port}\""
        ));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let host = TargetHost::Address(address);
        let whole = Target { host, port: 443 };
        return wrong(format!("write the port too, as \"{whole}\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong(format!("write the port too, as \"{text}:443\""));
    };
    let digits = port.chars().all(|c| c.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 && digits => port,
        _ => return wrong(format!("{port:?} is no port: write 1 to 65535")),
    };
    let host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inside) => match inside.parse::<Ipv6Addr>() {
            Ok(v6) => TargetHost::Address(address(&v6.to_string())?),
            Err(_) => return wrong(format!("{inside:?} is no IPv6 address")),
        },
        None if host.contains(':') => {
            return wrong(format!(
                "write an IPv6 address in brackets, as \"[{host}]:{port}\""
            ));
        }
        // A name of digits and dots alone is a mistyped address.
        None if host.chars().all(|c| c.is_ascii_digit() || c == '.') => {
            TargetHost::Address(address(host)?)
        }
        None if is_name(host) => TargetHost::Name(host.to_owned()),
        None => {
            return wrong(
                "write a host and a port, as \"192.0.2.1:443\" or \"partner.example:443\""
                    .to_owned(),
            );
        }
    };
    Ok(Target { host, port })
}

/// True for the name of a host (RFC 1123 §2.1).
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}
