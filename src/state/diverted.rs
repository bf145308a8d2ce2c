//! The families whose storage traffic takes the egress path, since probes have found the bypass path down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::StateFile;
use super::error::{ReadError, WriteError};
use super::store::Store;
use crate::types::Family;
use crate::words::Words as _;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    families: Vec<String>,
}

/// Reads the families; none without the file.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(store: &Store) -> Result<BTreeSet<Family>, ReadError> {
    match store.read_json::<Stored>(StateFile::Diverted) {
        Ok(stored) => {
            let named = |family: &Family| stored.families.iter().any(|it| it == family.word());
            Ok(Family::ALL.into_iter().filter(named).collect())
        }
        Err(error) if error.is_absent() => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the families; removes the file for none.
///
/// # Errors
/// [`WriteError`]; the old file then stays.
pub fn write(store: &Store, families: &BTreeSet<Family>) -> Result<(), WriteError> {
    if families.is_empty() {
        return store.remove_json(StateFile::Diverted);
    }
    let families = families.iter().map(|family| family.word().to_owned());
    let families = families.collect();
    store.write_json(StateFile::Diverted, &Stored { families })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).with_sync(false);
        assert_eq!(read(&store).unwrap(), BTreeSet::new());
        let one = BTreeSet::from([Family::Ipv6]);
        write(&store, &one).unwrap();
        assert_eq!(read(&store).unwrap(), one);
        write(&store, &BTreeSet::new()).unwrap();
        assert!(!dir.path().join(StateFile::Diverted.name()).exists());
    }
}
