//! `trailblazer explain`: the path of packets to an address, a name or a prefix, the reason, and the
//! kernel's own answer.

mod answer;
mod candidates;
mod ground;
mod name;
mod prefix;
mod probe;
mod text;

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{broken_config, complain, print, role_of, vpc};
use crate::cli::{Destination, ExplainArgs};
use crate::degraded::Degradation;
use crate::exit;
use crate::judge::{Agreement, table_text};
use crate::ownership::Numbers;
use crate::ranges::Origin;
use crate::reconcile::{Asking, PassError};
use crate::types::SyncToken;
use answer::KernelAnswer;
use candidates::Candidate;
use ground::Ground;
pub(super) use name::resolve;
use probe::Probe;

/// The output of the command.
struct Page {
    text: String,
    json: Value,
    /// True for exit code 0.
    good: bool,
}

impl From<&Explanation> for Page {
    fn from(explanation: &Explanation) -> Page {
        Page {
            text: explanation.to_text(),
            json: explanation.to_json(),
            good: explanation.is_good(),
        }
    }
}

/// Runs `explain` and returns the exit code.
pub async fn run(arguments: &ExplainArgs) -> u8 {
    let common = &arguments.common;
    let prefix = matches!(arguments.destination, Destination::Prefix(_));
    if prefix && arguments.probe.is_some() {
        complain(&"--probe needs one address or a name: a prefix has no address to connect to");
        return exit::USAGE;
    }
    let shown = match broken_config::settings(&common.base, &common.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    if shown.loaded.config.vpc_role {
        return vpc::explain::run(arguments, &shown.loaded.config).await;
    }
    let role = match role_of(&shown.loaded) {
        Ok(role) => role,
        Err(code) => return code,
    };
    let asking = if common.source.is_empty() {
        Asking::Nobody
    } else {
        Asking::Source
    };
    let resolved = match &arguments.destination {
        Destination::Name(name) => match name::resolve(name).await {
            Ok(resolved) => resolved,
            Err(error) => {
                complain(&error);
                return exit::FAILED;
            }
        },
        Destination::Address(address) => name::Resolved::from(vec![*address]),
        Destination::Prefix(_) => name::Resolved::from(Vec::new()),
    };
    let ground = Ground::read(&shown, role, asking).await;
    let page = match ground {
        Ok(ground) => page(ground, arguments, &resolved).await,
        Err(error) => Err(error),
    };
    match page {
        Ok(page) => {
            print(common.base.output, || page.text, || page.json);
            if page.good { exit::OK } else { exit::FAILED }
        }
        Err(error) => {
            complain(&error);
            exit::FAILED
        }
    }
}

async fn page(
    mut ground: Ground<'_>,
    arguments: &ExplainArgs,
    resolved: &name::Resolved,
) -> Result<Page, PassError> {
    if let Destination::Prefix(prefix) = arguments.destination {
        return Ok(Page::from(&ground.explain_prefix(prefix)?));
    }
    let addresses = &resolved.addresses;
    let mut explanations = Vec::new();
    for address in addresses {
        explanations.push(ground.explain(*address)?);
    }
    if let Some(port) = arguments.probe {
        for (explanation, probe) in explanations
            .iter_mut()
            .zip(probe::probe(addresses, port).await)
        {
            explanation.probe = Some(probe);
        }
    }
    Ok(match &arguments.destination {
        Destination::Name(name) => {
            let left_out = resolved.left_out;
            Page::from(&name::Named::new(name, explanations, left_out))
        }
        _ => Page::from(&explanations[0]),
    })
}

/// The path of a packet by the config and the document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ExpectedPath {
    /// The address is this host's own.
    Local,
    Bypass(IpNet),
    Egress(Vec<IpAddr>),
    /// Blocked: the egress path is closed.
    Closed,
    /// By the main table. In the nat role, the packet leaves with one of the addresses.
    Main(Vec<IpAddr>),
}

/// A document's row whose prefix contains the address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ListedPrefix {
    prefix: IpNet,
    service: String,
    region: String,
}

/// The report of `explain`.
#[derive(Debug)]
struct Explanation {
    address: IpAddr,
    sync_token: Option<SyncToken>,
    create_date: String,
    rows: Vec<ListedPrefix>,
    origins: Vec<(Origin, IpNet)>,
    excluded_by: Option<IpNet>,
    path: ExpectedPath,
    /// Gateway and device of the bypass route.
    via: Vec<(Option<IpAddr>, String)>,
    /// The gateways of the egress path, those for new flows first.
    gateways: Vec<Candidate>,
    numbers: Numbers,
    answers: Vec<KernelAnswer>,
    /// True if the kernel has a rule of ours in the address's family.
    in_force: bool,
    /// Obstacles behind the routing decision, in the way of forwarded packets.
    obstacles: Vec<Degradation>,
    /// True if the config file is broken, and no agent tells the settings in force.
    partial: bool,
    notes: Vec<String>,
    probe: Option<Probe>,
}

impl Explanation {
    fn agrees(&self) -> bool {
        self.is_routed() && self.obstacles.is_empty()
    }

    /// True if the kernel agrees, and the connection of a probe opened.
    fn is_good(&self) -> bool {
        let probed = self.probe.as_ref();
        self.agrees() && probed.is_none_or(Probe::is_connected)
    }

    /// True if each routing decision is the promised one.
    fn is_routed(&self) -> bool {
        self.answers
            .iter()
            .all(|answer| answer.agreement == Agreement::Yes)
    }
}
