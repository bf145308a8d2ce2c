//! `explain --probe`: a connection, and the source address that the other side sees.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::kernel::flows::source_seen;

/// Longest wait for a connection: two repetitions of the first packet, after 1 s and 3 s.
const WITHIN: Duration = Duration::from_secs(4);

/// An attempt to connect.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    /// Address and port.
    peer: SocketAddr,
    outcome: Outcome,
    took: Duration,
}

#[derive(Debug, Clone)]
enum Outcome {
    Connected {
        /// The socket's own address.
        local: SocketAddr,
        /// The source after this host's translation; else the reason for not knowing.
        sent: Result<SocketAddr, String>,
    },
    /// The other side, or a firewall on the way, answered with a refusal.
    Refused,
    /// No answer.
    TimedOut,
    Failed(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Outcome::Connected { .. } => "connected",
            Outcome::Refused => "refused",
            Outcome::TimedOut => "timed_out",
            Outcome::Failed(_) => "failed",
        }
    }
}

/// Connects to each address at the same time. The answers have the order of the addresses.
pub(super) async fn probe(addresses: &[IpAddr], port: u16) -> Vec<Probe> {
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let peer = SocketAddr::new(*address, port);
        attempts.spawn(async move { (index, connect(peer).await) });
    }
    let mut probes = attempts.join_all().await;
    probes.sort_by_key(|(index, _)| *index);
    probes.into_iter().map(|(_, probe)| probe).collect()
}

async fn connect(peer: SocketAddr) -> Probe {
    let started = Instant::now();
    let connected = tokio::time::timeout(WITHIN, TcpStream::connect(peer)).await;
    let took = started.elapsed();
    let outcome = match connected {
        Err(_) => Outcome::TimedOut,
        Ok(Ok(stream)) => match stream.local_addr() {
            // The stream is still open, so that conntrack still has its entry.
            Ok(local) => Outcome::Connected {
                local,
                sent: sent(local, peer),
            },
            Err(error) => Outcome::Failed(error.to_string()),
        },
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut => Outcome::TimedOut,
            _ => Outcome::Failed(error.to_string()),
        },
    };
    Probe {
        peer,
        outcome,
        took,
    }
}

/// The source address of the connection's packets as they leave this host.
fn sent(local: SocketAddr, peer: SocketAddr) -> Result<SocketAddr, String> {
    match source_seen(local, peer) {
        Ok(Some(source)) => Ok(source),
        // Only conntrack translates.
        Ok(None) => Ok(local),
        Err(error) => Err(error.to_string()),
    }
}

impl Probe {
    /// True if the connection opened.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.outcome, Outcome::Connected { .. })
    }

    /// One line for people. `gateway` is true if the path leads through a NAT gateway, which
    /// translates the packets again.
    pub(super) fn text(&self, gateway: bool) -> String {
        let peer = self.peer;
        let took = self.took.as_secs_f64() * 1e3;
        match &self.outcome {
            Outcome::Connected { local, sent } => {
                let source = match sent {
                    Ok(sent) if sent == local => format!("from {local}"),
                    Ok(sent) => format!("from {local}, translated on this host to {sent}"),
                    Err(reason) => format!(
                        "from {local}; a translation on this host is unknown ({reason}): run as root"
                    ),
                };
                let further = if gateway {
                    "; the egress gateway puts its own address in this place: run the command \
                     there to see the address"
                } else {
                    ""
                };
                format!("connected to {peer} in {took:.1} ms, {source}{further}")
            }
            Outcome::Refused => format!("{peer} refused the connection after {took:.1} ms"),
            Outcome::TimedOut => format!("{peer} gave no answer within {took:.0} ms"),
            Outcome::Failed(error) => format!("no connection to {peer}: {error}"),
        }
    }

    /// The object of `-o json`.
    pub(super) fn to_json(&self, gateway: bool) -> Value {
        let (local, sent) = match &self.outcome {
            Outcome::Connected { local, sent } => (Some(local), sent.as_ref().ok()),
            _ => (None, None),
        };
        let error = match &self.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        };
        json!({
            "peer": self.peer,
            "outcome": self.outcome.word(),
            "took_ms": self.took.as_secs_f64() * 1e3,
            "local": local,
            "source": sent,
            "translated_by_gateway": gateway,
            "error": error,
        })
    }
}
