//! A state directory that cannot be written: the fault is named, egress and bypass go in all the
//! same, and no prefix is withdrawn.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::site::{ROWS, Row, Site, TOKEN, all_files, assert_verdict, document, rows_and};

const NEWER: u64 = TOKEN + 100;
const MORE: &[Row] = &[("16.182.0.0/16", "us-east-1", "S3")];

fn mount(words: &[&str]) {
    let status = Command::new("mount").args(words).status().unwrap();
    assert!(status.success(), "mount {words:?}");
}

/// A tmpfs of 64 KiB in the place of the state dir.
fn small_disk(site: &Site) {
    std::fs::create_dir(site.state_dir()).unwrap();
    let path = site.state_dir();
    mount(&[
        "-t",
        "tmpfs",
        "-o",
        "size=64k",
        "tmpfs",
        path.to_str().unwrap(),
    ]);
}

fn fill(dir: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("filler")).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 512]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// The advice fits the fault of the state dir.
#[track_caller]
fn assert_advice(report: &Value, advice: &str) {
    let degraded = report["degraded"].as_array().unwrap();
    let mut state = degraded.iter().filter(|fault| fault["part"] == "state");
    let whole = format!("{advice}; only withdrawals of prefixes wait");
    assert!(
        state.any(|fault| fault["advice"] == *whole),
        "{degraded:#?}"
    );
}

#[test]
fn full_disk_is_named_and_closes_the_egress() {
    lab::isolated(|| {
        let site = Site::new();
        small_disk(&site);
        fill(&site.state_dir());
        site.publish(document(TOKEN, &ROWS));
        let says = ["No space left on device", "free space", "state"];
        let report = site.names(&[], &says);
        assert_advice(
            &report,
            "free space there, or set state_dir (--state-dir) to another disk",
        );
        assert_eq!(report["outcome"], "changed");
        site.assert_closed();
        assert_eq!(site.bypass().len(), 4);

        // A flap takes the routes with it.
        site.bare.ns.ip_batch(
            "link set eth0 down\n\
             link set eth0 up\n\
             route replace default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n",
        );
        site.names(&[], &says);
        site.assert_closed();

        // With ours in force already, and a newer document.
        std::fs::remove_file(site.state_dir().join("filler")).unwrap();
        site.install();
        fill(&site.state_dir());
        site.publish(document(NEWER, &rows_and(MORE)));
        site.names(&[], &["No space left on device", "last-known-good"]);
        assert!(site.bypass().contains(&"16.182.0.0/16".to_owned()));
        // A withdrawal waits for the disk.
        site.publish(document(NEWER + 100, &ROWS[1..]));
        let accept = (NEWER + 100).to_string();
        site.run(&["--accept", &accept]).expect_code(1);
        assert!(site.bypass().contains(&"52.216.0.0/15".to_owned()));

        std::fs::remove_file(site.state_dir().join("filler")).unwrap();
        site.publish(document(NEWER, &rows_and(MORE)));
        site.reconcile(&[], 0);
    });
}

#[test]
fn read_only_state_dir_is_named_and_closes_the_egress() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let state = site.state_dir();
        std::fs::create_dir(&state).unwrap();
        let state = state.to_str().unwrap();
        mount(&["--bind", state, state]);
        mount(&["-o", "remount,bind,ro", state]);
        let says = ["Read-only file system", "state_dir (--state-dir)"];
        let report = site.names(&[], &says);
        assert_advice(
            &report,
            "remount it writable, or set state_dir (--state-dir) to a writable directory",
        );
        site.assert_closed();
        assert_eq!(site.bypass().len(), 4);
        site.publish(document(NEWER, &rows_and(MORE)));
        // A missing directory on a read-only file system.
        let below = format!("{state}/below");
        site.names(&["--state-dir", &below], &says);
        assert_eq!(site.bypass().len(), 5);
        site.publish(document(
            NEWER + 100,
            &rows_and(&[("16.15.0.0/16", "us-east-1", "S3")]),
        ));
        // Looking works.
        let report = site.reconcile(&["--dry-run"], 2);
        assert_eq!(report["outcome"], "pending");
    });
}

#[test]
fn file_in_place_of_the_state_dir_is_named_and_closes_the_egress() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        std::fs::write(site.state_dir(), "a file").unwrap();
        let report = site.names(&[], &["cannot create the state dir", "a file stands where"]);
        assert_advice(
            &report,
            "a file stands where a directory must be: set state_dir (--state-dir)",
        );
        site.assert_closed();
        assert_eq!(site.bypass().len(), 4);
        assert_eq!(std::fs::read(site.state_dir()).unwrap(), b"a file");
    });
}

/// Neither the kernel nor any file: not even the state dir is made, and times stay.
#[test]
fn dry_run_writes_nothing() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        // Writes the config's file.
        site.command(&[]);
        let times = |dir: &Path| {
            let mut times = Vec::new();
            for path in all_files(dir).keys() {
                times.push((path.clone(), path.metadata().unwrap().modified().unwrap()));
            }
            times.push((dir.to_owned(), dir.metadata().unwrap().modified().unwrap()));
            times
        };
        let nothing = |code: i32, flags: &[&str]| {
            let (before, root) = (site.before(), site.path(""));
            let mut command = site.command(flags);
            let (files, stamps) = (all_files(&root), times(&root));
            let output = site.bare.ns.exec_command(&mut command).expect_code(code);
            assert_eq!(files, all_files(&root), "{output}");
            assert_eq!(stamps, times(&root), "{output}");
            site.assert_as(&before);
        };
        nothing(2, &["--dry-run"]);
        assert!(!site.state_dir().exists());
        const CACHE: &[&str] = &["--dry-run", "--cache-only"];
        nothing(1, &["--dry-run", "--cache-only", "--source", "absent.json"]);
        nothing(2, CACHE);
        assert!(!site.state_dir().exists());
        site.reconcile(&["--cache-only"], 0);
        nothing(0, CACHE);
        site.reconcile(&[], 0);
        nothing(0, &["--dry-run"]);
        site.publish(document(NEWER, &rows_and(MORE)));
        nothing(2, &["--dry-run"]);
        nothing(2, CACHE);
        site.publish(document(NEWER, &ROWS[1..]));
        nothing(3, &["--dry-run"]);
        nothing(3, CACHE);
        nothing(
            2,
            &[
                "--dry-run",
                "--accept",
                &NEWER.to_string(),
                "--region",
                "eu-west-1",
            ],
        );
        site.publish("garbage");
        nothing(0, &["--dry-run"]);
        nothing(0, CACHE);
    });
}

/// The capabilities by which root reads every file, for `command_without`.
const ALL_FILES: &str = "dac_override,-dac_read_search";

/// An unreadable file is never treated as empty: an unreadable document is a failed source, and with
/// an unreadable guard state no prefix is withdrawn and no file is written. Without these
/// capabilities root is refused like any user.
#[test]
fn unreadable_files_are_never_treated_as_empty() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        site.publish(document(NEWER, &ROWS[1..]));
        site.reconcile(&[], 3);
        let lock = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let (source, guard) = (
            site.path("ip-ranges.json"),
            site.state_dir().join("guard.json"),
        );
        let before = site.before();
        lock(&source, 0o000);
        let output = site
            .bare
            .ns
            .exec_command(&mut site.command_without(ALL_FILES, &[]));
        let report = output.expect_code(3).json();
        assert_verdict(&report, "source", "note", "Permission denied");
        assert_verdict(&report, "source", "note", "let this user read it");
        before.assert_kernel(&site);
        lock(&source, 0o644);

        let before = site.before();
        lock(&guard, 0o000);
        let mut command = site.command_without(ALL_FILES, &[]);
        let output = site.bare.ns.exec_command(&mut command);
        assert!([Some(1), Some(3)].contains(&output.code), "{output}");
        lock(&guard, 0o640);
        for words in ["cannot read", "guard.json", "Permission denied"] {
            assert!(output.stdout.contains(words), "lacks {words:?}: {output}");
        }
        site.assert_as(&before);
    });
}
