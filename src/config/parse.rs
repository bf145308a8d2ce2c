//! TOML text and flags → [`Config`]: one line a key, then the checks across keys.

use std::path::PathBuf;

use super::document::Document;
use super::fields::replace;
use super::schema::read;
use super::values::{region, service, source};
use super::{AutoOr, Config, ConfigError, Role, validate};

/// What the command line says; it beats the file. Texts are checked like those of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `--role`
    pub role: Option<Role>,
    /// `--source`, in order; empty for none.
    pub source: Vec<String>,
    /// `--region`, `auto` allowed; empty for none.
    pub regions: Vec<String>,
    /// `--service`; empty for none.
    pub services: Vec<String>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
}

/// Reads the settings. `origin` says where the text comes from, for the messages.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
    parse_with(text, origin, &Overrides::default())
}

/// Reads the settings and puts the flags over them, before the checks across keys: a role from
/// the command line is checked like one from the file.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse_with(text: &str, origin: &str, flags: &Overrides) -> Result<Config, ConfigError> {
    let mut document =
        Document::parse(text).map_err(|problems| ConfigError::new(origin, problems))?;
    let mut config = Config::default();
    read(&mut document, &mut config);
    put_over(&mut document, &mut config, flags);
    for finding in validate::findings(&config) {
        // A value that couldn't be read has its default here: nothing to say about that.
        if !finding.keys.iter().any(|key| document.is_bad(key)) {
            document.problem(finding.keys[0], finding.message);
        }
    }
    let problems = document.into_problems();
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::new(origin, problems))
    }
}

/// Every key there is, with its table.
pub fn keys() -> Vec<&'static str> {
    let Ok(mut document) = Document::parse("") else {
        return Vec::new();
    };
    read(&mut document, &mut Config::default());
    document.asked().to_vec()
}

/// The flags, over what the file says.
fn put_over(document: &mut Document<'_>, config: &mut Config, flags: &Overrides) {
    if flags.role.is_some() {
        config.role = flags.role;
    }
    if let Some(state_dir) = &flags.state_dir {
        config.source.state_dir = state_dir.clone();
    }
    let sources = flag(document, "--source", &flags.source, |text| {
        source(text, true)
    });
    replace(&mut config.source.urls, sources);
    let regions = flag(document, "--region", &flags.regions, |text| match text {
        "auto" => Ok(AutoOr::Auto),
        _ => region(text).map(AutoOr::Set),
    });
    replace(&mut config.select.regions, regions);
    let services = flag(document, "--service", &flags.services, service);
    replace(&mut config.select.services, services);
}

/// The values of a flag, or nothing where it wasn't given or is wrong.
fn flag<T>(
    document: &mut Document<'_>,
    name: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    if texts.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for text in texts {
        match read(text) {
            Ok(value) => found.push(value),
            Err(message) => document.problem_elsewhere(name, message),
        }
    }
    (found.len() == texts.len()).then_some(found)
}
