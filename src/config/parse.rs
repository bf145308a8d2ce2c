//! TOML text and flags → [`Config`]: every key, then the flags, then the checks across keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::locations::{own_directory, source};
use super::reader::Reader;
use super::schema::read;
use super::slips;
use super::texts::{region, service};
use super::{AnyRole, AutoOr, Config, ConfigError, gateways, validate};

/// The default of `[source] state_dir` with `role = "vpc"`.
const VPC_STATE_DIR: &str = "/var/lib/trailblazer-vpc";
/// The default of `[agent] socket` with `role = "vpc"`.
const VPC_SOCKET: &str = "/run/trailblazer-vpc/control.sock";

/// Settings from the command line. Each beats the file, and passes the same checks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overrides {
    /// `--role`
    pub role: Option<AnyRole>,
    /// `--source`, in order; empty for none.
    pub source: Vec<String>,
    /// `--region`, `auto` allowed; empty for none.
    pub regions: Vec<String>,
    /// `--service`; empty for none.
    pub services: Vec<String>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
}

impl Overrides {
    /// These flags, and for absent flags those of `other`.
    pub fn or(self, other: Overrides) -> Overrides {
        let list = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Overrides {
            role: self.role.or(other.role),
            source: list(self.source, other.source),
            regions: list(self.regions, other.regions),
            services: list(self.services, other.services),
            state_dir: self.state_dir.or(other.state_dir),
        }
    }
}

/// Reads the settings. `origin` names the source of the text in messages.
///
/// # Errors
/// All problems at once.
pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
    parse_with(text, origin, &Overrides::default())
}

/// Reads the settings, then the flags, which beat the file, and then checks all of them together.
///
/// # Errors
/// All problems at once.
pub fn parse_with(text: &str, origin: &str, flags: &Overrides) -> Result<Config, ConfigError> {
    let mut reader = Reader::parse(text).map_err(|problems| ConfigError::new(origin, problems))?;
    let mut config = Config::default();
    read(&mut reader, &mut config);
    override_with(&mut reader, &mut config, flags);
    set_own_places(&reader, &mut config, flags);
    for mistake in validate::mistakes(&config) {
        // An unreadable value has its default here; a mistake about the default would mislead.
        if !mistake.keys.iter().any(|key| reader.is_bad(key)) {
            let key = match mistake.keys[0] {
                "egress.gateways" if reader.has(gateways::TABLES) => gateways::TABLES,
                key => key,
            };
            reader.problem(key, mistake.message);
        }
    }
    let problems = reader.into_problems();
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::new(origin, problems))
    }
}

/// Reads the settings of a text with problems, as far as possible; a setting with a problem keeps
/// its default. For commands that only need to find the agent and the state dir.
pub fn parse_readable_part(text: &str, flags: &Overrides) -> Config {
    let mut reader = Reader::parse_readable_part(text);
    let mut config = Config::default();
    read(&mut reader, &mut config);
    override_with(&mut reader, &mut config, flags);
    set_own_places(&reader, &mut config, flags);
    config
}

/// Sets the places of the vpc role that neither the text nor a flag names. The role runs beside the agent
/// of a NAT, with other documents, another journal and another user.
fn set_own_places(reader: &Reader<'_>, config: &mut Config, flags: &Overrides) {
    if !config.vpc_role {
        return;
    }
    if !reader.has("source.state_dir") && flags.state_dir.is_none() {
        config.source.state_dir = PathBuf::from(VPC_STATE_DIR);
    }
    if !reader.has("agent.socket") {
        config.agent.socket = PathBuf::from(VPC_SOCKET);
    }
}

/// Every known key, with its table.
pub fn keys() -> Vec<&'static str> {
    let Ok(mut reader) = Reader::parse("") else {
        return Vec::new();
    };
    read(&mut reader, &mut Config::default());
    reader.asked().to_vec()
}

/// Replaces settings with the values of flags.
fn override_with(reader: &mut Reader<'_>, config: &mut Config, flags: &Overrides) {
    if let Some(role) = flags.role {
        config.set_role(role);
    }
    if let Some(state_dir) = &flags.state_dir {
        config.source.state_dir = state_dir.clone();
        // A relative path is allowed here: the shell has a working directory.
        let wrong = state_dir.to_str().filter(|text| text.starts_with('/'));
        if let Some(message) = wrong.and_then(|text| own_directory(text).err()) {
            reader.problem_elsewhere("--state-dir", message);
        }
    }
    let sources = flag(reader, "--source", &flags.source, |text| source(text, true));
    replace(&mut config.source.urls, sources);
    let regions = flag(reader, "--region", &flags.regions, |text| match text {
        "auto" => Ok(AutoOr::Auto),
        _ => region(text).map(AutoOr::Set),
    });
    replace(&mut config.select.regions, regions);
    let services = flag(reader, "--service", &flags.services, service);
    replace(&mut config.select.services, services);
}

fn replace<T>(setting: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *setting = found;
    }
}

/// The values of a flag, or `None` if the flag is absent or wrong.
fn flag<T>(
    reader: &mut Reader<'_>,
    name: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    if texts.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for text in texts {
        match slips::of_value(text).map_or_else(|| read(text), Err) {
            Ok(value) => found.push(value),
            Err(message) => reader.problem_elsewhere(name, message),
        }
    }
    (found.len() == texts.len()).then_some(found)
}
