//! The gateways that get no new flows on an operator's word (`trailblazer drain`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::StateFile;
use super::error::{ReadError, WriteError};
use super::store::Store;

/// A drained gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The time of the request, in seconds since the epoch.
    pub since: i64,
    /// The program that asked for it.
    pub by: String,
}

/// The drained gateways.
pub type Drains = BTreeMap<IpAddr, Drain>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    gateways: Drains,
}

/// Reads the drained gateways; none without the file.
///
/// # Errors
/// The file is there and cannot be read: which gateways are drained is unknown.
pub fn read(store: &Store) -> Result<Drains, ReadError> {
    match store.read_json::<Stored>(StateFile::Drained) {
        Ok(stored) => Ok(stored.gateways),
        Err(error) if error.is_absent() => Ok(Drains::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the drained gateways; removes the file for none.
///
/// # Errors
/// [`WriteError`]; the old file then stays.
pub fn write(store: &Store, gateways: &Drains) -> Result<(), WriteError> {
    if gateways.is_empty() {
        return store.remove_json(StateFile::Drained);
    }
    let gateways = gateways.clone();
    store.write_json(StateFile::Drained, &Stored { gateways })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_come_back_and_a_damaged_file_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).with_sync(false);
        assert_eq!(read(&store).unwrap(), Drains::new());
        let drain = Drain {
            since: 1_700_000_000,
            by: "drain, pid 17".to_owned(),
        };
        let drains = Drains::from([(IpAddr::from([10, 0, 1, 10]), drain)]);
        write(&store, &drains).unwrap();
        assert_eq!(read(&store).unwrap(), drains);
        let file = dir.path().join(StateFile::Drained.name());
        std::fs::write(&file, "{}").unwrap();
        assert!(read(&store).unwrap_err().is_damaged());
        write(&store, &Drains::new()).unwrap();
        assert!(!file.exists());
    }
}
