//! A host to do bad things to: a namespace, a config, a document and a state dir.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use lab::{Bare, Output, Snapshot};

pub const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");
/// Of the good document.
pub const TOKEN: u64 = 1_700_000_000;

/// prefix, region, service
pub type Row = (&'static str, &'static str, &'static str);

/// S3 of us-east-1 is selected.
pub const ROWS: [Row; 6] = [
    ("52.216.0.0/15", "us-east-1", "S3"),
    ("54.231.0.0/16", "us-east-1", "S3"),
    ("3.5.0.0/19", "us-east-1", "S3"),
    ("2600:1fa0:8000::/39", "us-east-1", "S3"),
    ("52.218.0.0/17", "eu-west-1", "S3"),
    ("52.94.0.0/22", "us-east-1", "DYNAMODB"),
];

/// A document in AWS's format.
pub fn document(token: u64, rows: &[Row]) -> String {
    let list = |ipv6: bool| -> Vec<Value> {
        let key = if ipv6 { "ipv6_prefix" } else { "ip_prefix" };
        rows.iter()
            .filter(|row| row.0.contains(':') == ipv6)
            .map(|(prefix, region, service)| {
                serde_json::json!({
                    key: prefix, "region": region, "service": service,
                    "network_border_group": region,
                })
            })
            .collect()
    };
    serde_json::json!({
        "syncToken": token.to_string(),
        "createDate": "2023-11-14-22-13-20",
        "prefixes": list(false),
        "ipv6_prefixes": list(true),
    })
    .to_string()
}

/// `ROWS` and `more`.
pub fn rows_and(more: &[Row]) -> Vec<Row> {
    [ROWS.as_slice(), more].concat()
}

/// Files and directories below a directory: mode and content.
pub type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

pub struct Site {
    pub bare: Bare,
    dir: tempfile::TempDir,
    /// The config's text; written before each run.
    pub config: String,
}

/// A snapshot of the kernel and the state directory.
pub struct Before {
    kernel: Snapshot,
    files: Files,
    journal: Option<String>,
}

impl Site {
    pub fn new() -> Site {
        Site::with_links(1)
    }

    pub fn with_links(links: usize) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // Tests run the binary without capabilities, and then a directory of 0700 of another user
        // is closed.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "role = \"host\"\n\
             source.url = {:?}\n\
             source.state_dir = {:?}\n\
             source.timeout = \"2s\"\n\
             select.regions = [\"us-east-1\"]\n\
             egress.gateways = [\"10.0.1.10\"]\n\
             vpc.cidrs = [\"10.0.0.0/16\"]\n",
            dir.path().join("ip-ranges.json"),
            dir.path().join("state"),
        );
        Site {
            bare: Bare::with_links(links),
            dir,
            config,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// Replaces one value in the config.
    #[track_caller]
    pub fn edit(&mut self, from: &str, to: &str) {
        assert!(
            self.config.contains(from),
            "{from} isn't in {}",
            self.config
        );
        self.config = self.config.replace(from, to);
    }

    pub fn publish(&self, document: impl AsRef<[u8]>) {
        std::fs::write(self.path("ip-ranges.json"), document).unwrap();
    }

    /// The good document, in force.
    #[track_caller]
    pub fn install(&self) {
        self.publish(document(TOKEN, &ROWS));
        self.reconcile(&[], 0);
    }

    /// The binary with the config, ready to be changed.
    pub fn command(&self, flags: &[&str]) -> Command {
        let config = self.path("trailblazer.toml");
        std::fs::write(&config, &self.config).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["reconcile", "-o", "json", "-c"]);
        command.arg(config).args(flags);
        command
    }

    /// `command` under `setpriv`, without `capabilities`.
    pub fn command_without(&self, capabilities: &str, flags: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set=-{capabilities}"))
            .arg(format!("--inh-caps=-{capabilities}"));
        let inner = self.command(flags);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    pub fn run(&self, flags: &[&str]) -> Output {
        self.bare.ns.exec_command(&mut self.command(flags))
    }

    /// `reconcile -o json`, which must exit so.
    #[track_caller]
    pub fn reconcile(&self, flags: &[&str], code: i32) -> Value {
        self.run(flags).expect_code(code).json()
    }

    /// The kernel's route to an address, or the kernel's refusal.
    pub fn way(&self, address: &str) -> String {
        let output = self.bare.ns.exec(&["ip", "route", "get", address]);
        output.stdout + &output.stderr
    }

    #[track_caller]
    pub fn flush(&self) {
        let config = self.path("trailblazer.toml");
        self.bare
            .ns
            .run(&[BINARY, "flush", "-c", config.to_str().unwrap()]);
    }

    pub fn before(&self) -> Before {
        Before {
            kernel: self.bare.ns.snapshot(),
            files: state_files(&self.state_dir()),
            journal: std::fs::read_to_string(self.state_dir().join("journal.jsonl")).ok(),
        }
    }

    /// The kernel and the state dir are as before; the journal has lost nothing.
    #[track_caller]
    pub fn assert_as(&self, before: &Before) {
        before.kernel.assert_same(&self.bare.ns.snapshot());
        self.assert_files_as(before);
    }

    #[track_caller]
    pub fn assert_files_as(&self, before: &Before) {
        let files = state_files(&self.state_dir());
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            names(&files),
            names(&before.files),
            "files of the state dir"
        );
        for (path, content) in &files {
            assert!(before.files[path] == *content, "{} changed", path.display());
        }
        let journal = std::fs::read_to_string(self.state_dir().join("journal.jsonl"));
        let journal = journal.unwrap_or_default();
        let earlier = before.journal.as_deref().unwrap_or_default();
        assert!(journal.starts_with(earlier), "the journal lost lines");
        if let Ok(lock) = std::fs::read(self.state_dir().join("lock")) {
            assert!(lock.is_empty(), "the lock names a holder after the pass");
        }
    }

    /// The lines of the journal.
    #[track_caller]
    pub fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state_dir().join("journal.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The last line of the journal.
    #[track_caller]
    pub fn journal_end(&self) -> Value {
        self.journal().pop().unwrap()
    }

    /// Runs a pass that must exit with `code`, print all of `words` on standard error, and change
    /// nothing. Returns the report, if printed.
    #[track_caller]
    pub fn refuses(&self, flags: &[&str], code: i32, says: &[&str]) -> Option<Value> {
        let before = self.before();
        self.refuses_running(&mut self.command(flags), code, says, &before)
    }

    #[track_caller]
    pub fn refuses_running(
        &self,
        command: &mut Command,
        code: i32,
        says: &[&str],
        before: &Before,
    ) -> Option<Value> {
        let output = self.bare.ns.exec_command(command).expect_code(code);
        for words in says {
            assert!(output.stderr.contains(words), "lacks {words:?}:\n{output}");
        }
        self.assert_as(before);
        if output.stdout.is_empty() {
            return None;
        }
        let report = output.json();
        assert_eq!(report["outcome"], "failed", "{output}");
        // The words stand on standard error once, and in the report's field.
        let error = report["error"].as_str().unwrap();
        assert_eq!(output.stderr.matches(error).count(), 1, "{output}");
        Some(report)
    }

    /// A pass that must name each of these faults, and exit with 1. Its report.
    #[track_caller]
    pub fn names(&self, flags: &[&str], says: &[&str]) -> Value {
        let output = self.run(flags).expect_code(1);
        let report = output.json();
        let said = format!("{}{}", report["error"], report["degraded"]);
        for words in says {
            assert!(said.contains(words), "lacks {words:?}:\n{output}");
        }
        report
    }

    /// IPv4 partners leave by the egress gateway or not at all.
    #[track_caller]
    pub fn assert_closed(&self) {
        let rules = self.bare.ns.ip("-4 rule show");
        assert!(rules.contains("30030:\tfrom all lookup 1084"), "{rules}");
        let routes = self.bare.ns.ip("-4 route show table 1084");
        for route in ["default via 10.0.1.10", "unreachable default"] {
            assert!(routes.contains(route), "{route}: {routes}");
        }
        let partner = self.bare.ns.ip("-4 route get 93.184.216.34");
        assert!(partner.contains("via 10.0.1.10 "), "{partner}");
    }

    /// Destinations in the bypass table, sorted as text.
    pub fn bypass(&self) -> Vec<String> {
        let mut found = Vec::new();
        for family in ["-4", "-6"] {
            let routes = self
                .bare
                .ns
                .ip_json(&format!("{family} route show table 1083"));
            let routes = routes.as_array().unwrap().clone();
            found.extend(routes.iter().map(|r| r["dst"].as_str().unwrap().to_owned()));
        }
        found.sort();
        found
    }
}

/// All but the journal and the lock, which each pass touches.
pub fn state_files(dir: &Path) -> Files {
    let mut files = all_files(dir);
    files.retain(|path, _| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with("journal.jsonl") && name != "lock"
    });
    files
}

pub fn all_files(dir: &Path) -> Files {
    let mut files = Files::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return files;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let mode = path.symlink_metadata().unwrap().mode();
        if path.is_dir() {
            files.extend(all_files(&path));
            files.insert(path, (mode, Vec::new()));
        } else {
            let content = std::fs::read(&path).unwrap();
            files.insert(path, (mode, content));
        }
    }
    files
}

/// The verdict of the guard `name`.
#[track_caller]
pub fn verdict<'r>(report: &'r Value, guard: &str) -> &'r Value {
    let mut verdicts = report["verdicts"].as_array().unwrap().iter();
    verdicts
        .find(|verdict| verdict["guard"] == guard)
        .unwrap_or_else(|| panic!("no verdict {guard}: {report:#}"))
}

/// Asserts that the guard `name` spoke at `level` with `words`.
#[track_caller]
pub fn assert_verdict(report: &Value, guard: &str, level: &str, says: &str) {
    let found = verdict(report, guard);
    assert_eq!(found["level"], level, "{report:#}");
    assert!(
        found["message"].as_str().unwrap().contains(says),
        "lacks {says:?}: {found}"
    );
}

impl Before {
    /// The kernel alone is as before.
    #[track_caller]
    pub fn assert_kernel(&self, site: &Site) {
        self.kernel.assert_same(&site.bare.ns.snapshot());
    }

    /// True if the file is as before.
    pub fn has_file(&self, path: &Path) -> bool {
        self.files
            .get(path)
            .is_some_and(|(_, content)| std::fs::read(path).is_ok_and(|now| now == *content))
    }

    /// Restores one file.
    pub fn restore_file(&self, path: &Path) {
        std::fs::write(path, &self.files[path].1).unwrap();
    }
}
