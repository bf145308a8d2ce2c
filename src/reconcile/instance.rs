//! Facts from the instance metadata service, and the cached answer for times without the service.

use std::path::Path;

use ipnet::IpNet;

use super::memory::Memory;
use super::{Job, Mode, PassError};
use crate::clock;
use crate::config::{AutoOr, Config, Role};
use crate::degraded::{Degradation, Part};
use crate::desired::special;
use crate::facts::{HostFacts, InstanceFacts, Link};
use crate::notes::Notes;
use crate::ranges::Selector;
use crate::source::imds::{self, ImdsError, ImdsSettings, Wanted};
use crate::state::agent_lock;
use crate::state::instance_facts::{self, CachedFacts, DMI_ASSET_TAG, MachineKey};
use crate::state::patience::in_time;
use crate::state::store::Store;
use crate::types::{Family, Region};

#[derive(Debug, Default)]
pub(super) enum Metadata {
    /// No question was asked: a cached answer for this machine counts, if there is one.
    #[default]
    NotAsked,
    /// The running agent asks, and stores its answers.
    LeftToAgent,
    Answer {
        asked_for: Wanted,
        answer: Result<InstanceFacts, ImdsError>,
    },
}

/// The setting that can't do without the service, with advice for the operator.
fn needed(config: &Config, role: Role, own: &[IpNet]) -> Option<&'static str> {
    let explicit_vpc = config.vpc_cidrs.iter().any(|cidr| cidr.set().is_some());
    if config.select.regions.contains(&AutoOr::Auto) {
        return Some("[select] regions = [\"auto\"]; set the region");
    }
    if role == Role::Nat && config.nat.sources == AutoOr::Auto && !explicit_vpc {
        return Some("[nat] sources = \"auto\"; set the networks");
    }
    (role == Role::Nat && foreign_egress(config, own))
        .then_some("[nat] egress_addresses with an address that this host doesn't have; set the private one behind it")
}

/// True if an egress address may be an Elastic IP: an address outside private space and outside the
/// host's networks. The address of a standby instance lies inside, and needs no answer.
fn foreign_egress(config: &Config, own: &[IpNet]) -> bool {
    let mut egress = config.nat.egress_addresses.iter();
    egress.any(|address| !special::is_near(own, *address))
}

fn wanted(config: &Config, role: Role, own: &[IpNet]) -> Wanted {
    let nat_auto = role == Role::Nat && config.nat.sources == AutoOr::Auto;
    let mut wanted = Wanted {
        region: config.select.regions.contains(&AutoOr::Auto),
        vpc_cidrs: config.vpc_cidrs.contains(&AutoOr::Auto) || nat_auto,
        zone: role == Role::Host && config.egress.zone == AutoOr::Auto && config.egress.has_zones(),
        public_addresses: role == Role::Nat && foreign_egress(config, own),
        ..Wanted::default()
    };
    wanted.instance_id = !wanted.is_nothing();
    wanted
}

/// Asks for the facts that the settings need, unless the running agent does: a command must not
/// wait for a silent service. A pass still asks for facts that the agent has not stored.
pub(super) async fn ask_beside_agent(job: Job<'_>, own: &[IpNet]) -> Metadata {
    let asked_for = wanted(job.config, job.role_of_facts(), own);
    let state_dir = &job.config.source.state_dir;
    if !asked_for.is_nothing() && agent_lock::is_held(state_dir) {
        let store = Store::open(state_dir);
        let stored = in_time(state_dir, move || {
            instance_facts::answers(&store, asked_for)
        });
        if job.options.mode != Mode::Apply || stored.unwrap_or(false) {
            return Metadata::LeftToAgent;
        }
    }
    ask(job, own).await
}

/// Asks for the facts that the settings need.
pub(super) async fn ask(job: Job<'_>, own: &[IpNet]) -> Metadata {
    let asked_for = wanted(job.config, job.role_of_facts(), own);
    if asked_for.is_nothing() {
        return Metadata::NotAsked;
    }
    let answer = match ImdsSettings::permitted(job.config.metadata) {
        Ok(settings) => imds::ask(asked_for, &settings).await,
        Err(error) => Err(error),
    };
    Metadata::Answer { asked_for, answer }
}

/// The facts of the instance, with notes.
pub(super) struct Learned {
    /// The lack of facts is an error only if a setting needs them.
    pub instance: Result<Option<InstanceFacts>, PassError>,
    pub notes: Notes,
    /// A region that waits for the operator.
    pub held: Option<Degradation>,
    /// The refusal of `--accept-region`.
    pub refusal: Option<PassError>,
}

impl Learned {
    fn new(instance: Result<Option<InstanceFacts>, PassError>, notes: Notes) -> Learned {
        Learned {
            instance,
            notes,
            held: None,
            refusal: None,
        }
    }

    /// The facts, with a region that waits for the operator.
    fn with(job: Job<'_>, instance: InstanceFacts, held: Option<&Region>, notes: Notes) -> Learned {
        Learned {
            held: held.map(|new| held_region(new, instance.region.as_ref())),
            refusal: refusal(job, instance.region.as_ref(), held),
            instance: Ok(Some(instance)),
            notes,
        }
    }
}

/// Refuses an `--accept-region` with any other region than the held one or the selected one.
fn refusal(job: Job<'_>, selected: Option<&Region>, held: Option<&Region>) -> Option<PassError> {
    let asked = job.options.accept_region.as_ref();
    let asked = asked.filter(|asked| Some(*asked) != selected)?;
    let why = match (held, selected) {
        (Some(held), _) => {
            format!("the held region is {held}; did you mean `--accept-region {held}`?")
        }
        (None, Some(selected)) => format!("no region is held; this instance runs in {selected}"),
        (None, None) => {
            "no region is held; a region is held only with \"auto\" in [select] regions".to_owned()
        }
    };
    let asked = asked.clone();
    Some(PassError::NotHeld { asked, why })
}

/// Learns the facts of the instance from the gathered answer, else from the last answer for this
/// same machine.
pub(super) fn learn(
    metadata: Metadata,
    job: Job<'_>,
    store: &Store,
    facts: &HostFacts,
    memory: Option<&mut Memory>,
) -> Learned {
    let wanted = wanted(job.config, job.role_of_facts(), &facts.own_networks());
    if wanted.is_nothing() {
        let nothing = Learned::new(Ok(None), Notes::default());
        return Learned {
            refusal: refusal(job, None, None),
            ..nothing
        };
    }
    let (error, was_asked) = match metadata {
        Metadata::NotAsked => {
            // A service that must not be asked is known as such before the first question.
            let refusal = ImdsSettings::permitted(job.config.metadata).err();
            (refusal.unwrap_or(ImdsError::NotAskedYet), false)
        }
        Metadata::LeftToAgent => (ImdsError::LeftToAgent, false),
        Metadata::Answer {
            answer: Err(error), ..
        } => (error, true),
        Metadata::Answer {
            asked_for,
            answer: Ok(instance),
        } => {
            if let Some(memory) = memory {
                memory.metadata_failure = None;
            }
            return answered(job, store, facts, asked_for, instance);
        }
    };
    // A pass without an answer repeats the failure of the last question, so that the note about
    // the service stays the same from pass to pass.
    let mut failure = error.to_string();
    match memory {
        Some(memory) if was_asked => memory.metadata_failure = Some(failure.clone()),
        Some(memory) => failure = memory.metadata_failure.clone().unwrap_or(failure),
        None => {}
    }
    let mut notes = Notes::default();
    match instance_facts::load(store, &machine(facts), wanted) {
        Ok(Some(cached)) => {
            if was_asked {
                notes.push_metadata(format!(
                    "metadata service: {error}; its answer of an earlier pass is used"
                ));
            }
            return remembered(job, store, facts, cached, notes);
        }
        Ok(None) => {}
        Err(unreadable) => notes.push_metadata(format!(
            "metadata service: the cached answer can't be read: {unreadable}"
        )),
    }
    let own = facts.own_networks();
    if let Some(setting) = needed(job.config, job.role_of_facts(), &own) {
        let error = PassError::Instance { error, setting };
        return Learned::new(Err(error), notes);
    }
    // The agent's own note is in its log and in `status`.
    if !matches!(error, ImdsError::LeftToAgent) {
        let without = if vpc_cidrs(job.config, None).is_empty() {
            "the CIDRs of the VPC are unknown ([vpc] cidrs sets them)"
        } else {
            "the CIDRs of the VPC are those of [vpc] cidrs alone"
        };
        notes.push_metadata(format!("metadata service: {failure}; {without}"));
    }
    Learned {
        refusal: refusal(job, None, None),
        ..Learned::new(Ok(None), notes)
    }
}

/// A fresh answer: judges the region, and stores the result.
fn answered(
    job: Job<'_>,
    store: &Store,
    facts: &HostFacts,
    asked_for: Wanted,
    mut instance: InstanceFacts,
) -> Learned {
    let region_alone = Wanted {
        region: true,
        ..Wanted::default()
    };
    // Damaged facts are replaced below, and nothing else names an earlier region.
    let earlier = instance_facts::load(store, &machine(facts), region_alone);
    let earlier = earlier
        .ok()
        .flatten()
        .and_then(|cached| cached.facts.region);
    let accepted = job.options.accept_region.as_ref();
    let held = instance_facts::hold_region(&mut instance, earlier.as_ref(), accepted);
    let mut notes = Notes::default();
    // A machine image keeps the document alone.
    if job.options.mode == Mode::Apply {
        notes.extend(save(store, facts, asked_for, &instance, held.as_ref()));
    }
    Learned::with(job, instance, held.as_ref(), notes)
}

/// A stored answer, with its held region.
fn remembered(
    job: Job<'_>,
    store: &Store,
    facts: &HostFacts,
    cached: CachedFacts,
    mut notes: Notes,
) -> Learned {
    let (mut instance, mut held) = (cached.facts, cached.held_region);
    if held.is_some() && held == job.options.accept_region {
        instance.region = held.take();
        if job.options.mode == Mode::Apply {
            notes.extend(save(store, facts, cached.wanted, &instance, None));
        }
    }
    let held = held.filter(|_| job.config.select.regions.contains(&AutoOr::Auto));
    Learned::with(job, instance, held.as_ref(), notes)
}

fn held_region(new: &Region, old: Option<&Region>) -> Degradation {
    let old = old.map_or("unknown", |region| region.0.as_str());
    let reason = format!(
        "hold region-changed: the metadata service names region {new}, but this instance ran in \
         {old}, which stays selected"
    );
    let advice = format!(
        "an instance never changes its region: look for another server at the service's address; \
         `trailblazer reconcile --accept-region {new}` selects the new one"
    );
    Degradation::new(Part::Selection, None, reason).with_advice(advice)
}

/// Every key of this machine.
fn machine(facts: &HostFacts) -> Vec<MachineKey> {
    let macs: Vec<String> = facts.links.iter().map(mac_of).collect();
    MachineKey::all(Path::new(DMI_ASSET_TAG), macs.iter().map(String::as_str))
}

/// Stores an answer for times without the service. Returns a note about a failure.
fn save(
    store: &Store,
    facts: &HostFacts,
    asked_for: Wanted,
    instance: &InstanceFacts,
    held: Option<&Region>,
) -> Option<String> {
    let machine = MachineKey::find(Path::new(DMI_ASSET_TAG), primary_mac(facts).as_deref())?;
    let now = clock::unix_seconds();
    let error = instance_facts::save(store, &machine, asked_for, instance, held, now).err()?;
    Some(format!(
        "the answer of the metadata service was not stored: {error}"
    ))
}

/// The MAC address of the interface with the default route.
fn primary_mac(facts: &HostFacts) -> Option<String> {
    let device = Family::ALL
        .into_iter()
        .find_map(|family| facts.defaults(family).first()?.device)?;
    facts.link(device).map(mac_of)
}

/// The MAC address as text, empty for a link without one.
fn mac_of(link: &Link) -> String {
    let bytes: Vec<String> = link.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// The CIDRs of the VPC: those of the settings, and with `auto` those of the metadata service.
pub fn vpc_cidrs(config: &Config, instance: Option<&InstanceFacts>) -> Vec<IpNet> {
    let mut cidrs: Vec<IpNet> = config
        .vpc_cidrs
        .iter()
        .filter_map(|cidr| cidr.set().copied())
        .collect();
    if let Some(instance) = instance {
        cidrs.extend(instance.vpc_cidrs.iter().copied());
    }
    cidrs.sort();
    cidrs.dedup();
    cidrs
}

/// The selected regions by name. `None` while `auto` has no answer.
pub fn regions(config: &Config, instance: Option<&InstanceFacts>) -> Option<Vec<Region>> {
    let mut regions = Vec::new();
    for region in &config.select.regions {
        let name = match region {
            AutoOr::Set(name) => name.clone(),
            AutoOr::Auto => instance?.region.clone()?,
        };
        if !regions.contains(&name) {
            regions.push(name);
        }
    }
    Some(regions)
}

/// The selection of the settings. Without an answer, `auto` selects no region.
pub fn selector(config: &Config, instance: Option<&InstanceFacts>) -> Selector {
    let select = &config.select;
    Selector {
        services: select.services.clone(),
        regions: regions(config, instance).unwrap_or_default(),
        families: select.families.clone(),
    }
}
