//! The EC2 instance metadata service, version 2 only ("Use IMDSv2", Amazon EC2 User Guide).
//!
//! Paths and formats follow "Instance metadata categories" in the same guide. The facts decide the
//! path of traffic, so an answer in another format (a captive portal's page, for example) is an
//! error with the start of the answer.

mod error;
mod formats;
mod machine;
mod settings;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};

pub use error::ImdsError;
use formats::{ipv4, is_region, network, zone};
pub(crate) use formats::{is_instance_id, mac_address};
pub use machine::is_ec2;
pub use settings::{BUDGET, IPV4_ENDPOINT, IPV6_ENDPOINT, ImdsSettings};

use super::client::chain;
use crate::facts::InstanceFacts;
use crate::types::{PerFamily, Region};

/// Lifetime of the token, between 1 and 21,600 ("Use IMDSv2"). A short one is enough, since the
/// token is used only within the budget.
const TOKEN_SECONDS: &str = "60";
/// Real answers have a few hundred bytes; a VPC has at most 50 CIDRs of a family.
const MAX_ANSWER: usize = 64 * 1024;

/// The lengths of a VPC's CIDRs ("VPC CIDR blocks", Amazon VPC User Guide).
const VPC_LENGTHS: PerFamily<RangeInclusive<u8>> = PerFamily {
    ipv4: 16..=28,
    ipv6: 44..=60,
};
/// The lengths of a subnet's CIDRs ("Subnet CIDR blocks", Amazon VPC User Guide).
const SUBNET_LENGTHS: PerFamily<RangeInclusive<u8>> = PerFamily {
    ipv4: 16..=28,
    ipv6: 44..=64,
};
const NETWORKS: &str =
    "a list of networks as AWS assigns them (IPv4 /16 to /28, IPv6 /44 to /60, of a subnet to /64)";

/// The facts that the caller needs; no other path is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    pub instance_id: bool,
    pub region: bool,
    /// The availability zone.
    #[serde(default)]
    pub zone: bool,
    /// The VPC's CIDRs, both families, by the primary interface.
    pub vpc_cidrs: bool,
    /// The subnet's CIDRs, both families, by the primary interface.
    pub subnet_cidrs: bool,
    /// The private addresses behind public ones, on all interfaces.
    pub public_addresses: bool,
}

impl Wanted {
    /// True if the caller needs no fact at all.
    pub fn is_nothing(self) -> bool {
        self == Wanted::default()
    }

    /// True if an answer to `self` answers `other` too. The zone is only a preference: an answer without
    /// it is good enough.
    pub fn covers(self, other: Wanted) -> bool {
        (self.instance_id || !other.instance_id)
            && (self.region || !other.region)
            && (self.vpc_cidrs || !other.vpc_cidrs)
            && (self.subnet_cidrs || !other.subnet_cidrs)
            && (self.public_addresses || !other.public_addresses)
    }
}

/// Requests all wanted facts within the budget.
///
/// # Errors
/// [`ImdsError`]; there are no partial answers. 404 counts as "none" only where AWS documents the
/// status: for one of the two families, and for public addresses.
pub async fn ask(wanted: Wanted, settings: &ImdsSettings) -> Result<InstanceFacts, ImdsError> {
    if wanted.is_nothing() {
        return Ok(InstanceFacts::default());
    }
    let client = Client::builder()
        .user_agent(concat!("trailblazer/", env!("CARGO_PKG_VERSION")))
        // A proxy would return the facts of its own instance. A redirect is no answer.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .tls_certs_only([])
        .build()
        .map_err(|error| ImdsError::NoAnswer(chain(&error)))?;
    let deadline = tokio::time::Instant::now() + settings.budget;
    let mut session = open_session(client, settings, deadline).await?;
    match tokio::time::timeout_at(deadline, session.gather(wanted)).await {
        Ok(facts) => facts,
        Err(_elapsed) => Err(ImdsError::Slow {
            path: session.asking,
            budget: settings.budget,
        }),
    }
}

/// Gets a token from the first endpoint with any answer: a refusal comes from the service, whose
/// other endpoint would refuse as well.
async fn open_session(
    client: Client,
    settings: &ImdsSettings,
    deadline: tokio::time::Instant,
) -> Result<Session, ImdsError> {
    let mut silent = Vec::new();
    for (index, endpoint) in settings.endpoints.iter().enumerate() {
        // Each endpoint gets an equal part of the remaining time: outside of EC2, the IPv4 address
        // is often a black hole, and must not use up the time of the IPv6 address.
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let share = left / u32::try_from(settings.endpoints.len() - index).unwrap_or(1);
        match tokio::time::timeout(share, token(&client, endpoint)).await {
            Ok(Ok(token)) => {
                return Ok(Session {
                    client,
                    endpoint: endpoint.clone(),
                    token,
                    asking: String::new(),
                });
            }
            Ok(Err(ImdsError::Transport { problem, .. })) => {
                silent.push(format!("{endpoint}: {problem}"));
            }
            Ok(Err(refused)) => return Err(refused),
            Err(_elapsed) => silent.push(format!("{endpoint}: nothing within {share:.0?}")),
        }
    }
    Err(ImdsError::NoAnswer(silent.join("; ")))
}

async fn token(client: &Client, endpoint: &Url) -> Result<String, ImdsError> {
    const PATH: &str = "latest/api/token";
    let response = client
        .request(Method::PUT, join(endpoint, PATH))
        .header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)
        .send()
        .await
        .map_err(|error| transport(PATH, &error))?;
    if response.status() != StatusCode::OK {
        return Err(ImdsError::NoToken {
            endpoint: endpoint.to_string(),
            status: response.status(),
        });
    }
    let token = text(PATH, response).await?;
    // Base64 in fact; the check only excludes web pages and illegal header values.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(garbage(PATH, &token, "a token"));
    }
    Ok(token)
}

/// A token, and the requests with the token.
struct Session {
    client: Client,
    endpoint: Url,
    token: String,
    /// The current path, for the message after a timeout.
    asking: String,
}

impl Session {
    async fn gather(&mut self, wanted: Wanted) -> Result<InstanceFacts, ImdsError> {
        let mut facts = InstanceFacts::default();
        if wanted.instance_id {
            facts.instance_id = Some(
                self.one("instance-id", "an instance id", |id| {
                    is_instance_id(id).then(|| id.to_owned())
                })
                .await?,
            );
        }
        if wanted.region {
            facts.region = Some(
                self.one("placement/region", "a region", |name| {
                    is_region(name).then(|| Region::from(name))
                })
                .await?,
            );
        }
        if wanted.zone {
            let path = "placement/availability-zone";
            // A preference alone: without a zone of this host, zones do not count.
            if let Some(text) = self.get(path).await? {
                let found = zone(text.trim());
                let found = found.ok_or_else(|| garbage(path, &text, "the name of a zone"))?;
                facts.zone = Some(found);
            }
        }
        if wanted.vpc_cidrs || wanted.subnet_cidrs {
            let mac = self.one("mac", "a MAC address", mac_address).await?;
            let interface = format!("network/interfaces/macs/{mac}");
            if wanted.vpc_cidrs {
                let paths = ["vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks"];
                facts.vpc_cidrs = self.cidrs(&interface, paths, VPC_LENGTHS).await?;
            }
            if wanted.subnet_cidrs {
                let paths = ["subnet-ipv4-cidr-block", "subnet-ipv6-cidr-blocks"];
                facts.subnet_cidrs = self.cidrs(&interface, paths, SUBNET_LENGTHS).await?;
            }
            facts.mac = Some(mac);
        }
        if wanted.public_addresses {
            facts.public_addresses = self.public_addresses().await?;
        }
        Ok(facts)
    }

    /// The CIDRs of both families. One family may be missing, but every network has a CIDR.
    async fn cidrs(
        &mut self,
        interface: &str,
        paths: [&str; 2],
        lengths: PerFamily<RangeInclusive<u8>>,
    ) -> Result<Vec<IpNet>, ImdsError> {
        let mut found: Vec<IpNet> = Vec::new();
        for name in paths {
            let path = format!("{interface}/{name}");
            let parse = |line: &str| network(line, &lengths);
            found.extend(self.list(&path, NETWORKS, parse).await?);
        }
        if found.is_empty() {
            return Err(ImdsError::Status {
                path: format!("{interface}/{} (and for IPv6)", paths[0]),
                status: StatusCode::NOT_FOUND,
            });
        }
        Ok(found)
    }

    /// IPv4 only: an IPv6 address of an instance needs no translation to a public address.
    async fn public_addresses(&mut self) -> Result<BTreeMap<IpAddr, IpAddr>, ImdsError> {
        const MACS: &str = "network/interfaces/macs/";
        let macs = self
            .list(MACS, "a list of MAC addresses", |line| {
                mac_address(line.trim_end_matches('/'))
            })
            .await?;
        if macs.is_empty() {
            return Err(ImdsError::Status {
                path: MACS.to_owned(),
                status: StatusCode::NOT_FOUND,
            });
        }
        let mut found = BTreeMap::new();
        for mac in macs {
            let associations = format!("{MACS}{mac}/ipv4-associations/");
            let public = self
                .list(&associations, "a list of IPv4 addresses", ipv4)
                .await?;
            for address in public {
                let path = format!("{associations}{address}");
                let private = self.one(&path, "one IPv4 address", ipv4).await?;
                found.insert(address, private);
            }
        }
        Ok(found)
    }

    async fn one<T>(
        &mut self,
        path: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ImdsError> {
        match self.get(path).await? {
            Some(text) => parse(text.trim()).ok_or_else(|| garbage(path, &text, expected)),
            None => Err(ImdsError::Status {
                path: path.to_owned(),
                status: StatusCode::NOT_FOUND,
            }),
        }
    }

    /// One value a line. 404 means an empty list; an empty page is an error.
    async fn list<T>(
        &mut self,
        path: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ImdsError> {
        let Some(text) = self.get(path).await? else {
            return Ok(Vec::new());
        };
        let lines: Option<Vec<T>> = text.lines().map(|line| parse(line.trim())).collect();
        lines
            .filter(|lines| !lines.is_empty())
            .ok_or_else(|| garbage(path, &text, expected))
    }

    async fn get(&mut self, path: &str) -> Result<Option<String>, ImdsError> {
        self.asking = path.to_owned();
        let response = self
            .client
            .get(join(&self.endpoint, &format!("latest/meta-data/{path}")))
            .header("X-aws-ec2-metadata-token", &self.token)
            .send()
            .await
            .map_err(|error| transport(path, &error))?;
        match response.status() {
            StatusCode::OK => text(path, response).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(ImdsError::Status {
                path: path.to_owned(),
                status,
            }),
        }
    }
}

fn join(endpoint: &Url, path: &str) -> Url {
    // Not Url::join: the colons of a MAC address could be taken for a scheme.
    let mut url = endpoint.clone();
    url.set_path(&format!("{}{path}", endpoint.path()));
    url
}

fn transport(path: &str, error: &reqwest::Error) -> ImdsError {
    ImdsError::Transport {
        path: path.to_owned(),
        problem: chain(error),
    }
}

async fn text(path: &str, mut response: Response) -> Result<String, ImdsError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| transport(path, &error))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            let start = String::from_utf8_lossy(&bytes);
            return Err(garbage(path, &start, "a short answer"));
        }
    }
    String::from_utf8(bytes)
        .map_err(|error| garbage(path, &String::from_utf8_lossy(error.as_bytes()), "text"))
}

fn garbage(path: &str, text: &str, expected: &'static str) -> ImdsError {
    ImdsError::Garbage {
        path: path.to_owned(),
        start: text.chars().take(60).collect(),
        expected,
    }
}
