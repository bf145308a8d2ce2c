//! Privileges, concurrent passes, and an interface that disappears.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use trailblazer::apply::Interposer;
use trailblazer::config::{Role, parse};
use trailblazer::degraded::Part;
use trailblazer::kernel::Kernel;
use trailblazer::kernel::errno::KernelError;
use trailblazer::plan::Step;
use trailblazer::reconcile::{Options, Outcome, one_shot};
use trailblazer::state::lock::{self, PassLock};

use crate::site::{BINARY, ROWS, Site, TOKEN, document, state_files};
use lab::raw_http::{Server, ok};
use lab::{Ns, Snapshot};

#[test]
fn pass_without_cap_net_admin_is_refused() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let before = site.before();
        let says = [
            "needs CAP_NET_ADMIN",
            "run as root",
            "--dry-run needs no privilege",
        ];
        for capabilities in ["net_admin", "all"] {
            let mut command = site.command_without(capabilities, &[]);
            site.refuses_running(&mut command, 1, &says, &before);
            assert!(!site.state_dir().exists(), "a state dir was made");
            // Reading works as far as the kernel permits.
            let mut command = site.command_without(capabilities, &["--dry-run"]);
            let output = site.bare.ns.exec_command(&mut command).expect_code(2);
            let report = output.json();
            assert_eq!(report["outcome"], "pending");
            assert!(report["steps"].as_array().unwrap().len() > 4, "{report:#}");
            site.assert_as(&before);
        }
        // Fetching and storing a document needs no privilege, and leaves the kernel alone.
        let kept = site.path("kept");
        let flags = ["--cache-only", "--state-dir", kept.to_str().unwrap()];
        let mut command = site.command_without("net_admin", &flags);
        site.bare.ns.exec_command(&mut command).expect_code(0);
        assert!(kept.join("last-known-good").exists());
        site.assert_as(&before);
        // Our state is in force, and the state directory is unreadable.
        site.install();
        let before = site.before();
        site.refuses_running(&mut site.command_without("all", &[]), 1, &says, &before);
        let good = std::fs::metadata(site.state_dir()).unwrap().permissions();
        std::fs::set_permissions(site.state_dir(), Permissions::from_mode(0o000)).unwrap();
        let output = site
            .bare
            .ns
            .exec_command(&mut site.command_without("all", &["--dry-run"]));
        std::fs::set_permissions(site.state_dir(), good).unwrap();
        assert!(matches!(output.code, Some(0 | 2)), "{output}");
        assert!(
            output.json()["notes"]
                .to_string()
                .contains("Permission denied"),
            "{output}"
        );
        site.assert_as(&before);
    });
}

#[test]
fn second_pass_names_the_holder_of_the_lock() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let before = site.before();
        let dir = site.state_dir();
        let acquire = || PassLock::acquire(&dir, "agent", Duration::ZERO).unwrap();
        let held = site.bare.ns.in_thread(acquire);
        let start = Instant::now();
        let output = site.run(&[]).expect_code(1);
        let waited = start.elapsed();
        // Ten seconds, and more beside a load: not for ever and not nothing.
        assert!((9..60).contains(&waited.as_secs()), "waited {waited:?}");
        let holder = format!("is held by pid {} (agent) since", std::process::id());
        for words in [
            "another pass is running",
            &holder,
            "try again when the pass has ended",
        ] {
            assert!(output.stderr.contains(words), "lacks {words:?}: {output}");
        }
        assert_eq!(output.json()["outcome"], "failed");
        // Looking needs no lock.
        site.reconcile(&["--dry-run"], 0);
        drop(held);
        site.assert_as(&before);
        assert_eq!(site.reconcile(&[], 0)["outcome"], "in_sync");
    });
}

/// A pass in another network namespace with the same state directory changes another kernel: only
/// the files wait.
#[test]
fn lock_file_of_another_namespace_holds_up_no_pass_and_no_flush() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let held = PassLock::acquire(&site.state_dir(), "agent", Duration::ZERO).unwrap();
        let holder = format!("is held by pid {} (agent) since", std::process::id());
        let report = site.names(&[], &[&holder, "state"]);
        assert_eq!(report["outcome"], "changed");
        site.assert_closed();
        assert_eq!(site.bypass().len(), 4);
        let config = site.path("trailblazer.toml");
        let flush = [BINARY, "flush", "-c", config.to_str().unwrap()];
        let output = site.bare.ns.exec(&flush).ok();
        assert!(format!("{output}").contains(&holder), "{output}");
        assert!(site.bypass().is_empty());
        drop(held);
        assert_eq!(site.reconcile(&[], 0)["outcome"], "changed");
    });
}

/// A one-shot pass waits for its source without the lock: another pass and `flush` succeed
/// meanwhile, and the waiting pass sees the results afterwards.
#[test]
fn one_shot_with_silent_source_holds_no_lock() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.install();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let server = site.bare.ns.in_thread(|| {
            Server::start(move |_, _| {
                // Silent until the test ends the wait.
                let _ = released.lock().unwrap().recv();
                ok(document(TOKEN, &ROWS).as_bytes())
            })
        });
        let file = format!("{:?}", site.path("ip-ranges.json"));
        let document = site.path("ip-ranges.json");
        let url = server.url("/ip-ranges.json");
        site.edit(&file, &format!("{url:?}"));
        site.edit("\"2s\"", "\"60s\"");
        let mut command = site.command(&[]);
        command.stdout(std::process::Stdio::piped());
        let waiting = site.bare.ns.spawn(&mut command);
        lab::eventually("the pass asks its source", || server.seen().len() == 1);

        assert_eq!(lock::holder(&site.state_dir()).unwrap(), None);
        let by_file = ["--source", document.to_str().unwrap()];
        site.bare.ns.ip("route flush table 1083");
        assert_eq!(site.reconcile(&by_file, 0)["outcome"], "changed");
        let config = site.path("trailblazer.toml");
        let flush = [BINARY, "flush", "-c", config.to_str().unwrap()];
        site.bare.ns.run(&flush);
        assert_eq!(site.bypass(), Vec::<String>::new());
        assert_eq!(server.seen().len(), 1, "the first pass still waits");

        release.send(()).unwrap();
        let output = waiting.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["outcome"], "changed", "{report:#}");
        assert!(!site.bypass().is_empty());
    });
}

/// A source that answers late keeps the egress open for a moment only: the gateway carries partner
/// traffic long before the answer, and the bypass follows with the document.
#[test]
fn slow_source_does_not_keep_the_egress_open() {
    lab::isolated(|| {
        let mut site = Site::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let server = site.bare.ns.in_thread(|| {
            Server::start(move |_, _| {
                let _ = released.lock().unwrap().recv();
                ok(document(TOKEN, &ROWS).as_bytes())
            })
        });
        let file = format!("{:?}", site.path("ip-ranges.json"));
        site.edit(&file, &format!("{:?}", server.url("/ip-ranges.json")));
        site.edit("\"2s\"", "\"60s\"");
        let site = &site;
        std::thread::scope(|scope| {
            let running = scope.spawn(|| site.run(&[]).expect_code(0).json());
            lab::eventually("the egress is in before the answer", || {
                site.way("203.0.113.9").contains("via 10.0.1.10")
            });
            assert!(!running.is_finished());
            assert!(site.bypass().is_empty());
            release.send(()).unwrap();
            let report = running.join().unwrap();
            assert_eq!(report["outcome"], "changed", "{report:#}");
        });
        assert!(!site.bypass().is_empty());
    });
}

/// A file on a network file system whose server is gone: no read of the file ever ends. The egress
/// is in force all the same, and the pass names the source.
#[test]
fn file_without_an_answer_does_not_keep_the_egress_open() {
    lab::isolated(|| {
        let mut site = Site::new();
        let directory = site.path("mount");
        std::fs::create_dir(&directory).unwrap();
        let disk = lab::SilentDisk::mount(&directory);
        let file = format!("{:?}", site.path("ip-ranges.json"));
        site.edit(&file, &format!("{:?}", directory.join("ip-ranges.json")));
        let output = site.run(&[]).expect_code(1);
        let reason = "cannot read the file: no answer within 2 s";
        assert!(output.stderr.contains(reason), "{}", output.stderr);
        assert!(site.way("203.0.113.9").contains("via 10.0.1.10"));
        assert!(site.bypass().is_empty());
        drop(disk);
    });
}

/// Both passes want to install. The source answers as soon as both have asked: fetching takes no
/// lock, and then both compete for the lock.
#[test]
fn two_passes_never_overlap() {
    lab::isolated(|| {
        let mut site = Site::new();
        let both_asked = std::sync::Barrier::new(2);
        let server = site.bare.ns.in_thread(|| {
            Server::start(move |_, _| {
                both_asked.wait();
                ok(document(TOKEN, &ROWS).as_bytes())
            })
        });
        let file = format!("{:?}", site.path("ip-ranges.json"));
        site.edit(&file, &format!("{:?}", server.url("/ip-ranges.json")));
        site.edit("\"2s\"", "\"60s\"");
        let site = &site;
        let reports = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| site.run(&[]).expect_code(0).json()));
            both.map(|one| one.join().unwrap())
        });
        let mut outcomes = reports
            .each_ref()
            .map(|report| report["outcome"].as_str().unwrap());
        outcomes.sort_unstable();
        // One puts the egress in, and perhaps the other one the rest.
        assert_eq!(outcomes[0], "changed");
        assert!(
            ["changed", "in_sync"].contains(&outcomes[1]),
            "{outcomes:?}"
        );
        assert_eq!(server.seen().len(), 2);
        let lines = site.journal();
        // No line of another pass lies between the two lines of one.
        for pair in lines.windows(2) {
            let same = pair[0]["pass"] == pair[1]["pass"];
            assert_eq!(pair[0]["event"] == "begin", same, "{lines:#?}");
        }
        assert!(lines.len() >= 3, "{lines:#?}");
    });
}

/// Removes a link before a given step, and snapshots the namespace right afterwards.
struct Unplug {
    ns: Ns,
    at: usize,
    without: Option<Snapshot>,
}

impl Interposer for Unplug {
    fn before(&mut self, index: usize, _: &Step) -> Option<KernelError> {
        if index == self.at && self.without.is_none() {
            self.ns.ip("link del eth1");
            self.without = Some(self.ns.foreign_snapshot());
        }
        None
    }
}

/// The bypass interface disappears between observe and apply, at each of the first steps: the
/// bypass is left out and named, the egress goes in, and foreign objects are as after the removal
/// alone. The kernel removes objects along with the link, so the snapshot is taken after the
/// removal.
#[test]
fn vanished_bypass_interface_costs_the_bypass_alone() {
    lab::isolated(|| {
        for at in 0..8 {
            let mut site = Site::with_links(2);
            site.config
                .push_str("bypass = { interface = \"eth1\", gateway = \"10.0.2.1\" }\n");
            site.publish(document(TOKEN, &ROWS));
            let config = parse(&site.config, "this test").unwrap();
            let mut unplug = Unplug {
                ns: site.bare.ns.clone(),
                at,
                without: None,
            };
            let report = site.bare.ns.in_thread(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(one_shot(
                    &config,
                    Role::Host,
                    &Options::default(),
                    Kernel::open,
                    Some(&mut unplug),
                ))
            });
            let without = unplug.without.expect("the fault happened");
            assert_eq!(report.outcome, Outcome::Changed, "step {at}: {report:#?}");
            assert_eq!(report.exit_code(), 1);
            let missing = &report.degraded[0];
            assert_eq!(missing.part, Part::Bypass);
            assert!(
                missing
                    .reason
                    .contains("no interface eth1; it has: lo, eth0"),
                "step {at}: {missing}"
            );
            without.assert_same(&site.bare.ns.foreign_snapshot());
            assert_eq!(site.bypass(), Vec::<String>::new(), "step {at}");
            let partner = site.way("203.0.113.9");
            assert!(partner.contains("via 10.0.1.10"), "step {at}: {partner}");
            assert_eq!(site.journal_end()["outcome"], "changed");
            // The document was accepted before the kernel was touched, and stays.
            let kept = state_files(&site.state_dir());
            assert!(kept.contains_key(&site.state_dir().join("last-known-good")));
            // Without the interface in the config the next pass is fine.
            site.edit(
                "bypass = { interface = \"eth1\", gateway = \"10.0.2.1\" }\n",
                "",
            );
            assert_eq!(site.reconcile(&[], 0)["outcome"], "changed");
        }
    });
}
