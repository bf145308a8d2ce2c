//! The content of the packages, file by file.

use std::collections::BTreeMap;
use std::process::Command;

use crate::built::packages;
use lab::root::must;

/// Mode and path of every file of both; pages and documents further below.
const BOTH: &str = "
-rwxr-xr-x /usr/bin/trailblazer
-rw-r--r-- /usr/lib/systemd/system/trailblazer.service
-rw-r--r-- /usr/lib/systemd/system/trailblazer-reconcile.service
-rw-r--r-- /usr/lib/systemd/system/trailblazer-reconcile.timer
-rw-r--r-- /usr/lib/systemd/system/trailblazer-shut.service
-rw-r--r-- /usr/lib/systemd/system/trailblazer-vpc-agent.service
-rw-r--r-- /usr/lib/systemd/system/trailblazer-vpc.service
-rw-r--r-- /usr/lib/systemd/system/trailblazer-vpc.timer
-rw-r--r-- /usr/lib/systemd/networkd.conf.d/trailblazer.conf
-rw-r--r-- /usr/lib/sysusers.d/trailblazer.conf
-rw-r--r-- /usr/lib/tmpfiles.d/trailblazer.conf
-rw-r--r-- /etc/trailblazer/trailblazer.toml.example
-rw-r--r-- /etc/iproute2/rt_tables.d/trailblazer.conf
-rw-r--r-- /etc/iproute2/rt_protos.d/trailblazer.conf
-rw-r--r-- /usr/share/bash-completion/completions/trailblazer
-rw-r--r-- /usr/share/fish/vendor_completions.d/trailblazer.fish
-rw-r--r-- /usr/share/man/man5/trailblazer.toml.5.gz
-rw-r--r-- /usr/share/man/man8/trailblazer.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-agent.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-blocked.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-check.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-drain.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-explain.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-flows.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-flush.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-history.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-kick.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-probe.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-ranges.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-reconcile.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-shut.8.gz
-rw-r--r-- /usr/share/man/man8/trailblazer-status.8.gz
-rw-r--r-- /usr/share/doc/trailblazer/configuration.md
-rw-r--r-- /usr/share/doc/trailblazer/json.md
-rw-r--r-- /usr/share/doc/trailblazer/metrics.md
-rw-r--r-- /usr/share/doc/trailblazer/operation.md
-rw-r--r-- /usr/share/doc/trailblazer/status.md
-rw-r--r-- /usr/share/doc/trailblazer/vpc.md
-rw-r--r-- /usr/share/doc/trailblazer/trailblazer.schema.json
-rw-r--r-- /usr/share/doc/trailblazer/dropins/iptables.conf
-rw-r--r-- /usr/share/doc/trailblazer/dropins/processes.conf
-rw-r--r-- /usr/share/doc/trailblazer/dropins/restart-steps.conf
-rw-r--r-- /usr/share/doc/trailblazer/dropins/sysctls.conf
-rw-r--r-- /usr/share/doc/trailblazer/examples/host.toml
-rw-r--r-- /usr/share/doc/trailblazer/examples/nat.toml
-rw-r--r-- /usr/share/doc/trailblazer/examples/vpc.toml
-rw-r--r-- /usr/share/doc/trailblazer/prometheus/alerts.yml
-rw-r--r-- /usr/share/doc/trailblazer/prometheus/dashboard.json
";

const DEB_ALONE: &str = "
-rw-r--r-- /usr/share/zsh/vendor-completions/_trailblazer
-rw-r--r-- /usr/share/doc/trailblazer/changelog.Debian.gz
-rw-r--r-- /usr/share/doc/trailblazer/copyright
-rw-r--r-- /usr/share/lintian/overrides/trailblazer
";

const RPM_ALONE: &str = "
-rw-r--r-- /usr/share/zsh/site-functions/_trailblazer
-rw-r--r-- /usr/share/licenses/trailblazer/LICENSE-MIT
-rw-r--r-- /usr/share/licenses/trailblazer/LICENSE.dependencies
";

fn expected(lists: [&'static str; 2]) -> BTreeMap<String, String> {
    lists
        .iter()
        .flat_map(|list| list.lines())
        .filter_map(|line| line.split_once(' '))
        .map(|(mode, path)| (path.to_owned(), mode.to_owned()))
        .collect()
}

#[test]
fn deb_holds_exactly_its_files() {
    // -rwxr-xr-x root/root   9000000 2026-11-26 01:12 ./usr/bin/trailblazer
    let list = must(Command::new("dpkg-deb").arg("-c").arg(&packages().deb));
    let mut files = BTreeMap::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        if words[0].starts_with('d') {
            assert_eq!(words[0], "drwxr-xr-x", "{line}");
            continue;
        }
        let path = words[5].trim_start_matches('.');
        files.insert(path.to_owned(), words[0].to_owned());
    }
    assert_eq!(files, expected([BOTH, DEB_ALONE]));
}

#[test]
fn rpm_holds_exactly_its_files() {
    // -rwxr-xr-x root root 9000000 /usr/bin/trailblazer
    let format = "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\n]";
    let list = must(
        Command::new("rpm")
            .args(["-qp", "--qf", format])
            .arg(&packages().rpm),
    );
    let mut files = BTreeMap::new();
    let mut directories = Vec::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[1..3], ["root", "root"], "{line}");
        if words[0].starts_with('d') {
            assert_eq!(words[0], "drwxr-xr-x", "{line}");
            directories.push(words[3]);
        } else {
            files.insert(words[3].to_owned(), words[0].to_owned());
        }
    }
    assert_eq!(files, expected([BOTH, RPM_ALONE]));
    // An erasure removes only listed directories.
    for ours in [
        "/etc/trailblazer",
        "/usr/share/doc/trailblazer",
        "/usr/share/licenses/trailblazer",
    ] {
        assert!(directories.contains(&ours), "{ours}: {directories:?}");
    }
}

#[test]
fn binary_is_small_and_stripped_and_names_no_build_directory() {
    let bytes = std::fs::read(&packages().binary).expect("the script has built it");
    assert!(bytes.len() < 12 << 20, "{} bytes", bytes.len());
    let sections = must(
        Command::new("readelf")
            .args(["--wide", "--sections"])
            .arg(&packages().binary),
    );
    for gone in [".symtab", ".debug_info"] {
        assert!(!sections.contains(gone), "{gone}\n{sections}");
    }
    let home = std::env::var("HOME").unwrap_or("/root".to_owned());
    let cargo = std::env::var("CARGO_HOME").unwrap_or(format!("{home}/.cargo"));
    for directory in [env!("CARGO_MANIFEST_DIR"), &cargo] {
        let found = bytes
            .windows(directory.len())
            .position(|window| window == directory.as_bytes());
        let around = found.map(|at| String::from_utf8_lossy(&bytes[at..at + 120]).into_owned());
        assert_eq!(around, None, "{directory}");
    }
}
