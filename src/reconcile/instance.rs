//! What the metadata service must tell for this config, and its last word where it is silent.

use std::path::Path;

use ipnet::IpNet;

use super::gather::Metadata;
use super::{Pass, PassError};
use crate::config::{AutoOr, Config, Role};
use crate::facts::{HostFacts, InstanceFacts, Link};
use crate::source::imds::{self, ImdsError, ImdsSettings, Wanted};
use crate::state::instance_facts::{self, DMI_ASSET_TAG, MachineKey};
use crate::types::{Family, Region};

/// What of it the pass can't do without.
fn needed(config: &Config, role: Role, facts: &HostFacts) -> Option<&'static str> {
    let explicit_vpc = config.vpc_cidrs.iter().any(|cidr| cidr.set().is_some());
    if config.select.regions.contains(&AutoOr::Auto) {
        return Some("[select] regions = [\"auto\"]; set the region");
    }
    if role == Role::Nat && config.nat.sources == AutoOr::Auto && !explicit_vpc {
        return Some("[nat] sources = \"auto\"; set the networks");
    }
    (role == Role::Nat && foreign_egress(config, facts))
        .then_some("[nat] egress_addresses with an address that this host doesn't have; set the private one behind it")
}

fn foreign_egress(config: &Config, facts: &HostFacts) -> bool {
    config
        .nat
        .egress_addresses
        .iter()
        .any(|address| !facts.is_own(*address))
}

fn wanted(config: &Config, role: Role, facts: &HostFacts) -> Wanted {
    let nat_auto = role == Role::Nat && config.nat.sources == AutoOr::Auto;
    let mut wanted = Wanted {
        region: config.select.regions.contains(&AutoOr::Auto),
        vpc_cidrs: config.vpc_cidrs.contains(&AutoOr::Auto) || nat_auto,
        public_addresses: role == Role::Nat && foreign_egress(config, facts),
        ..Wanted::default()
    };
    wanted.instance_id = !wanted.is_nothing();
    wanted
}

/// Asks for what the settings want; `None` where they want nothing.
pub(super) async fn ask(
    config: &Config,
    role: Role,
    facts: &HostFacts,
) -> Option<Result<InstanceFacts, ImdsError>> {
    let wanted = wanted(config, role, facts);
    if wanted.is_nothing() {
        return None;
    }
    Some(match ImdsSettings::from_environment() {
        Ok(settings) => imds::ask(wanted, &settings).await,
        Err(error) => Err(error),
    })
}

/// The answer that was gathered ahead of the pass, or that to a question now; else the last one of
/// this same machine.
///
/// # Errors
/// Only where a setting needs the answer and there is none: then the note becomes the error.
pub(super) async fn learn(
    pass: &mut Pass<'_>,
    facts: &HostFacts,
) -> Result<Option<InstanceFacts>, PassError> {
    let (config, store) = (pass.config, &pass.store);
    // An image is baked on another machine: only the document goes along. What a NAT instance must
    // know of itself, it will ask where it boots.
    let (keep, role) = match pass.options.cache_only {
        true => (false, Role::Host),
        false => (!pass.options.dry_run, pass.role),
    };
    let answer = match &mut pass.gathered {
        Some(gathered) => std::mem::take(&mut gathered.metadata),
        None => match ask(config, role, facts).await {
            Some(answer) => Metadata::Answer(answer),
            None => Metadata::NotAsked,
        },
    };
    let notes = &mut pass.report.notes;
    let wanted = wanted(config, role, facts);
    if wanted.is_nothing() {
        return Ok(None);
    }
    let asset_tag = Path::new(DMI_ASSET_TAG);
    let asked = matches!(answer, Metadata::Answer(_));
    let mut failure = None;
    if let Some(memory) = pass.memory.as_deref_mut() {
        if let Metadata::Answer(answer) = &answer {
            memory.metadata_failure = answer.as_ref().err().map(ToString::to_string);
        }
        failure.clone_from(&memory.metadata_failure);
    }
    let answer = match answer {
        Metadata::Answer(answer) => answer,
        Metadata::NotAsked => Err(ImdsError::NotAskedYet),
    };
    let error = match answer {
        Ok(instance) => {
            if keep
                && let Some(machine) = MachineKey::find(asset_tag, primary_mac(facts).as_deref())
            {
                let now = super::now();
                if let Err(error) = instance_facts::save(store, &machine, wanted, &instance, now) {
                    notes.push(format!(
                        "the metadata service's answer was not kept: {error}"
                    ));
                }
            }
            return Ok(Some(instance));
        }
        Err(error) => error,
    };
    let macs: Vec<String> = facts.links.iter().map(mac_of).collect();
    let machine = MachineKey::all(asset_tag, macs.iter().map(String::as_str));
    match instance_facts::load(store, &machine, wanted) {
        Ok(Some(cached)) => {
            if asked {
                notes.push_metadata(format!(
                    "metadata service: {error}; its answer of an earlier pass is used"
                ));
            }
            return Ok(Some(cached.facts));
        }
        Ok(None) => {}
        Err(unreadable) => {
            notes.push_metadata(format!("metadata service: its cached answer: {unreadable}"))
        }
    }
    match needed(config, role, facts) {
        Some(setting) => Err(PassError::Instance { error, setting }),
        None => {
            let without = match vpc_cidrs(config, None).is_empty() {
                true => "the VPC's own CIDRs are not known ([vpc] cidrs sets them)",
                false => "the VPC's CIDRs are those of [vpc] cidrs alone",
            };
            let why = failure.unwrap_or_else(|| error.to_string());
            notes.push_metadata(format!("metadata service: {why}; {without}"));
            Ok(None)
        }
    }
}

/// The MAC address of the interface with the default route.
fn primary_mac(facts: &HostFacts) -> Option<String> {
    let device = Family::ALL
        .into_iter()
        .find_map(|family| facts.defaults(family).first()?.device)?;
    facts.link(device).map(mac_of)
}

/// Empty for a link that has none.
fn mac_of(link: &Link) -> String {
    let bytes: Vec<String> = link.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// The VPC's CIDRs: those of the settings, and the service's where `auto` is among them.
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

/// The regions by name; `None` while `auto` has no answer.
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
