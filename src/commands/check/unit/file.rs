//! Unit files with their drop-ins, read as systemd reads them (systemd.unit(5), "unit file load path").

use crate::commands::boot::is_masked;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories of units; a later directory wins.
const DIRECTORIES: [&str; 4] = [
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "run/systemd/system",
    "etc/systemd/system",
];
/// Directories of drop-ins by `systemctl set-property`, which win over all others.
const CONTROL: [&str; 2] = ["run/systemd/system.control", "etc/systemd/system.control"];

/// One assignment of the section `[Service]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    pub value: String,
    /// The file, as a path without the root of the tests.
    pub file: PathBuf,
}

/// The service settings of a unit, in the order of their effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct UnitFile {
    pub name: String,
    pub fragment: PathBuf,
    pub settings: Vec<Setting>,
}

/// Reads a unit below `root`. `None` if no such unit is installed, or the unit is masked.
///
/// # Errors
/// A file exists but can't be read.
pub(super) fn read(root: &Path, name: &str) -> Result<Option<UnitFile>, (PathBuf, io::Error)> {
    let found = DIRECTORIES.iter().rev().map(|it| Path::new("/").join(it));
    let mut found = found.map(|directory| directory.join(name));
    let Some(fragment) = found.find(|path| below(root, path).symlink_metadata().is_ok()) else {
        return Ok(None);
    };
    if is_masked(&below(root, &fragment)) {
        return Ok(None);
    }
    let mut unit = UnitFile {
        name: name.to_owned(),
        fragment: fragment.clone(),
        settings: Vec::new(),
    };
    for path in [vec![fragment], drop_ins(root, name)].concat() {
        match fs::read(below(root, &path)) {
            Ok(bytes) => unit.settings.extend(parse(&bytes, &path)),
            Err(error) => return Err((path, error)),
        }
    }
    Ok(Some(unit))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The drop-ins in the order of their names. Among files of one name, the directory of the unit wins
/// over those of all units with the same beginning, and `/etc` over `/run` over `/usr`.
fn drop_ins(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut kinds = vec!["service.d".to_owned()];
    for (end, _) in name.match_indices('-') {
        kinds.push(format!("{}.service.d", &name[..=end]));
    }
    kinds.push(format!("{name}.d"));
    let mut found = BTreeMap::new();
    for kind in kinds {
        for directory in DIRECTORIES.iter().chain(&CONTROL) {
            let directory = Path::new("/").join(directory).join(&kind);
            let Ok(entries) = fs::read_dir(below(root, &directory)) else {
                continue;
            };
            for entry in entries.flatten() {
                let file = entry.file_name();
                if file.to_string_lossy().ends_with(".conf") {
                    found.insert(file.clone(), directory.join(file));
                }
            }
        }
    }
    found.into_values().collect()
}

/// The assignments of the section `[Service]`.
fn parse(bytes: &[u8], file: &Path) -> Vec<Setting> {
    let text = String::from_utf8_lossy(bytes).replace("\\\n", " ");
    let mut section = "";
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once('=')
            && section == "Service"
        {
            settings.push(Setting {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                file: file.to_owned(),
            });
        }
    }
    settings
}

impl UnitFile {
    /// The assignments of a key, in the order of their effect.
    pub fn all<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Setting> {
        self.settings.iter().filter(move |it| it.key == key)
    }

    /// The last assignment of a key with one value; an empty value equals no assignment.
    pub fn last<'a>(&'a self, key: &'a str) -> Option<&'a Setting> {
        self.all(key).next_back().filter(|it| !it.value.is_empty())
    }

    /// The assignment by which a boolean is on.
    pub fn on<'a>(&'a self, key: &'a str) -> Option<&'a Setting> {
        let yes = ["1", "yes", "y", "true", "t", "on"];
        self.last(key)
            .filter(|it| yes.contains(&it.value.to_ascii_lowercase().as_str()))
    }

    /// The words of a list: an empty assignment removes those before.
    pub fn words<'a>(&'a self, key: &'a str) -> Vec<(&'a str, &'a Setting)> {
        let mut words = Vec::new();
        for setting in self.all(key) {
            if setting.value.is_empty() {
                words.clear();
            }
            words.extend(setting.value.split_whitespace().map(|word| (word, setting)));
        }
        words
    }

    /// True if a list of names holds one. A list that begins with `~` holds all but its names;
    /// without any assignment `unset` is the answer, after an empty one `cleared`.
    pub fn holds(&self, key: &str, name: &str, unset: bool, cleared: bool) -> bool {
        let mut held = unset;
        let mut first = true;
        for setting in self.all(key) {
            let (list, without) = match setting.value.strip_prefix('~') {
                Some(list) => (list, true),
                None => (setting.value.as_str(), false),
            };
            let named = list
                .split_whitespace()
                .any(|word| word.eq_ignore_ascii_case(name));
            held = match (setting.value.is_empty(), without) {
                (true, _) => cleared,
                (false, true) => (held || first) && !named,
                (false, false) => (held && !first) || named,
            };
            first = setting.value.is_empty();
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> UnitFile {
        UnitFile {
            settings: parse(text.as_bytes(), Path::new("/x")),
            ..UnitFile::default()
        }
    }

    #[test]
    fn lists_grow_shrink_and_begin_again() {
        let caps = |text: &str, name| {
            let lines: Vec<String> = text.split('|').map(|it| format!("C={it}")).collect();
            unit(&format!("[Service]\n{}", lines.join("\n"))).holds("C", name, true, false)
        };
        assert!(unit("").holds("C", "CAP_A", true, false));
        assert!(caps("CAP_A CAP_B", "CAP_A"));
        assert!(!caps("CAP_B", "CAP_A"));
        assert!(caps("CAP_B|CAP_A", "CAP_A"));
        assert!(!caps("CAP_A|", "CAP_A"));
        assert!(!caps("~CAP_A", "CAP_A"));
        assert!(caps("~CAP_B", "CAP_A"));
        assert!(!caps("CAP_A CAP_B|~CAP_A", "CAP_A"));
    }

    #[test]
    fn a_drop_in_of_etc_wins_and_other_sections_are_passed_over() {
        let root = std::env::temp_dir().join(format!("tb-unit-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "usr/lib/systemd/system/t-a.service",
            "[Unit]\nUser=x\n[Service]\nUser=a\nX=1 \\\n 2\n",
        );
        put(
            "usr/lib/systemd/system/t-a.service.d/5.conf",
            "[Service]\nUser=b\n",
        );
        put(
            "etc/systemd/system/t-a.service.d/5.conf",
            "[Service]\n# User=c\nUser=d\n",
        );
        put(
            "run/systemd/system/t-.service.d/4.conf",
            "[Service]\nUser=e\nY=yes\n",
        );
        let unit = read(&root, "t-a.service").unwrap().unwrap();
        let user = unit.last("User").unwrap();
        assert_eq!(user.value, "d");
        assert_eq!(
            user.file,
            Path::new("/etc/systemd/system/t-a.service.d/5.conf")
        );
        assert!(unit.on("Y").is_some());
        assert_eq!(unit.words("X").len(), 2);
        assert!(read(&root, "other.service").unwrap().is_none());
        fs::remove_dir_all(root).unwrap();
    }
}
