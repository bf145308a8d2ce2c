//! systemd-networkd takes away routes and rules that it doesn't know, unless it is told not to
//! (`ManageForeignRoutes`, `ManageForeignRoutingPolicyRules`, networkd.conf(5); both default to
//! yes).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::Findings;

const KEYS: [&str; 2] = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"];
/// Later ones win among files of one name (networkd.conf(5), "configuration directories").
const DIRECTORIES: [&str; 4] = [
    "usr/lib/systemd",
    "usr/local/lib/systemd",
    "run/systemd",
    "etc/systemd",
];

/// Looks below `root`, which is `/` but for tests.
pub(super) fn all(root: &Path, findings: &mut Findings) {
    let name = "networkd";
    // Its own runtime directory: present exactly where it runs or ran since boot.
    if !root.join("run/systemd/netif").exists() {
        findings.ok(name, "systemd-networkd doesn't run here");
        return;
    }
    let settings = match settings(root) {
        Ok(settings) => settings,
        Err((path, error)) => {
            findings.warn(
                name,
                format!("cannot read {}: {error}", path.display()),
                "run the check as root",
            );
            return;
        }
    };
    let taken: Vec<&str> = KEYS
        .into_iter()
        .filter(|key| settings.get(*key).is_none_or(|value| !is_no(value)))
        .collect();
    if taken.is_empty() {
        findings.ok(
            name,
            "systemd-networkd leaves routes and rules of others alone",
        );
        return;
    }
    let lines: Vec<String> = taken.iter().map(|key| format!("{key}=no")).collect();
    findings.warn(
        name,
        "systemd-networkd removes our routes or rules when it restarts or a link comes up",
        format!(
            "write \"[Network]\" and \"{}\" to /etc/systemd/networkd.conf.d/trailblazer.conf, then systemctl restart systemd-networkd",
            lines.join("\", \"")
        ),
    );
}

/// What systemd takes for a boolean no (`parse_boolean`, systemd's src/basic/parse-util.c).
fn is_no(value: &str) -> bool {
    ["no", "n", "false", "f", "off", "0"].contains(&value.to_ascii_lowercase().as_str())
}

/// The `[Network]` section: the main file, then the fragments in the order of their names.
fn settings(root: &Path) -> Result<BTreeMap<String, String>, (PathBuf, io::Error)> {
    let mut main = None;
    let mut fragments: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let directory = root.join(directory);
        let file = directory.join("networkd.conf");
        if file.exists() {
            main = Some(file);
        }
        let fragment_directory = directory.join("networkd.conf.d");
        let entries = match std::fs::read_dir(&fragment_directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err((fragment_directory, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| (fragment_directory.clone(), error))?;
            if entry.path().extension().is_some_and(|end| end == "conf") {
                fragments.insert(entry.file_name(), entry.path());
            }
        }
    }
    let mut found = BTreeMap::new();
    for path in main.into_iter().chain(fragments.into_values()) {
        let text = std::fs::read_to_string(&path).map_err(|error| (path, error))?;
        read_section(&text, &mut found);
    }
    Ok(found)
}

fn read_section(text: &str, found: &mut BTreeMap<String, String>) {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Network]";
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn level(root: &Path) -> Level {
        let mut findings = Findings::default();
        all(root, &mut findings);
        assert_eq!(findings.0.len(), 1);
        findings.0[0].level
    }

    #[test]
    fn the_last_word_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let both = |value: &str| {
            format!(
                "[Network]\nManageForeignRoutes={value}\nManageForeignRoutingPolicyRules = {value}\n"
            )
        };
        assert_eq!(level(root.path()), Level::Ok);
        write("run/systemd/netif/state", "");
        assert_eq!(level(root.path()), Level::Warn);
        write(
            "etc/systemd/networkd.conf",
            "[Network]\n#ManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n[DHCPv4]\nManageForeignRoutes=no\n",
        );
        assert_eq!(level(root.path()), Level::Warn);
        write("etc/systemd/networkd.conf", &both("no"));
        assert_eq!(level(root.path()), Level::Ok);
        write("usr/lib/systemd/networkd.conf.d/90-x.conf", &both("yes"));
        assert_eq!(level(root.path()), Level::Warn);
        write("etc/systemd/networkd.conf.d/90-x.conf", &both("off"));
        assert_eq!(level(root.path()), Level::Ok);
    }
}
