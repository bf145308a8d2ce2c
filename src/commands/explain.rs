//! `trailblazer explain ADDRESS`: the path of a packet, the reason, and the kernel's own answer.

mod answer;
mod text;

use std::net::IpAddr;

use ipnet::IpNet;

use super::{broken_config, complain, print, role_of};
use crate::cli::ExplainArgs;
use crate::config::{Config, Role};
use crate::degraded::{Degradation, Part};
use crate::desired::{DesiredState, EgressPath, special};
use crate::exit;
use crate::judge::{self, Agreement, Expected, judge_redirects, table_text};
use crate::kernel::Kernel;
use crate::objects::Via;
use crate::ownership::Numbers;
use crate::ranges::{Document, Origin};
use crate::reconcile::{Asking, Examined, Firewalls, PassError, View, examine};
use crate::types::{Family, SyncToken};
use crate::verify::{judge_kernel, learned_hops, silent_gateways};
use answer::KernelAnswer;

/// Runs `explain` and returns the exit code.
pub async fn run(arguments: &ExplainArgs) -> u8 {
    let common = &arguments.common;
    let shown = match broken_config::settings(&common.base, &common.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let role = match role_of(&shown.loaded) {
        Ok(role) => role,
        Err(code) => return code,
    };
    let asking = if common.source.is_empty() {
        Asking::Nobody
    } else {
        Asking::Source
    };
    match explain(&shown.loaded.config, role, asking, arguments.address).await {
        Ok(mut explanation) => {
            explanation.partial = shown.partial;
            explanation.notes.extend(shown.fault);
            print(
                common.base.output,
                || explanation.to_text(),
                || explanation.to_json(),
            );
            if explanation.agrees() {
                exit::OK
            } else {
                exit::FAILED
            }
        }
        Err(error) => {
            complain(&error);
            exit::FAILED
        }
    }
}

/// The path of a packet by the config and the document.
#[derive(Debug)]
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
    numbers: Numbers,
    answers: Vec<KernelAnswer>,
    /// True if the kernel has a rule of ours in the address's family.
    in_force: bool,
    /// Obstacles behind the routing decision, in the way of forwarded packets.
    obstacles: Vec<Degradation>,
    /// True if the config file is broken, and no agent tells the settings in force.
    partial: bool,
    notes: Vec<String>,
}

impl Explanation {
    fn agrees(&self) -> bool {
        self.is_routed() && self.obstacles.is_empty()
    }

    /// True if each routing decision is the promised one.
    fn is_routed(&self) -> bool {
        self.answers
            .iter()
            .all(|answer| answer.agreement == Agreement::Yes)
    }
}

/// Runs the first stages of a pass. The place of foreign translation depends on the firewall in use
/// (NAT role); routes and rules need no firewall.
async fn look(
    config: &Config,
    role: Role,
    asking: Asking,
    kernel: &mut Kernel,
) -> Result<Examined, PassError> {
    if role == Role::Nat {
        match examine(config, role, asking, Firewalls::Chosen, kernel).await {
            Err(PassError::Firewall(_) | PassError::NoFirewall(_)) => {}
            examined => return examined,
        }
    }
    examine(config, role, asking, Firewalls::Ignored, kernel).await
}

/// The gateways of an address's path that answer no address resolution.
fn silent_on_path(
    promise: &judge::Promise<'_>,
    expected: &Expected,
    family: Family,
    kernel: &mut Kernel,
) -> Result<Vec<Degradation>, PassError> {
    let part = match expected {
        Expected::Bypass(_) => Part::Bypass,
        Expected::Egress | Expected::Main => Part::Egress,
        Expected::Closed => return Ok(Vec::new()),
    };
    let mut found = silent_gateways(promise, kernel)?;
    found.retain(|silent| silent.part == part && silent.family == Some(family));
    Ok(found)
}

async fn explain(
    config: &Config,
    role: Role,
    asking: Asking,
    address: IpAddr,
) -> Result<Explanation, PassError> {
    let mut kernel = Kernel::open()?;
    let mut examined = look(config, role, asking, &mut kernel).await?;
    let family = Family::of(address);
    let mut notes: Vec<String> = examined.notes.texts().map(str::to_owned).collect();
    notes.extend(examined.judgement.verdicts.iter().map(ToString::to_string));
    if let Some(complaint) = &examined.complaint {
        notes.push(complaint.to_string());
    }
    if examined.judgement.nothing_in_force {
        // Without a document a pass keeps the bypass routes, so explain the routes in the kernel.
        notes.push("no document available: this answer uses the routes in the kernel".to_owned());
        examined.view.prefixes = Some(examined.view.kernel_prefixes());
    }
    let desired = examined.view.settled(&mut kernel, config, role)?;
    let view = &examined.view;
    notes.extend(desired.notes.iter().cloned());
    let degraded = examined.judgement.degraded.iter().chain(&desired.degraded);
    notes.extend(degraded.map(|missing| format!("degraded: {missing}")));
    let expected = expected(view, &desired, address);
    let answers = answer::ask(view, &desired, &expected, address, &mut kernel)?;
    let verdicts = judge_kernel(&view.promise(&desired), &mut kernel)?;
    let home = special::thrown(family, &view.vpc_cidrs);
    let leaves =
        !home.iter().any(|prefix| prefix.contains(&address)) && !view.facts.is_own(address);
    let translated = expected == Expected::Main;
    let concerns = |found: &Degradation| {
        let part = found.part == Part::Forwarding || translated && found.part == Part::Translation;
        leaves && part && found.family.is_none_or(|other| other == family)
    };
    let mut obstacles: Vec<Degradation> = verdicts
        .degraded
        .iter()
        .filter(|found| concerns(found))
        .cloned()
        .collect();
    let mut learned = learned_hops(&view.promise(&desired), &mut kernel)?;
    learned.retain(|redirect| redirect.destination == address);
    obstacles.extend(judge_redirects(&view.promise(&desired), &learned));
    obstacles.extend(silent_on_path(
        &view.promise(&desired),
        &expected,
        family,
        &mut kernel,
    )?);
    let doubts = verdicts.doubts.iter().filter(|found| concerns(found));
    notes.extend(doubts.map(ToString::to_string));
    let ranges = &examined.judgement.ranges;
    notes.dedup();
    Ok(Explanation {
        address,
        sync_token: ranges.sync_token,
        create_date: ranges.create_date.clone(),
        rows: rows(&examined, address),
        origins: ranges
            .origins_of(address)
            .into_iter()
            .map(|(origin, prefix)| (origin.clone(), prefix))
            .collect(),
        excluded_by: ranges.excluded_by(address),
        via: via(view, &desired, &expected, family),
        path: path(config, role, view, &desired, expected, address),
        numbers: view.ownership.current,
        answers,
        in_force: view
            .observed
            .rules
            .iter()
            .any(|rule| rule.family == family && view.ownership.owns_rule(rule)),
        obstacles,
        partial: false,
        notes,
    })
}

/// The expectation of the judge. While the bypass gateway is unavailable, a pass keeps the existing
/// bypass routes, so the existing routes are the expectation.
fn expected(view: &View, desired: &DesiredState, address: IpAddr) -> Expected {
    let family = Family::of(address);
    if *desired.frozen.get(family)
        && let Some(prefix) = view
            .kernel_prefixes()
            .get(family)
            .iter()
            .find(|prefix| prefix.contains(&address))
    {
        return Expected::Bypass(*prefix);
    }
    let numbers = &view.ownership.current;
    judge::expected(desired, numbers, &view.vpc_cidrs, address)
}

fn path(
    config: &Config,
    role: Role,
    view: &View,
    desired: &DesiredState,
    expected: Expected,
    address: IpAddr,
) -> ExpectedPath {
    let family = Family::of(address);
    if view.facts.is_own(address) {
        return ExpectedPath::Local;
    }
    match expected {
        Expected::Bypass(prefix) => ExpectedPath::Bypass(prefix),
        Expected::Closed => ExpectedPath::Closed,
        Expected::Egress => match &desired.paths.get(family).egress {
            EgressPath::Gateways(gateways) => ExpectedPath::Egress(gateways.clone()),
            EgressPath::Main | EgressPath::Closed => ExpectedPath::Egress(Vec::new()),
        },
        Expected::Main => {
            let home = special::thrown(family, &view.vpc_cidrs);
            let inside = home.iter().any(|prefix| prefix.contains(&address));
            let translated = role == Role::Nat && !inside;
            let addresses = config.nat.egress_addresses.iter().copied();
            ExpectedPath::Main(
                addresses
                    .filter(|own| translated && Family::of(*own) == family)
                    .collect(),
            )
        }
    }
}

/// The next hops of the bypass path: gateway and device.
fn via(
    view: &View,
    desired: &DesiredState,
    expected: &Expected,
    family: Family,
) -> Vec<(Option<IpAddr>, String)> {
    let Expected::Bypass(_) = expected else {
        return Vec::new();
    };
    let last = view.observed.last_bypass(&view.ownership);
    let path = desired.paths.get(family).bypass.as_ref();
    let Some(path) = path.or(last.get(family).as_ref()) else {
        return Vec::new();
    };
    let hop = |via: Via| (via.gateway, view.facts.device_name(via.device));
    path.vias().map(hop).collect()
}

/// Every row whose prefix contains the address, of any service and region.
fn rows(examined: &Examined, address: IpAddr) -> Vec<ListedPrefix> {
    let mut rows: Vec<ListedPrefix> = examined
        .documents
        .iter()
        .filter_map(|body| Document::parse(body).ok())
        .flat_map(|document| {
            document
                .rows
                .iter()
                .filter(|row| row.family == Family::of(address))
                .filter_map(|row| {
                    let prefix: IpNet = row.prefix.parse().ok()?;
                    prefix.contains(&address).then(|| ListedPrefix {
                        prefix,
                        service: row.service.to_string(),
                        region: row.region.to_string(),
                    })
                })
                .collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows.dedup();
    rows
}
