//! The last answer of the metadata service, for passes without an answer.
//!
//! The answer is valid for one machine only: a disk image of a running instance contains the state
//! directory, and must not boot with the region of the original machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StateFile;
use super::store::{ReadError, Store, WriteError};
use crate::facts::InstanceFacts;
use crate::source::imds::{Wanted, is_instance_id, mac_address};
use crate::types::Region;

/// The hypervisor's file with the instance id, on Nitro instances ("Identify EC2 Linux instances",
/// Amazon EC2 User Guide).
pub const DMI_ASSET_TAG: &str = "/sys/class/dmi/id/board_asset_tag";

/// The identity of this machine, known without the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineKey {
    InstanceId(String),
    /// The primary interface's MAC address, if the DMI has no instance id.
    Mac(String),
}

impl MachineKey {
    /// Reads the instance id from `asset_tag` (see [`DMI_ASSET_TAG`]), or takes the MAC address of
    /// the primary interface. Without both, `None`: the facts are not cached.
    pub fn find(asset_tag: &Path, primary_mac: Option<&str>) -> Option<MachineKey> {
        instance_id(asset_tag).or_else(|| of_mac(primary_mac?))
    }

    /// All keys of earlier facts of this machine: the instance id, or else the MAC address of any
    /// interface. The primary interface changes with the default route, and a restart of a DHCP
    /// client removes the default route.
    pub fn all<'a>(asset_tag: &Path, macs: impl IntoIterator<Item = &'a str>) -> Vec<MachineKey> {
        match instance_id(asset_tag) {
            Some(instance) => vec![instance],
            None => macs.into_iter().filter_map(of_mac).collect(),
        }
    }
}

fn instance_id(asset_tag: &Path) -> Option<MachineKey> {
    // An unreadable, absent or foreign tag leads to the other key; a wrong key finds no facts.
    let tag = std::fs::read_to_string(asset_tag).unwrap_or_default();
    let tag = tag.trim();
    is_instance_id(tag).then(|| MachineKey::InstanceId(tag.to_owned()))
}

fn of_mac(mac: &str) -> Option<MachineKey> {
    let mac = mac_address(mac)?;
    // No hardware has the address, so the address identifies no machine.
    (mac != "00:00:00:00:00:00").then_some(MachineKey::Mac(mac))
}

#[derive(Serialize, Deserialize)]
pub(super) struct Cached {
    machine: MachineKey,
    wanted: Wanted,
    facts: InstanceFacts,
    asked_at: u64,
    /// The service's own answer if the region of `facts` is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_region: Option<Region>,
}

/// Facts from an earlier pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFacts {
    pub wanted: Wanted,
    pub facts: InstanceFacts,
    /// The time of the metadata service's answer, in seconds since the epoch.
    pub asked_at: u64,
    /// A region that waits for the operator's acceptance; see [`hold_region`].
    pub held_region: Option<Region>,
}

/// An instance never moves to another region. Replaces a region that differs from the earlier one
/// of the same machine by the earlier one, and returns the new region, unless the operator has
/// accepted the new region.
pub fn hold_region(
    facts: &mut InstanceFacts,
    earlier: Option<&Region>,
    accepted: Option<&Region>,
) -> Option<Region> {
    let new = facts.region.clone()?;
    let earlier = earlier.filter(|earlier| **earlier != new)?;
    if accepted == Some(&new) {
        return None;
    }
    facts.region = Some(earlier.clone());
    Some(new)
}

/// True if the file answers the question, for whichever machine.
pub fn answers(store: &Store, wanted: Wanted) -> bool {
    let cached = store.read_json::<Cached>(StateFile::Facts);
    cached.is_ok_and(|cached| cached.wanted.covers(wanted))
}

/// The cached facts of this machine, found by any of its keys. `None` if there are no facts, or only
/// facts of another machine or without a fact wanted now.
///
/// # Errors
/// [`ReadError`] if the file exists but is unreadable or damaged.
pub fn load(
    store: &Store,
    machine: &[MachineKey],
    wanted: Wanted,
) -> Result<Option<CachedFacts>, ReadError> {
    let cached: Cached = match store.read_json(StateFile::Facts) {
        Ok(cached) => cached,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    if !machine.contains(&cached.machine) || !cached.wanted.covers(wanted) {
        return Ok(None);
    }
    Ok(Some(CachedFacts {
        wanted: cached.wanted,
        facts: cached.facts,
        asked_at: cached.asked_at,
        held_region: cached.held_region,
    }))
}

/// Stores an answer for later passes; `now` is in seconds since the epoch.
///
/// # Errors
/// [`WriteError`] if the write fails.
pub fn save(
    store: &Store,
    machine: &MachineKey,
    wanted: Wanted,
    facts: &InstanceFacts,
    held_region: Option<&Region>,
    now: u64,
) -> Result<(), WriteError> {
    store.write_json(
        StateFile::Facts,
        &Cached {
            machine: machine.clone(),
            wanted,
            facts: facts.clone(),
            asked_at: now,
            held_region: held_region.cloned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "i-0123456789abcdef0\n";
    const MAC: &str = "02:AA:bb:cc:dd:ee";

    #[test]
    fn the_key_is_the_instance_id_else_the_mac() {
        let dir = tempfile::tempdir().unwrap();
        let tag = dir.path().join("board_asset_tag");
        let mac = Some(MachineKey::Mac("02:aa:bb:cc:dd:ee".to_owned()));
        assert_eq!(MachineKey::find(&tag, Some(MAC)), mac);
        assert_eq!(MachineKey::find(&tag, None), None);
        assert_eq!(MachineKey::find(&tag, Some("00:00:00:00:00:00")), None);
        for foreign in ["Not Specified", "", "i-xyz", "i-0123456789abcdef0123"] {
            std::fs::write(&tag, foreign).unwrap();
            assert_eq!(MachineKey::find(&tag, Some(MAC)), mac, "{foreign:?}");
        }
        std::fs::write(&tag, TAG).unwrap();
        assert_eq!(
            MachineKey::find(&tag, Some(MAC)),
            Some(MachineKey::InstanceId(TAG.trim().to_owned()))
        );
    }

    #[test]
    fn earlier_facts_may_be_known_by_any_interface() {
        let dir = tempfile::tempdir().unwrap();
        let tag = dir.path().join("board_asset_tag");
        let macs = ["00:00:00:00:00:00", MAC, "02:00:00:00:00:07"];
        assert_eq!(
            MachineKey::all(&tag, macs),
            ["02:aa:bb:cc:dd:ee", "02:00:00:00:00:07"].map(|mac| MachineKey::Mac(mac.to_owned()))
        );
        std::fs::write(&tag, TAG).unwrap();
        assert_eq!(
            MachineKey::all(&tag, macs),
            [MachineKey::InstanceId(TAG.trim().to_owned())],
            "where there is an instance id, it alone counts"
        );
    }

    #[test]
    fn other_region_waits_for_its_acceptance() {
        let (old, new) = (Region::from("us-east-1"), Region::from("eu-west-1"));
        let answer = |region: &Region| InstanceFacts {
            region: Some(region.clone()),
            ..InstanceFacts::default()
        };
        for (earlier, accepted, held, in_force) in [
            (None, None, None, &new),
            (Some(&new), None, None, &new),
            (Some(&old), None, Some(new.clone()), &old),
            (Some(&old), Some(&old), Some(new.clone()), &old),
            (Some(&old), Some(&new), None, &new),
        ] {
            let mut facts = answer(&new);
            assert_eq!(hold_region(&mut facts, earlier, accepted), held);
            assert_eq!(facts.region.as_ref(), Some(in_force));
        }
        assert_eq!(
            hold_region(&mut InstanceFacts::default(), Some(&old), None),
            None,
            "no region was requested"
        );
    }

    #[test]
    fn facts_hold_for_one_machine_and_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let ours = MachineKey::InstanceId("i-0123456789abcdef0".to_owned());
        let region = Wanted {
            region: true,
            ..Wanted::default()
        };
        assert_eq!(
            load(&store, std::slice::from_ref(&ours), region).unwrap(),
            None
        );

        let facts = InstanceFacts {
            region: Some(Region::from("eu-west-1")),
            ..InstanceFacts::default()
        };
        save(&store, &ours, region, &facts, None, 17).unwrap();
        let asked_at = 17;
        assert_eq!(
            load(&store, std::slice::from_ref(&ours), region).unwrap(),
            Some(CachedFacts {
                wanted: region,
                facts,
                asked_at,
                held_region: None
            })
        );

        // A fact that was never requested must not look like an empty answer.
        let more = Wanted {
            vpc_cidrs: true,
            ..region
        };
        assert_eq!(
            load(&store, std::slice::from_ref(&ours), more).unwrap(),
            None
        );
        let other = MachineKey::InstanceId("i-0123456789abcdef1".to_owned());
        assert_eq!(load(&store, &[other], region).unwrap(), None);

        std::fs::write(dir.path().join(StateFile::Facts.name()), "{}").unwrap();
        assert!(matches!(
            load(&store, std::slice::from_ref(&ours), region),
            Err(ReadError::Corrupt { .. })
        ));
    }
}
