//! systemd-networkd deletes foreign routes and rules, unless `ManageForeignRoutes` and
//! `ManageForeignRoutingPolicyRules` (networkd.conf(5), both default to yes) are off.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::report::CheckReport;
use crate::commands::boot::is_masked;

const KEYS: [&str; 2] = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"];
/// Among files of one name the last directory wins (networkd.conf(5), "configuration
/// directories").
const DIRECTORIES: [&str; 4] = [
    "usr/lib/systemd",
    "usr/local/lib/systemd",
    "run/systemd",
    "etc/systemd",
];

const UNIT: &str = "systemd-networkd.service";
/// The control groups of system services: unified, and of systemd beside version 1.
const SERVICES: [&str; 3] = [
    "sys/fs/cgroup/system.slice",
    "sys/fs/cgroup/unified/system.slice",
    "sys/fs/cgroup/systemd/system.slice",
];
/// Directories with units and with their links at boot (systemd.unit(5)): of the administrator, of
/// programs, and of generators such as netplan's.
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator.early",
    "run/systemd/generator",
    "run/systemd/generator.late",
];

/// Reads the settings below `root`, which is `/` except in tests.
pub(super) fn all(root: &Path, report: &mut CheckReport) {
    let name = "networkd";
    if !runs(root) && !starts_at_boot(root) {
        report.ok(name, "systemd-networkd is off");
        return;
    }
    let settings = match settings(root) {
        Ok(settings) => settings,
        Err((path, error)) => {
            report.warn(
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
        report.ok(name, "systemd-networkd keeps foreign routes and rules");
        return;
    }
    let lines: Vec<String> = taken.iter().map(|key| format!("{key}=no")).collect();
    report.warn(
        name,
        "systemd-networkd removes Trailblazer's routes or rules when networkd restarts or a link comes up",
        format!(
            "write \"[Network]\" and \"{}\" to /etc/systemd/networkd.conf.d/trailblazer.conf, then systemctl restart systemd-networkd",
            lines.join("\", \"")
        ),
    );
}

/// True if networkd is running, by its control group, which ends with the service. Without control
/// groups the state file counts, which stays until the next boot. The directory of the file says
/// nothing: systemd-tmpfiles creates the directory at each boot.
fn runs(root: &Path) -> bool {
    let slices = SERVICES.map(|slice| root.join(slice));
    let mut visible = slices.iter().filter(|slice| slice.exists()).peekable();
    if visible.peek().is_none() {
        return root.join("run/systemd/netif/state").exists();
    }
    visible.any(|slice| slice.join(UNIT).exists())
}

/// True if a target pulls in networkd at boot, and nobody masks the unit.
fn starts_at_boot(root: &Path) -> bool {
    let directories = UNITS.map(|directory| root.join(directory));
    if directories
        .iter()
        .any(|directory| is_masked(&directory.join(UNIT)))
    {
        return false;
    }
    let entries = directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok());
    entries.flatten().flatten().any(|entry| {
        let wants = entry.path();
        let pulls = |ending: &str| wants.extension().is_some_and(|own| own == ending);
        (pulls("wants") || pulls("requires")) && wants.join(UNIT).symlink_metadata().is_ok()
    })
}

/// True for systemd's words for a boolean no (`parse_boolean`, systemd's src/basic/parse-util.c).
fn is_no(value: &str) -> bool {
    ["no", "n", "false", "f", "off", "0"].contains(&value.to_ascii_lowercase().as_str())
}

/// Reads the `[Network]` sections: the main file, then the fragments sorted by name.
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
    use super::super::report::Severity;
    use super::*;

    fn level(root: &Path) -> Severity {
        let mut report = CheckReport::default();
        all(root, &mut report);
        assert_eq!(report.0.len(), 1);
        report.0[0].severity
    }

    #[test]
    fn the_last_file_with_a_key_decides() {
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
        write("run/systemd/netif/state", "");
        assert_eq!(level(root.path()), Severity::Warn);
        write(
            "etc/systemd/networkd.conf",
            "[Network]\n#ManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n[DHCPv4]\nManageForeignRoutes=no\n",
        );
        assert_eq!(level(root.path()), Severity::Warn);
        write("etc/systemd/networkd.conf", &both("no"));
        assert_eq!(level(root.path()), Severity::Ok);
        write("usr/lib/systemd/networkd.conf.d/90-x.conf", &both("yes"));
        assert_eq!(level(root.path()), Severity::Warn);
        write("etc/systemd/networkd.conf.d/90-x.conf", &both("off"));
        assert_eq!(level(root.path()), Severity::Ok);
    }

    #[test]
    fn networkd_that_is_off_is_no_warning() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        let link = |to: &str, path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(to, path).unwrap();
        };
        // As systemd-tmpfiles leaves the directory, and networkd of an earlier time its state.
        make("run/systemd/netif/links");
        assert_eq!(level(root.path()), Severity::Ok);
        make("sys/fs/cgroup/system.slice/ssh.service");
        std::fs::write(root.path().join("run/systemd/netif/state"), "").unwrap();
        assert_eq!(level(root.path()), Severity::Ok);

        make("sys/fs/cgroup/system.slice/systemd-networkd.service");
        assert_eq!(level(root.path()), Severity::Warn);
        std::fs::remove_dir(root.path().join(SERVICES[0]).join(UNIT)).unwrap();
        assert_eq!(level(root.path()), Severity::Ok);

        let unit = "/usr/lib/systemd/system/systemd-networkd.service";
        link(
            unit,
            "run/systemd/generator.late/multi-user.target.wants/systemd-networkd.service",
        );
        assert_eq!(level(root.path()), Severity::Warn);
        link("/dev/null", "etc/systemd/system/systemd-networkd.service");
        assert_eq!(level(root.path()), Severity::Ok);
    }
}
