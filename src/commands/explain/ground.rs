//! The readings of the host that every answer of one command goes by.

use std::net::IpAddr;

use ipnet::IpNet;

use super::answer::{self, is_here};
use super::candidates::candidates;
use super::{ExpectedPath, Explanation, ListedPrefix};
use crate::commands::agent_health::AgentView;
use crate::commands::boot::SHUT;
use crate::commands::broken_config::Shown;
use crate::config::{Config, Role};
use crate::degraded::{Degradation, Part};
use crate::desired::{DesiredState, EgressPath, special};
use crate::judge::chain::BaseChain;
use crate::judge::{self, Expected, Promise, Verdicts, judge_redirects};
use crate::kernel::Kernel;
use crate::objects::Via;
use crate::printable::escaped;
use crate::ranges::Document;
use crate::reconcile::{Asking, Examined, Firewalls, PassError, View, examine};
use crate::types::Family;
use crate::verify::{judge_with_chains, learned_hops};

/// One reading, for any number of addresses.
pub(super) struct Ground<'a> {
    config: &'a Config,
    role: Role,
    partial: bool,
    pub kernel: Kernel,
    pub examined: Examined,
    pub desired: DesiredState,
    verdicts: Verdicts,
    pub chains: Vec<BaseChain>,
    rows: Vec<(Family, ListedPrefix)>,
    agent: AgentView,
    pub notes: Vec<String>,
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

impl<'a> Ground<'a> {
    /// Reads the host.
    pub(super) async fn read(
        shown: &'a Shown,
        role: Role,
        asking: Asking,
    ) -> Result<Ground<'a>, PassError> {
        let config = &shown.loaded.config;
        let mut kernel = Kernel::open()?;
        let mut examined = look(config, role, asking, &mut kernel).await?;
        let agent = AgentView::ask(config);
        examined.view.use_health(agent.health());
        let mut notes: Vec<String> = examined.notes.texts().map(str::to_owned).collect();
        notes.extend(examined.judgement.verdicts.iter().map(ToString::to_string));
        if let Some(complaint) = &examined.complaint {
            notes.push(complaint.to_string());
        }
        if examined.judgement.nothing_in_force {
            // Without a document a pass keeps the bypass routes, so explain the routes in the kernel.
            notes.push(
                "no document available: this answer uses the routes in the kernel".to_owned(),
            );
            examined.view.prefixes = Some(examined.view.kernel_prefixes());
        }
        let desired = examined.view.settled(&mut kernel, config, role)?;
        notes.extend(desired.messages().cloned());
        let degraded = examined.judgement.degraded.iter().chain(&desired.degraded);
        notes.extend(degraded.map(|missing| format!("degraded: {missing}")));
        let promise = examined.view.promise(&desired);
        let (verdicts, chains) = judge_with_chains(&promise, &mut kernel)?;
        notes.dedup();
        Ok(Ground {
            config,
            role,
            partial: shown.partial,
            kernel,
            rows: rows(&examined),
            examined,
            agent,
            desired,
            verdicts,
            chains,
            notes: notes.into_iter().chain(shown.fault.clone()).collect(),
        })
    }

    /// Explains one address.
    pub(super) fn explain(&mut self, address: IpAddr) -> Result<Explanation, PassError> {
        let family = Family::of(address);
        let expected = self.expected(address);
        let path = self.path(&expected, address);
        let (obstacles, doubts) = self.obstacles(&expected, address)?;
        let view = &self.examined.view;
        let promise = Promise {
            chains: &self.chains,
            ..view.promise(&self.desired)
        };
        let answers = answer::ask(view, &promise, &expected, address, &mut self.kernel)?;
        let ranges = &self.examined.judgement.ranges;
        let origins = ranges.origins_of(address).into_iter();
        let shut = view.observed.is_shut(&view.ownership);
        let shut = shut.then(|| SHUT.to_owned());
        let rows = self.rows.iter();
        Ok(Explanation {
            address,
            sync_token: ranges.sync_token,
            create_date: ranges.create_date.clone(),
            rows: rows
                .filter(|(of, row)| *of == family && row.prefix.contains(&address))
                .map(|(_, row)| row.clone())
                .collect(),
            origins: origins
                .map(|(origin, prefix)| (origin.clone(), prefix))
                .collect(),
            excluded_by: ranges.excluded_by(address),
            via: via(view, &self.desired, &expected, family),
            gateways: match &path {
                ExpectedPath::Egress(_) => {
                    candidates(self.config, view, &self.desired, family, &self.agent)
                }
                _ => Vec::new(),
            },
            path,
            numbers: view.ownership.current,
            answers,
            in_force: self.in_force(family),
            obstacles,
            partial: self.partial,
            notes: self
                .notes
                .iter()
                .cloned()
                .chain(doubts)
                .chain(shut)
                .collect(),
            probe: None,
        })
    }

    /// True if the kernel has a rule of ours in the family.
    fn in_force(&self, family: Family) -> bool {
        let view = &self.examined.view;
        let mut rules = view.observed.rules.iter();
        rules.any(|rule| rule.family == family && view.ownership.owns_rule(rule))
    }

    /// Obstacles behind the routing decision, and doubtful ones.
    fn obstacles(
        &mut self,
        expected: &Expected,
        address: IpAddr,
    ) -> Result<(Vec<Degradation>, Vec<String>), PassError> {
        let family = Family::of(address);
        let view = &self.examined.view;
        let home = special::thrown(family, &view.vpc_cidrs);
        let leaves =
            !home.iter().any(|prefix| prefix.contains(&address)) && !is_here(view, address);
        let translated = *expected == Expected::Main;
        let concerns = |found: &&Degradation| {
            let part =
                found.part == Part::Forwarding || translated && found.part == Part::Translation;
            leaves && part && found.family.is_none_or(|other| other == family)
        };
        let degraded = self.verdicts.degraded.iter();
        let mut obstacles: Vec<Degradation> = degraded.filter(concerns).cloned().collect();
        let promise = view.promise(&self.desired);
        let mut learned = learned_hops(&promise, &mut self.kernel)?;
        learned.retain(|redirect| redirect.destination == address);
        obstacles.extend(judge_redirects(&promise, &learned));
        let part = match expected {
            Expected::Bypass(_) => Some(Part::Bypass),
            Expected::Egress | Expected::Main => Some(Part::Egress),
            Expected::Closed => None,
        };
        let on_path = self.verdicts.on_path.iter();
        let on_path =
            on_path.filter(|found| Some(found.part) == part && found.family == Some(family));
        obstacles.extend(on_path.cloned());
        let doubts = self.verdicts.doubts.iter().filter(concerns);
        Ok((obstacles, doubts.map(ToString::to_string).collect()))
    }

    /// The expectation of the judge. While the bypass gateway is unavailable, a pass keeps the
    /// existing bypass routes, so the existing routes are the expectation.
    pub(super) fn expected(&self, address: IpAddr) -> Expected {
        let family = Family::of(address);
        let view = &self.examined.view;
        if *self.desired.frozen.get(family)
            && !self.desired.paths.get(family).diverted
            && let Some(prefix) = view
                .kernel_prefixes()
                .get(family)
                .iter()
                .find(|prefix| prefix.contains(&address))
        {
            return Expected::Bypass(*prefix);
        }
        let numbers = &view.ownership.current;
        judge::expected(&self.desired, numbers, &view.vpc_cidrs, address)
    }

    /// The path of packets to an address with this expectation.
    pub(super) fn path(&self, expected: &Expected, address: IpAddr) -> ExpectedPath {
        let family = Family::of(address);
        let view = &self.examined.view;
        if is_here(view, address) {
            return ExpectedPath::Local;
        }
        match expected {
            Expected::Bypass(prefix) => ExpectedPath::Bypass(*prefix),
            Expected::Closed => ExpectedPath::Closed,
            Expected::Egress => match &self.desired.paths.get(family).egress {
                EgressPath::Gateways(gateways) => ExpectedPath::Egress(gateways.clone()),
                EgressPath::Main | EgressPath::Closed => ExpectedPath::Egress(Vec::new()),
            },
            Expected::Main => {
                let home = special::thrown(family, &view.vpc_cidrs);
                let inside = home.iter().any(|prefix| prefix.contains(&address));
                let translated = self.role == Role::Nat && !inside;
                let addresses = self.config.nat.egress_addresses.iter().copied();
                ExpectedPath::Main(
                    addresses
                        .filter(|own| translated && Family::of(*own) == family)
                        .collect(),
                )
            }
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

/// All rows of the documents in force.
fn rows(examined: &Examined) -> Vec<(Family, ListedPrefix)> {
    let documents = examined.documents.iter();
    let documents = documents.filter_map(|body| Document::parse(body).ok());
    let mut rows = Vec::new();
    for document in documents {
        rows.extend(document.rows.iter().filter_map(|row| {
            let listed = ListedPrefix {
                prefix: row.prefix.parse::<IpNet>().ok()?,
                service: escaped(&row.service).into_owned(),
                region: escaped(&row.region).into_owned(),
            };
            Some((row.family, listed))
        }));
    }
    rows.sort();
    rows.dedup();
    rows
}
