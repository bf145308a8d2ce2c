//! The drained gateways, in memory and in the state dir.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::state::StateFile;
use crate::state::drained::{self, Drain};
use crate::state::patience::in_time;
use crate::state::store::Store;

/// The drained gateways. A restart finds them in the state dir.
pub(super) struct Drains {
    state_dir: PathBuf,
    /// The reason if they are unknown.
    known: Result<drained::Drains, String>,
}

impl Drains {
    /// Reads the state dir.
    pub fn read(state_dir: &Path) -> Drains {
        let known = read(state_dir);
        if let Err(error) = &known {
            tracing::warn!("which gateways are drained is unknown: {error}");
        }
        Drains {
            state_dir: state_dir.to_owned(),
            known,
        }
    }

    /// The drained gateways; `None` if they are unknown, and a pass looks at the state dir again.
    pub fn gateways(&self) -> Option<BTreeSet<IpAddr>> {
        let known = self.known.as_ref().ok()?;
        Some(known.keys().copied().collect())
    }

    /// The drain of a gateway.
    pub fn of(&self, gateway: IpAddr) -> Option<&Drain> {
        self.known.as_ref().ok()?.get(&gateway)
    }

    /// Drains a gateway, or ends its drain. Gateways outside of the settings are forgotten.
    ///
    /// # Errors
    /// The state dir refuses, so that a restart would undo the change: nothing has changed.
    pub fn change(
        &mut self,
        gateway: IpAddr,
        drain: Option<Drain>,
        configured: impl Fn(&IpAddr) -> bool,
    ) -> Result<(), String> {
        if self.known.is_err() {
            self.known = read(&self.state_dir);
        }
        let mut gateways = self.known.clone().map_err(|error| {
            let file = self.state_dir.join(StateFile::Drained.name());
            format!(
                "which gateways are drained is unknown ({error}): remove {} to begin with none",
                file.display()
            )
        })?;
        gateways.retain(|known, _| configured(known));
        match drain {
            Some(drain) => gateways.insert(gateway, drain),
            None => gateways.remove(&gateway),
        };
        let (store, written) = (Store::open(&self.state_dir), gateways.clone());
        let write = in_time(&self.state_dir, move || {
            let created = store.create_directory();
            created.and_then(|()| drained::write(&store, &written))
        });
        let write = write.map_err(|error| error.to_string());
        write.and_then(|write| write.map_err(|error| error.to_string()))?;
        self.known = Ok(gateways);
        Ok(())
    }
}

fn read(state_dir: &Path) -> Result<drained::Drains, String> {
    let store = Store::open(state_dir);
    let read = in_time(state_dir, move || drained::read(&store));
    let read = read.map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}
