//! Settings for commands that show or ask, also beside a broken config file: the running agent
//! tells the settings in force; without an agent the readable part of the file counts.

use std::path::{Path, PathBuf};

use super::{agents, complain, keep_secrets, role_of};
use crate::cli::BaseArgs;
use crate::config::file::{Loaded, LoadedForDisplay, load_for_display};
use crate::config::{Overrides, Role, parse_with};
use crate::status::control::{Reply, Request, SettingsInForce, ask};

/// Settings, and the fault of the file on disk.
#[derive(Debug)]
pub(super) struct Shown {
    pub loaded: Loaded,
    /// Names the broken file, its fault, and the settings used in its place.
    pub fault: Option<String>,
    /// True if settings may be missing: the file is broken, and no agent tells the others.
    pub partial: bool,
}

/// Loads the settings. Prints the fault of a broken file and continues. On failure prints the error
/// and returns the exit code.
pub(super) fn settings(base: &BaseArgs, flags: &Overrides) -> Result<Shown, u8> {
    let found = load_for_display(base.config.as_deref(), flags).map_err(|missing| {
        complain(&missing);
        missing.exit_code()
    })?;
    keep_secrets(&found.loaded);
    let shown = shown(found, flags);
    if let Some(fault) = &shown.fault {
        complain(fault);
    }
    Ok(shown)
}

/// [`settings`] with the role of this host.
pub(super) fn settings_and_role(base: &BaseArgs, flags: &Overrides) -> Result<(Shown, Role), u8> {
    let shown = settings(base, flags)?;
    let role = role_of(&shown.loaded)?;
    Ok((shown, role))
}

fn shown(found: LoadedForDisplay, flags: &Overrides) -> Shown {
    let LoadedForDisplay { mut loaded, fault } = found;
    let Some(fault) = fault else {
        return Shown {
            loaded,
            fault: None,
            partial: false,
        };
    };
    let told = sockets(&loaded).into_iter().find_map(|socket| {
        let config = in_force(&socket, flags)?;
        Some((socket, config))
    });
    let partial = told.is_none();
    let instead = match told {
        Some((socket, mut config)) => {
            // The socket that answers, whatever the flags and the settings say.
            config.agent.socket = socket;
            loaded.config = config;
            "This command continues with the config that the running agent keeps in force"
        }
        None => "This command continues with the readable part of the file",
    };
    let config = &loaded.config;
    let fault = format!(
        "{fault}\n{instead}: the state dir {} and the agent at {}",
        config.source.state_dir.display(),
        config.agent.socket.display()
    );
    Shown {
        loaded,
        fault: Some(fault),
        partial,
    }
}

/// The socket in the readable part of the file, then those of the agents with this file.
fn sockets(loaded: &Loaded) -> Vec<PathBuf> {
    let readable = loaded.config.agent.socket.clone();
    let mut sockets = vec![readable];
    for socket in agents::sockets_of(&loaded.origin.path) {
        if !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    sockets
}

/// The settings of the agent at this socket, with the command's own flags first. An agent of an
/// earlier version refuses the question.
fn in_force(socket: &Path, flags: &Overrides) -> Option<crate::config::Config> {
    let Ok(Reply::Settings(told)) = ask(socket, Request::Settings) else {
        return None;
    };
    let SettingsInForce {
        file,
        text,
        flags: theirs,
    } = *told;
    let flags = flags.clone().or(theirs);
    parse_with(text.as_deref().unwrap_or_default(), &file, &flags).ok()
}
