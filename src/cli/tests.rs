//! The command line as users type it.

use jiff::Timestamp;

use super::*;
use crate::exit;
use clap::CommandFactory as _;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn command_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn explain_accepts_destinations_and_unmaps_ipv4() {
    for (text, address) in [
        ("52.216.1.1", "52.216.1.1"),
        ("::ffff:52.216.1.1", "52.216.1.1"),
    ] {
        let cli = parsed(&format!("trailblazer explain {text}")).expect("an address");
        let Command::Explain(arguments) = cli.command else {
            panic!("explain");
        };
        let wanted = Destination::Address(address.parse().expect("an address"));
        assert_eq!(arguments.destination, wanted);
        assert_eq!(arguments.probe, None);
    }
    for refused in [
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "52.216.0.0/33",
        "1.2.3.999",
        "1.2.3",
        "2600::g",
        "a..b",
        "-x",
        "https://s3.amazonaws.com/",
        "s3 .amazonaws.com",
        "ä.example",
    ] {
        assert!(parsed(&format!("trailblazer explain {refused}")).is_err());
    }
}

#[test]
fn explain_accepts_prefixes_names_and_a_port_to_probe() {
    let read = |words: &str| match parsed(&format!("trailblazer explain {words}")) {
        Ok(Cli {
            command: Command::Explain(found),
            ..
        }) => (found.destination, found.probe),
        other => panic!("{words}: {other:?}"),
    };
    let prefix = |text: &str| Destination::Prefix(text.parse().expect("a prefix"));
    let name = |text: &str| Destination::Name(text.to_owned());
    let address = |text: &str| Destination::Address(text.parse().expect("an address"));
    for (words, wanted) in [
        ("52.216.0.9/15", (prefix("52.216.0.0/15"), None)),
        ("52.216.0.9/32", (address("52.216.0.9"), None)),
        ("s3.amazonaws.com.", (name("s3.amazonaws.com."), None)),
        ("--probe 1.2.3.4", (address("1.2.3.4"), Some(443))),
        (
            "a_b.example --probe=8443",
            (name("a_b.example"), Some(8443)),
        ),
    ] {
        assert_eq!(read(words), wanted, "{words}");
    }
    assert!(parsed("trailblazer explain 1.2.3.4 --probe=0").is_err());
}

#[test]
fn reconcile_flags_reach_the_settings() {
    let cli = parsed(
        "trailblazer reconcile --dry-run --cache-only --accept 17 -c a.toml --role nat \
         --source u --source v --region us-east-1 --region eu-west-1 --service S3 \
         --state-dir /s -o json -vv",
    )
    .expect("the contract");
    assert_eq!(cli.verbose, 2);
    assert_eq!(cli.command.name(), "reconcile");
    let overrides = cli.command.overrides();
    assert_eq!(overrides.role, Some(AnyRole::Nat));
    assert_eq!(overrides.source, ["u", "v"]);
    assert_eq!(overrides.regions, ["us-east-1", "eu-west-1"]);
    assert_eq!(overrides.services, ["S3"]);
    assert_eq!(overrides.state_dir, Some(PathBuf::from("/s")));
    let Command::Reconcile(args) = cli.command else {
        panic!("another command");
    };
    assert!(args.dry_run && args.cache_only);
    assert_eq!(args.accept, Some(SyncToken(17)));
    assert_eq!(args.common.base.config, Some(PathBuf::from("a.toml")));
    assert_eq!(args.common.base.output, Output::Json);
}

#[test]
fn every_command_accepts_config_output_and_state_dir() {
    for command in [
        "reconcile",
        "agent",
        "explain ::1",
        "ranges",
        "history",
        "check",
        "status",
        "blocked",
        "flows",
        "kick",
        "flush",
        "shut",
    ] {
        let cli = parsed(&format!("trailblazer {command} -c f -o json --state-dir d"));
        let cli = cli.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(
            cli.command.base().config,
            Some(PathBuf::from("f")),
            "{command}"
        );
        assert_eq!(cli.command.base().output, Output::Json, "{command}");
        assert_eq!(
            cli.command.overrides().state_dir,
            Some(PathBuf::from("d")),
            "{command}"
        );
        let help = parsed(&format!(
            "trailblazer {} --help",
            command.replace(" ::1", "")
        ));
        assert_eq!(exit_code(&help.expect_err("help")), exit::OK, "{command}");
    }
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    for (line, code) in [
        ("trailblazer", exit::USAGE),
        ("trailblazer reconcil", exit::USAGE),
        ("trailblazer reconcile --accept soon", exit::USAGE),
        ("trailblazer reconcile --role router", exit::USAGE),
        ("trailblazer reconcile -o yaml", exit::USAGE),
        ("trailblazer explain", exit::USAGE),
        ("trailblazer explain 1.2.3.999", exit::USAGE),
        ("trailblazer history -n -1", exit::USAGE),
        ("trailblazer blocked -n many", exit::USAGE),
        ("trailblazer blocked --all -n 3", exit::USAGE),
        ("trailblazer blocked --role host", exit::USAGE),
        ("trailblazer flush --role host", exit::USAGE),
        ("trailblazer kick --watch", exit::USAGE),
        ("trailblazer flows --all --displaced", exit::USAGE),
        ("trailblazer flows --limit many", exit::USAGE),
        ("trailblazer flows --role host", exit::USAGE),
        ("trailblazer --version", exit::OK),
        ("trailblazer --help", exit::OK),
    ] {
        let error = parsed(line).expect_err(line);
        assert_eq!(exit_code(&error), code, "{line}: {error}");
    }
}

#[test]
fn long_help_has_examples_and_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    for part in [
        "reconcile --dry-run",
        "Exit codes:",
        "64  wrong usage",
        "TRAILBLAZER_LOG",
    ] {
        assert!(help.contains(part), "{help}\nlacks {part}");
    }
}

#[test]
fn common_flags_work_before_and_after_the_command() {
    for command in [
        "status",
        "flows",
        "kick",
        "flush",
        "history",
        "check",
        "explain 192.0.2.1",
    ] {
        for line in [
            format!("trailblazer -c a.toml -o json --state-dir /s {command}"),
            format!("trailblazer {command} -c a.toml -o json --state-dir /s"),
        ] {
            let cli = parsed(&line).expect(&line);
            let base = cli.command.base();
            assert_eq!(base.config, Some(PathBuf::from("a.toml")), "{line}");
            assert_eq!(base.output, Output::Json, "{line}");
            assert_eq!(base.state_dir, Some(PathBuf::from("/s")), "{line}");
        }
    }
}

#[test]
fn history_reads_spans_and_times() {
    let since = |text: &str| match parsed(&format!("trailblazer history --since {text}")) {
        Ok(cli) => match cli.command {
            Command::History(arguments) => arguments.since,
            _ => None,
        },
        Err(_) => None,
    };
    for (text, hours) in [("90min", 1), ("2h", 2), ("3d", 72), ("1w", 168)] {
        let at = since(text).expect(text);
        let before = Timestamp::now().duration_since(at);
        assert_eq!(before.as_hours(), hours, "{text}");
    }
    assert_eq!(
        since("2026-11-28T03:00:00Z"),
        "2026-11-28T03:00:00Z".parse().ok()
    );
    for refused in ["2", "-2h", "0h", "yesterday", "1month", "99999999999h"] {
        assert_eq!(since(refused), None, "{refused}");
    }
    assert!(parsed("trailblazer history --all --last 3").is_err());
}
