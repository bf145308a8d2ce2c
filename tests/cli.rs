//! The contract for scripts: exit codes, the JSON object, standard output and standard error.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use serde_json::{Map, Value};

const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");
/// Of `examples/ip-ranges.json`.
const TOKEN: u64 = 1_795_021_512;
/// Commands that work on any Linux machine without a config.
const LOOK: [&str; 8] = [
    "reconcile",
    "--dry-run",
    "--role",
    "host",
    "--region",
    "us-east-1",
    "--source",
    "examples/ip-ranges.json",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A namespace, a copy of the sample document, and a config.
struct Host {
    bare: lab::Bare,
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host {
            bare: lab::Bare::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        host.publish(|_| {});
        host.configure("");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The sample, changed.
    fn publish(&self, change: impl FnOnce(&mut Value)) {
        let sample = std::fs::read(repository().join("examples/ip-ranges.json")).unwrap();
        let mut document: Value = serde_json::from_slice(&sample).unwrap();
        change(&mut document);
        std::fs::write(self.path("ip-ranges.json"), document.to_string()).unwrap();
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "role = \"host\"\n\
             source.url = {:?}\n\
             source.state_dir = {:?}\n\
             select.regions = [\"us-east-1\"]\n\
             egress.gateways = [\"10.0.1.10\"]\n\
             vpc.cidrs = [\"10.0.0.0/16\"]\n\
             {more}",
            self.path("ip-ranges.json"),
            self.path("state"),
        );
        std::fs::write(self.path("trailblazer.toml"), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words).stdin(Stdio::null());
        command
            .arg("-c")
            .arg(self.path("trailblazer.toml"))
            .current_dir(repository());
        command
    }

    fn run(&self, words: &[&str]) -> lab::Output {
        self.bare.ns.exec_command(&mut self.command(words))
    }

    /// `reconcile -o json`, with the whole contract checked.
    #[track_caller]
    fn reconcile(&self, flags: &[&str], code: i32) -> Value {
        let words = [&["reconcile", "-o", "json"], flags].concat();
        let output = self.run(&words).expect_code(code);
        let report = output.json();
        check_report(&report);
        report
    }
}

/// Withdraws the largest S3 prefix of us-east-1 under a newer token.
fn withdraw(document: &mut Value) {
    document["syncToken"] = (TOKEN + 1).to_string().into();
    let rows = document["prefixes"].as_array_mut().unwrap();
    rows.retain(|row| row["ip_prefix"] != "52.216.0.0/15");
}

/// The type of every documented field; further fields may be present, and none may be missing.
#[track_caller]
fn check_report(report: &Value) {
    let outcomes = [
        "in_sync",
        "changed",
        "pending",
        "held",
        "rolled_back",
        "failed",
    ];
    assert!(outcomes.contains(&report["outcome"].as_str().unwrap()));
    let fields = report.as_object().unwrap();
    let token = &fields["sync_token"];
    assert!(token.is_u64() || token.is_null(), "{token}");
    for name in ["selected", "aggregated"] {
        let counts = fields[name].as_object().unwrap();
        assert!(counts["ipv4"].is_u64() && counts["ipv6"].is_u64());
        assert_eq!(counts.len(), 2);
    }
    for step in fields["steps"].as_array().unwrap() {
        check_step(step.as_object().unwrap());
    }
    for verdict in fields["verdicts"].as_array().unwrap() {
        let verdict = verdict.as_object().unwrap();
        assert!(verdict["guard"].is_string() && verdict["message"].is_string());
        let level = verdict["level"].as_str().unwrap();
        assert!(["reject", "hold", "note"].contains(&level), "{level}");
    }
    assert!(fields["duration_ms"].is_u64());
    check_snake_case(report);
}

#[track_caller]
fn check_step(step: &Map<String, Value>) {
    let action = step["action"].as_str().unwrap();
    assert!(["add", "replace", "delete"].contains(&action), "{step:?}");
    let object = step["object"].as_str().unwrap();
    assert!(
        ["route", "rule", "nexthop", "nat", "sysctl"].contains(&object),
        "{step:?}"
    );
    if object != "route" {
        return;
    }
    let text = step["dst"].as_str().unwrap();
    let dst: IpNet = text.parse().unwrap();
    assert_eq!(dst.trunc().to_string(), text, "a canonical CIDR");
    assert!([1083, 1084, 1100, 1101].contains(&step["table"].as_u64().unwrap()));
    assert!(step["metric"].is_u64());
    match step["type"].as_str().unwrap() {
        "unicast" if step.contains_key("nexthop") => assert!(step["nexthop"].is_u64()),
        "unicast" => {
            assert!(step["gateway"].is_string() || step["gateway"].is_null());
            assert!(step["device"].is_string());
        }
        "unreachable" | "throw" => {
            assert!(!step.contains_key("gateway") || step["gateway"].is_null());
        }
        other => panic!("type {other}"),
    }
}

#[track_caller]
fn check_snake_case(value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(name.chars().all(good), "{name} is not snake_case");
                check_snake_case(value);
            }
        }
        Value::Array(values) => values.iter().for_each(check_snake_case),
        _ => {}
    }
}

/// 2 pending, 0 changed, 0 in sync, 3 held (before pending, and when there is nothing to do),
/// 0 accepted, 0 rejected with a last known good.
#[test]
fn every_outcome_has_its_exit_code() {
    lab::isolated(|| {
        let host = Host::new();
        let report = host.reconcile(&["--dry-run"], 2);
        assert_eq!(report["outcome"], "pending");
        let planned = report["steps"].clone();

        let report = host.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_eq!(report["sync_token"], TOKEN);
        assert_eq!(report["steps"], planned, "what was shown is what was done");
        assert_eq!(
            report["selected"],
            serde_json::json!({"ipv4": 4, "ipv6": 2})
        );
        assert_eq!(report["error"], Value::Null);

        let report = host.reconcile(&[], 0);
        assert_eq!(report["outcome"], "in_sync");
        assert_eq!(report["steps"], serde_json::json!([]));
        assert_eq!(host.reconcile(&["--dry-run"], 0)["outcome"], "in_sync");

        host.publish(withdraw);
        assert_eq!(host.reconcile(&["--dry-run"], 3)["outcome"], "held");
        assert_eq!(host.reconcile(&[], 3)["outcome"], "held");
        // *Held* takes precedence over *pending* (one of our routes was deleted meanwhile).
        host.bare.ns.ip("route del 3.5.0.0/19 table 1083");
        let report = host.reconcile(&["--dry-run"], 3);
        assert_eq!(report["outcome"], "held");
        assert_eq!(report["steps"][0]["dst"], "3.5.0.0/19");
        assert_eq!(host.reconcile(&[], 3)["outcome"], "held");
        let token = (TOKEN + 1).to_string();
        let report = host.reconcile(&["--accept", &token], 0);
        assert_eq!(report["sync_token"], TOKEN + 1);

        std::fs::write(host.path("ip-ranges.json"), "{}").unwrap();
        let report = host.reconcile(&[], 0);
        assert_eq!(report["outcome"], "in_sync");
        assert_eq!(report["verdicts"][0]["level"], "reject");

        // Exit code 1: a rejected document with none in force, and a part that this host cannot have.
        let fresh = host.path("fresh");
        let fresh = ["--state-dir", fresh.to_str().unwrap()];
        host.bare.ns.ip("route flush table 1083");
        let report = host.reconcile(&fresh, 1);
        assert_eq!(report["outcome"], "failed");
        assert!(report["error"].is_string());
        host.configure("bypass.gateway = \"10.77.0.1\"\n");
        let report = host.reconcile(&[], 1);
        assert_eq!(report["outcome"], "changed");
        let missing = &report["degraded"][0];
        assert_eq!(missing["part"], "bypass");
        assert!(missing["reason"].as_str().unwrap().contains("on-link"));
    });
}

#[test]
fn first_installation_report_has_all_fields() {
    lab::isolated(|| {
        let host = Host::new();
        host.configure("egress.close = [\"ipv6\"]\n");
        let report = host.reconcile(&["--dry-run"], 2);
        let steps = report["steps"].as_array().unwrap();
        let find = |dst: &str, table: u64, kind: &str| {
            let mut all = steps.iter().filter(|step| step["object"] == "route");
            all.find(|step| step["dst"] == dst && step["table"] == table && step["type"] == kind)
                .unwrap_or_else(|| panic!("no {kind} {dst} in {table}: {report:#}"))
        };
        let bypass = find("52.216.0.0/15", 1083, "unicast");
        assert_eq!(bypass["gateway"], "10.0.1.1");
        assert_eq!(bypass["device"], "eth0");
        assert_eq!(bypass["metric"], 0);
        assert_eq!(bypass["family"], "ipv4");
        let bypass = find("2600:1fa0:8000::/39", 1083, "unicast");
        assert_eq!(bypass["gateway"], "fe80::1");
        assert_eq!(bypass["metric"], 1024);
        // The JSON shows defaults as a prefix, not as a word.
        find("0.0.0.0/0", 1084, "unicast");
        assert_eq!(find("0.0.0.0/0", 1084, "unreachable")["metric"], u32::MAX);
        find("::/0", 1084, "unreachable");
        find("10.0.0.0/8", 1084, "throw");
        let of = |object: &str| steps.iter().filter(|step| step["object"] == object).count();
        assert!(of("rule") >= 6 && of("nat") == 1, "{report:#}");
        for rule in steps.iter().filter(|step| step["object"] == "rule") {
            assert!((30_000..30_100).contains(&rule["priority"].as_u64().unwrap()));
        }
        assert!(steps.iter().all(|step| step["action"] == "add"));
    });
}

/// Standard output holds the one JSON object and nothing else at any log level.
#[test]
fn json_goes_to_stdout_and_logs_go_to_stderr() {
    lab::isolated(|| {
        let host = Host::new();
        for flags in [&[][..], &["-v"], &["-vv"]] {
            let words = [&["reconcile", "--dry-run", "-o", "json"], flags].concat();
            let output = host.run(&words).expect_code(2);
            check_report(&output.json());
            assert_eq!(output.stdout.matches('\n').count(), 1, "{output}");
        }
        let mut command = host.command(&["reconcile", "--dry-run", "-o", "json"]);
        command.env("TRAILBLAZER_LOG", "trace");
        let output = host.bare.ns.exec_command(&mut command).expect_code(2);
        check_report(&output.json());
        // A failure: the report on standard output, the message on standard error.
        let mut command = host.command(&["reconcile", "-o", "json"]);
        command.args(["--source", "/nowhere.json"]);
        let output = host.bare.ns.exec_command(&mut command).expect_code(1);
        let report = output.json();
        check_report(&report);
        assert!(output.stderr.contains(report["error"].as_str().unwrap()));
        // Wrong usage and wrong settings: nothing on standard output at all.
        host.configure("guard.max_los = 1\n");
        let output = host.run(&["reconcile", "-o", "json"]).expect_code(64);
        assert_eq!(output.stdout, "", "{output}");
        assert!(output.stderr.contains("max_loss"), "{output}");
    });
}

/// The last line says what a failure means for the steps above.
#[test]
fn last_line_of_a_failed_pass_names_its_effect() {
    lab::isolated(|| {
        let host = Host::new();
        let says = |flags: &[&str], last: &str| {
            let words = [&["reconcile"], flags].concat();
            let output = host.run(&words).expect_code(1);
            assert_eq!(output.stdout.lines().last(), Some(last), "{output}");
        };
        host.bare
            .ns
            .ip("route add unreachable default table 1084 metric 7");
        says(&["--dry-run"], "Failed. Nothing was changed.");
        // The object in conflict is left out, and the rest goes in.
        let rest = "Failed. The steps above were executed and verified.";
        says(&[], rest);
        host.run(&["flush"]).expect_code(0);
        host.bare
            .ns
            .ip("route del unreachable default table 1084 metric 7");
        // Without a document the egress path goes in all the same.
        let fresh = host.path("fresh");
        let fresh = fresh.to_str().unwrap();
        let absent = ["--source", "/nowhere.json", "--state-dir", fresh];
        says(
            &absent,
            "Failed. The steps above were executed and verified.",
        );
        says(&absent, "Failed. Nothing was changed.");
    });
}

/// A closed standard output (`| head -1`) is no failure.
#[test]
fn closed_pipe_is_no_failure() {
    lab::isolated(|| {
        let host = Host::new();
        let line = format!(
            "set -o pipefail; {BINARY} reconcile --dry-run -c {} | true; exit ${{PIPESTATUS[0]}}",
            host.path("trailblazer.toml").display()
        );
        let output = host.bare.ns.exec(&["bash", "-c", &line]).expect_code(2);
        assert!(!output.stderr.contains("panicked"), "{output}");
    });
}

/// Colours on a terminal only, and not with NO_COLOR. `script` (bsdutils) gives a terminal.
#[test]
fn colours_appear_only_on_a_terminal_without_no_color() {
    lab::isolated(|| {
        let host = Host::new();
        let config = host.path("trailblazer.toml");
        let line = format!("{BINARY} reconcile --dry-run -c {}", config.display());
        let terminal = |no_color: Option<&str>| {
            let mut command = Command::new("script");
            command
                .args(["-qec", &line, "/dev/null"])
                .stdin(Stdio::null());
            command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
            if let Some(value) = no_color {
                command.env("NO_COLOR", value);
            }
            host.bare
                .ns
                .exec_command(&mut command)
                .expect_code(2)
                .stdout
        };
        assert!(terminal(None).contains("\u{1b}["), "a terminal has colours");
        assert!(
            terminal(Some("")).contains("\u{1b}["),
            "empty counts as unset"
        );
        let plain = terminal(Some("1"));
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let piped = host.run(&["reconcile", "--dry-run"]).expect_code(2).stdout;
        assert!(!piped.contains('\u{1b}'), "{piped:?}");
        assert_eq!(
            plain.replace('\r', ""),
            piped,
            "the same text but for the colours"
        );
        assert!(piped.contains("52.216.0.0/15"), "{piped}");
        assert!(
            piped.trim_end().ends_with("Nothing was changed."),
            "{piped}"
        );
    });
}

#[test]
fn help_version_and_usage_errors_have_their_exit_codes() {
    let run = |words: &[&str]| Command::new(BINARY).args(words).output().unwrap();
    let mut helped: Vec<Vec<&str>> = vec![vec!["--help"], vec!["-h"]];
    for command in [
        "reconcile",
        "explain",
        "ranges",
        "history",
        "check",
        "status",
        "blocked",
        "probe",
        "drain",
        "kick",
        "flush",
        "shut",
    ] {
        helped.push(vec![command, "--help"]);
    }
    for words in helped {
        let output = run(&words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Usage:"), "{words:?}: {text}");
        assert!(output.stderr.is_empty(), "{words:?}");
    }
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("trailblazer ", env!("CARGO_PKG_VERSION"));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with(version)
    );

    for (words, says) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["reconcile", "--dry-rum"], "--dry-run"),
        (&["reconcil"], "reconcile"),
        (&["reconcile", "--role", "router"], "router"),
        (&["reconcile", "-o", "yaml"], "yaml"),
        (&["reconcile", "--accept", "soon"], "1710355389"),
        (&["reconcile", "--region"], "--region"),
        (&["reconcile", "extra"], "extra"),
        (&["explain", "1.2.3.999"], "1.2.3.999"),
        (&[], "Usage:"),
        // Flags whose values are wrong as settings.
        (
            &[
                "reconcile",
                "--dry-run",
                "--role",
                "host",
                "--region",
                "Frankfurt!",
            ],
            "--region",
        ),
        (&["reconcile", "-c", "/absent.toml"], "/absent.toml"),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(says), "{words:?}: lacks {says}: {text}");
    }
    // The agent's own command is no proposal for people.
    for words in [&["fetch"][..], &["fetch-for"], &["-o", "json"]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("fetch-for-agent"), "{words:?}: {text}");
    }
}

/// The command of the issue: no config, nothing but flags.
#[test]
fn dry_run_needs_no_config() {
    lab::isolated(|| {
        let bare = lab::Bare::new();
        let before = bare.ns.snapshot();
        let mut command = Command::new(BINARY);
        command.args(LOOK).current_dir(repository());
        let state_dir = Path::new("/var/lib/trailblazer");
        let there = state_dir.exists();
        // No metadata service here, which is a note: only the VPC's own CIDRs are not known.
        let output = bare.ns.exec_command(&mut command).expect_code(2);
        assert!(output.stdout.contains("metadata service"), "{output}");
        for words in [
            "52.216.0.0/15",
            "2600:1fa0:8000::/39",
            "via 10.0.1.1",
            "Nothing was changed.",
        ] {
            assert!(output.stdout.contains(words), "lacks {words}: {output}");
        }
        before.assert_same(&bare.ns.snapshot());
        assert_eq!(state_dir.exists(), there);
        // A role is needed, and said so.
        let mut command = Command::new(BINARY);
        command
            .args(["reconcile", "--dry-run"])
            .current_dir(repository());
        let output = bare.ns.exec_command(&mut command).expect_code(64);
        assert!(output.stderr.contains("--role"), "{output}");
    });
}

/// As somebody without any privilege: not root and no capability.
#[test]
fn dry_run_needs_no_privilege() {
    lab::isolated(|| {
        let bare = lab::Bare::new();
        let before = bare.ns.snapshot();
        let as_nobody = |words: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args([
                "--bounding-set=-all",
                "--inh-caps=-all",
                "--no-new-privs",
                BINARY,
            ]);
            command.args(words).current_dir(repository());
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
            bare.ns.exec_command(&mut command)
        };
        let words = [LOOK.as_slice(), &["-o", "json"]].concat();
        let report = as_nobody(&words).expect_code(2).json();
        check_report(&report);
        assert_eq!(report["outcome"], "pending");
        let refused = as_nobody(&["reconcile", "--role", "host", "--region", "us-east-1"]);
        let refused = refused.expect_code(1);
        assert!(refused.stderr.contains("CAP_NET_ADMIN"), "{refused}");
        before.assert_same(&bare.ns.snapshot());
    });
}
