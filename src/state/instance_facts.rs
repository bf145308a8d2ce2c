//! The last answer of the metadata service, for passes in which it is silent.
//!
//! It holds for one machine only: a disk image made from a running instance carries the state
//! directory along, and must not boot with the region of the machine that it was made from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StateFile;
use super::store::{ReadError, Store, WriteError};
use crate::facts::InstanceFacts;
use crate::source::imds::{Wanted, is_instance_id, mac_address};

/// The instance id as the hypervisor tells it, on Nitro instances ("Identify EC2 Linux
/// instances", Amazon EC2 User Guide).
pub const DMI_ASSET_TAG: &str = "/sys/class/dmi/id/board_asset_tag";

/// Which machine this is, known without asking the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineKey {
    /// The instance id.
    InstanceId(String),
    /// The primary interface's MAC address, where the DMI has no instance id.
    Mac(String),
}

impl MachineKey {
    /// Reads the instance id from `asset_tag` (see [`DMI_ASSET_TAG`]); else takes the MAC
    /// address of the primary interface. `None` when there is neither: then nothing is cached.
    pub fn find(asset_tag: &Path, primary_mac: Option<&str>) -> Option<MachineKey> {
        instance_id(asset_tag).or_else(|| of_mac(primary_mac?))
    }

    /// Every key under which earlier facts may be this machine's: the instance id, else the MAC
    /// address of any interface. Which of them is the primary one changes with the default
    /// route, which a DHCP client takes away when it restarts.
    pub fn all<'a>(asset_tag: &Path, macs: impl IntoIterator<Item = &'a str>) -> Vec<MachineKey> {
        match instance_id(asset_tag) {
            Some(instance) => vec![instance],
            None => macs.into_iter().filter_map(of_mac).collect(),
        }
    }
}

fn instance_id(asset_tag: &Path) -> Option<MachineKey> {
    // Unreadable, absent and foreign are one here: all lead to the other key, and the wrong
    // one can only miss.
    let tag = std::fs::read_to_string(asset_tag).unwrap_or_default();
    let tag = tag.trim();
    is_instance_id(tag).then(|| MachineKey::InstanceId(tag.to_owned()))
}

fn of_mac(mac: &str) -> Option<MachineKey> {
    let mac = mac_address(mac)?;
    // No hardware has it, so it tells no machine from another.
    (mac != "00:00:00:00:00:00").then_some(MachineKey::Mac(mac))
}

#[derive(Serialize, Deserialize)]
struct Cached {
    machine: MachineKey,
    wanted: Wanted,
    facts: InstanceFacts,
    asked_at: u64,
}

/// Facts from an earlier pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFacts {
    /// The facts.
    pub facts: InstanceFacts,
    /// When the metadata service gave them, in seconds since the epoch.
    pub asked_at: u64,
}

/// The cached facts of this machine, known by any of its keys, if they were asked for all that is
/// wanted now. `None` when there are none, when they belong to another machine, or lack something.
///
/// # Errors
/// [`ReadError`] when there may be some but they cannot be read or are damaged.
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
        facts: cached.facts,
        asked_at: cached.asked_at,
    }))
}

/// Keeps an answer for later passes; `now` is in seconds since the epoch.
///
/// # Errors
/// [`WriteError`] when it can't be written.
pub fn save(
    store: &Store,
    machine: &MachineKey,
    wanted: Wanted,
    facts: &InstanceFacts,
    now: u64,
) -> Result<(), WriteError> {
    store.write_json(
        StateFile::Facts,
        &Cached {
            machine: machine.clone(),
            wanted,
            facts: facts.clone(),
            asked_at: now,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Region;

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
        save(&store, &ours, region, &facts, 17).unwrap();
        let asked_at = 17;
        assert_eq!(
            load(&store, std::slice::from_ref(&ours), region).unwrap(),
            Some(CachedFacts { facts, asked_at })
        );

        // Empty because never asked for must not look like empty because there is none.
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
