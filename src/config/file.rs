//! Locates and reads the config file: the only part of `config` with access to the disk.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::disk::{self, MAX_BYTES};
use super::{Config, ConfigError, Overrides, Problem, Role, parse_readable_part, parse_with};

/// The config file without `-c`; may be absent.
pub const DEFAULT_FILE: &str = "/etc/trailblazer/trailblazer.toml";

/// The failure to load settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the config file {} does not exist: correct the path of -c, or leave -c out to use {DEFAULT_FILE} or the defaults", .0.display())]
    Missing(PathBuf),
    /// The file exists, but reading fails. Never treated as absent.
    #[error("cannot read the config file {}: {source}; {}", .path.display(), disk::advice(.source))]
    Unreadable { path: PathBuf, source: io::Error },
    /// The reason is a clause without its subject.
    #[error("the config file {} {reason}", .path.display())]
    NotText { path: PathBuf, reason: String },
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

impl LoadError {
    /// The first line of the file with a mistake.
    pub fn line(&self) -> Option<usize> {
        match self {
            LoadError::Wrong(wrong) => wrong.line(),
            _ => None,
        }
    }

    /// The reason in one line, without the file's text.
    pub fn summary(&self) -> String {
        match self {
            LoadError::Wrong(wrong) => wrong.summary(),
            other => other.to_string(),
        }
    }

    /// 64 for mistakes of the user, 1 for failures of the host.
    pub fn exit_code(&self) -> u8 {
        match self {
            LoadError::Unreadable { .. } => crate::exit::FAILED,
            LoadError::Missing(_) | LoadError::NotText { .. } | LoadError::Wrong(_) => {
                crate::exit::USAGE
            }
        }
    }
}

/// Settings with their source.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The config file; `None` if no file exists and the defaults are in force.
    pub file: Option<PathBuf>,
    pub origin: ConfigOrigin,
}

/// The content of the config file at the time of reading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigOrigin {
    /// The absolute path, also of a file that doesn't exist.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal digits; `None` if the file didn't exist.
    pub digest: Option<String>,
    /// The text itself; `None` if the file didn't exist.
    pub text: Option<Arc<str>>,
    /// The flags that beat the file.
    pub flags: Overrides,
}

impl ConfigOrigin {
    fn new(path: &Path, text: Option<&str>, flags: &Overrides) -> ConfigOrigin {
        ConfigOrigin {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            digest: text.map(|text| digest_of(text.as_bytes())),
            text: text.map(Arc::from),
            flags: flags.clone(),
        }
    }
}

impl Loaded {
    /// The refusal of a command that asks a kernel.
    fn vpc_role_error(&self) -> ConfigError {
        let file = self.file.as_ref();
        let problem = Problem {
            key: "role".to_owned(),
            place: None,
            message:
                "role = \"vpc\" changes route tables of a VPC and no kernel, and this command \
                      asks this machine's kernel: run it with a config of role \"host\" or \"nat\""
                    .to_owned(),
        };
        ConfigError {
            origin: file.map_or_else(|| "the flags".to_owned(), |file| file.display().to_string()),
            problems: vec![problem],
            unlisted: 0,
        }
    }

    /// The role, for commands that need a role.
    ///
    /// # Errors
    /// Neither the file nor a flag sets the role.
    pub fn role(&self) -> Result<Role, ConfigError> {
        self.config.role.ok_or_else(|| {
            if self.config.vpc_role {
                return self.vpc_role_error();
            }
            let (origin, place) = match &self.file {
                Some(file) => (file.display().to_string(), "in the file".to_owned()),
                None => ("no config file".to_owned(), format!("in {DEFAULT_FILE}")),
            };
            let problem = Problem {
                key: "role".to_owned(),
                place: None,
                message: format!(
                    "missing: set role = \"host\" (a server behind a NAT) or role = \"nat\" (the \
                     NAT instance itself) at the top, {place}, or pass --role"
                ),
            };
            ConfigError {
                origin,
                problems: vec![problem],
                unlisted: 0,
            }
        })
    }
}

/// Reads the file of `-c`, else [`DEFAULT_FILE`] if that file exists, else no file; flags beat the
/// file.
///
/// # Errors
/// See [`LoadError`]; an unreadable default file is an error too.
pub fn load(explicit: Option<&Path>, flags: &Overrides) -> Result<Loaded, LoadError> {
    load_from(explicit, Path::new(DEFAULT_FILE), flags)
}

/// Settings of the commands that show or ask: a broken file must not hide the running agent.
#[derive(Debug)]
pub struct LoadedForDisplay {
    pub loaded: Loaded,
    /// The fault of the file; every setting with a fault has its default.
    pub fault: Option<LoadError>,
}

/// Reads the settings as [`load`], and continues with the readable part of a broken file.
///
/// # Errors
/// The file of `-c` doesn't exist.
pub fn load_for_display(
    explicit: Option<&Path>,
    flags: &Overrides,
) -> Result<LoadedForDisplay, LoadError> {
    let path = explicit.unwrap_or(Path::new(DEFAULT_FILE));
    // The content of a pipe can be read once.
    let (text, fault) = match read(path) {
        Ok(text) => match interpret(explicit, path, text.as_deref(), flags) {
            Ok(loaded) => {
                return Ok(LoadedForDisplay {
                    loaded,
                    fault: None,
                });
            }
            Err(fault) => (text, fault),
        },
        Err(fault) => (None, fault),
    };
    if matches!(fault, LoadError::Missing(_)) {
        return Err(fault);
    }
    let readable = text.as_deref().unwrap_or_default();
    Ok(LoadedForDisplay {
        loaded: Loaded {
            config: parse_readable_part(readable, flags),
            file: Some(path.to_owned()),
            origin: ConfigOrigin::new(path, text.as_deref(), flags),
        },
        fault: Some(fault),
    })
}

fn load_from(
    explicit: Option<&Path>,
    default: &Path,
    flags: &Overrides,
) -> Result<Loaded, LoadError> {
    let path = explicit.unwrap_or(default);
    interpret(explicit, path, read(path)?.as_deref(), flags)
}

fn interpret(
    explicit: Option<&Path>,
    path: &Path,
    text: Option<&str>,
    flags: &Overrides,
) -> Result<Loaded, LoadError> {
    match text {
        Some(text) => Ok(Loaded {
            config: parse_with(text, &path.display().to_string(), flags)?,
            file: Some(path.to_owned()),
            origin: ConfigOrigin::new(path, Some(text), flags),
        }),
        None if explicit.is_some() => Err(LoadError::Missing(path.to_owned())),
        None => Ok(Loaded {
            config: parse_with("", "no config file", flags)?,
            file: None,
            origin: ConfigOrigin::new(path, None, flags),
        }),
    }
}

/// The text of the file, or `None` if the file doesn't exist.
fn read(path: &Path) -> Result<Option<String>, LoadError> {
    let bytes = disk::read(path).map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    if let Some(reason) = disk::not_text(&bytes) {
        let path = path.to_owned();
        return Err(LoadError::NotText { path, reason });
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The digest of the file's present content, to compare with [`ConfigOrigin::digest`]; `None` if
/// the file doesn't exist.
///
/// # Errors
/// The file is unreadable, or is a pipe or a device, whose content can be read only once.
pub fn present_digest(path: &Path) -> io::Result<Option<String>> {
    let file = match disk::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Some(digest_of(&bytes)))
}

fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_tells_a_changed_file_from_the_loaded_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        let absent = load_from(None, &path, &Overrides::default()).expect("defaults");
        assert_eq!(absent.origin.digest, None);
        assert_eq!(present_digest(&path).expect("readable"), None);
        std::fs::write(&path, "role = \"host\"\n").expect("written");
        let loaded = load_from(None, &path, &Overrides::default()).expect("good");
        assert_eq!(
            present_digest(&path).expect("readable"),
            loaded.origin.digest
        );
        std::fs::write(&path, "role = \"host\"\n# a word\n").expect("written");
        assert_ne!(
            present_digest(&path).expect("readable"),
            loaded.origin.digest
        );
        present_digest(Path::new("/dev/zero")).expect_err("endless");
    }

    #[test]
    fn summary_of_a_mistake_is_one_line_with_the_line_number_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "role = \"host\"\n\nrolle = 1\nbypas = 2\n").expect("written");
        let wrong = load_from(None, &path, &Overrides::default()).expect_err("unknown keys");
        assert_eq!(wrong.line(), Some(3));
        let summary = wrong.summary();
        assert!(
            summary.contains("rolle") && summary.contains("and 1 more"),
            "{summary}"
        );
        assert_eq!(summary.lines().count(), 1, "{summary}");
    }

    #[test]
    fn missing_file_is_an_error_only_with_c() {
        let dir = tempfile::tempdir().expect("a directory");
        let absent = dir.path().join("absent.toml");
        let flags = Overrides::default();
        let missing = load_from(Some(&absent), &absent, &flags).expect_err("-c must exist");
        assert!(
            missing.to_string().contains("absent.toml does not exist"),
            "{missing}"
        );
        assert_eq!(missing.exit_code(), 64);
        let defaults = load_from(None, &absent, &flags).expect("defaults");
        assert_eq!(defaults.config, Config::default());
        assert_eq!(defaults.file, None);
        let message = defaults.role().expect_err("no role").to_string();
        assert!(message.contains("--role"), "{message}");
    }

    #[test]
    fn unreadable_file_is_not_treated_as_absent() {
        let dir = tempfile::tempdir().expect("a directory");
        // Opening a directory works, reading fails with EISDIR, for root as well.
        let error = load_from(None, dir.path(), &Overrides::default()).expect_err("EISDIR");
        assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn binary_and_endless_files_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        std::fs::write(&path, b"role = \"h\xffst\"").expect("written");
        let error = load_from(Some(&path), &path, &Overrides::default()).expect_err("not UTF-8");
        assert!(
            error
                .to_string()
                .contains("byte 9, in line 1, is not UTF-8"),
            "{error}"
        );
        let error = load(Some(Path::new("/dev/zero")), &Overrides::default());
        let error = error.expect_err("endless");
        assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    }

    #[test]
    fn readable_part_of_a_broken_file_names_the_agent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        for broken in [
            "role = \"host",
            "gateways = [",
            "egress.gateways = [\"nat\"]",
            "rolle = 1",
        ] {
            let text = format!(
                "source.state_dir = \"/run/tb\"\nagent.socket = \"/run/tb.sock\"\n{broken}\n"
            );
            std::fs::write(&path, text).expect("written");
            let flags = Overrides::default();
            let found = load_for_display(Some(&path), &flags).expect("shown");
            assert!(found.fault.is_some(), "{broken}");
            let config = &found.loaded.config;
            assert_eq!(config.source.state_dir, Path::new("/run/tb"), "{broken}");
            assert_eq!(config.agent.socket, Path::new("/run/tb.sock"), "{broken}");
        }
        let absent = dir.path().join("absent.toml");
        let missing = load_for_display(Some(&absent), &Overrides::default());
        assert!(matches!(missing, Err(LoadError::Missing(_))));
    }

    #[test]
    fn flags_beat_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "role = \"host\"\nselect.regions = [\"eu-west-1\"]")
            .expect("written");
        let flags = Overrides {
            regions: vec!["us-east-1".to_owned()],
            ..Overrides::default()
        };
        let loaded = load_from(None, &path, &flags).expect("good");
        assert_eq!(loaded.file.as_deref(), Some(path.as_path()));
        assert_eq!(loaded.role(), Ok(Role::Host));
        assert_eq!(
            loaded.config.select.regions,
            [super::super::AutoOr::Set("us-east-1".into())]
        );
    }
}
