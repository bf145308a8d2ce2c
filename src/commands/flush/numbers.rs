//! The tables, protocol and priority of our objects: from `-c`, the state dir, the default config,
//! or else the defaults.

use std::path::{Path, PathBuf};

use crate::cli::BaseArgs;
use crate::config::file::{LoadError, Loaded, load};
use crate::config::{Config, Overrides};
use crate::ownership::{Numbers, Ownership};
use crate::state::StateFile;
use crate::state::patience::exists_in_time;
use crate::state::store::Store;

/// The inputs of a flush, known before the kernel is read.
pub(super) struct Known {
    pub ownership: Ownership,
    /// The directory of the lock, the journal and the stored numbers.
    pub state_dir: PathBuf,
    /// The directory exists, and its disk answers.
    pub has_state_dir: bool,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// The config; the defaults without one.
    pub config: Config,
    /// The mistake in the default config.
    pub mistake: Option<String>,
    pub notes: Vec<String>,
}

/// Collects the numbers.
///
/// # Errors
/// Only for the file of `-c`: a broken default config must not stop the kill switch.
pub(super) fn find(base: &BaseArgs) -> Result<Known, LoadError> {
    let mut notes = Vec::new();
    let mut mistake = None;
    let loaded = match load(base.config.as_deref(), &base.overrides()) {
        Ok(loaded) => Some(loaded),
        Err(wrong) if base.config.is_some() => return Err(wrong),
        Err(wrong) => {
            notes.push(format!("{wrong}; flushed without the config"));
            mistake = Some(wrong.to_string());
            None
        }
    };
    let state_dir = match &loaded {
        Some(loaded) => loaded.config.source.state_dir.clone(),
        None => fallback(&base.overrides()),
    };
    let socket = match &loaded {
        Some(loaded) => loaded.config.agent.socket.clone(),
        None => Config::default().agent.socket,
    };
    let there = exists_in_time(&state_dir);
    let remembered = match &there {
        Ok(_) => numbers_in(&state_dir, &mut notes),
        Err(silent) => {
            notes.push(format!("{silent}; flushed without the state dir"));
            None
        }
    };
    if loaded
        .as_ref()
        .is_some_and(|loaded| !loaded.config.kernel.manage.is_empty())
    {
        notes.push("sysctls set by [kernel] manage stay as they are".to_owned());
    }
    let ownership = ownership(loaded.as_ref(), remembered);
    Ok(Known {
        ownership,
        has_state_dir: there.is_ok() && state_dir.is_dir(),
        state_dir,
        socket,
        config: loaded.map(|loaded| loaded.config).unwrap_or_default(),
        mistake,
        notes,
    })
}

/// The numbers that passes have stored.
fn numbers_in(state_dir: &Path, notes: &mut Vec<String>) -> Option<Vec<Numbers>> {
    match Store::open(state_dir).read_json(StateFile::Numbers) {
        Ok(numbers) => Some(numbers),
        Err(error) if error.is_absent() => None,
        Err(error) => {
            notes.push(error.to_string());
            None
        }
    }
}

fn fallback(overrides: &Overrides) -> PathBuf {
    overrides
        .state_dir
        .clone()
        .unwrap_or_else(|| Config::default().source.state_dir)
}

/// The numbers of the config file and of the state dir together; the defaults without both.
fn ownership(loaded: Option<&Loaded>, remembered: Option<Vec<Numbers>>) -> Ownership {
    let mut all: Vec<Numbers> = loaded
        .filter(|loaded| loaded.file.is_some())
        .map(|loaded| Numbers {
            // An earlier config may have pinned flows.
            pin_tables: Some(loaded.config.kernel.pin_tables),
            ..Numbers::of(&loaded.config)
        })
        .into_iter()
        .chain(remembered.into_iter().flatten())
        .collect();
    if all.is_empty() {
        all.push(Numbers::default());
    }
    let first = all.remove(0);
    Ownership::new(first, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Priority, Protocol, TableId};

    fn other() -> Numbers {
        Numbers {
            bypass_table: TableId(2083),
            egress_table: TableId(2084),
            protocol: Protocol(84),
            priority: Priority(20_000),
            pin_tables: None,
            marks: None,
        }
    }

    fn loaded(file: Option<&str>) -> Loaded {
        Loaded {
            config: Config::default(),
            file: file.map(PathBuf::from),
            origin: crate::config::file::ConfigOrigin::default(),
        }
    }

    #[test]
    fn defaults_apply_only_without_a_file_and_stored_numbers() {
        let defaults = Ownership::new(Numbers::default(), []);
        assert_eq!(ownership(None, None), defaults);
        assert_eq!(ownership(Some(&loaded(None)), None), defaults);
        let remembered = Ownership::new(other(), []);
        assert_eq!(ownership(None, Some(vec![other()])), remembered);
        assert_eq!(
            ownership(Some(&loaded(None)), Some(vec![other()])),
            remembered
        );
    }

    #[test]
    fn numbers_of_the_file_and_the_state_dir_are_united() {
        let both = ownership(Some(&loaded(Some("a.toml"))), Some(vec![other()]));
        assert_eq!(both.current, Numbers::default());
        assert_eq!(both.earlier, [other()]);
    }
}
