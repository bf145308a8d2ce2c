//! A state directory that cannot be written: the kernel and the existing files stay as before.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

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

#[test]
fn full_disk_fails_the_pass_and_keeps_the_routes() {
    lab::isolated(|| {
        let site = Site::new();
        small_disk(&site);
        fill(&site.state_dir());
        site.publish(document(TOKEN, &ROWS));
        site.refuses(&[], 1, &["No space left on device", "free space", "state"]);

        // With ours in force already, and a newer document.
        std::fs::remove_file(site.state_dir().join("filler")).unwrap();
        site.install();
        fill(&site.state_dir());
        site.publish(document(NEWER, &rows_and(MORE)));
        site.refuses(&[], 1, &["No space left on device", "last-known-good"]);
        // A pass without documents to write works, except for its journal line.
        site.publish(document(TOKEN, &ROWS));
        let before = site.before();
        let noted = (0..20).any(|_| {
            // The last page of the journal has room for a few lines more.
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync");
            report["notes"]
                .to_string()
                .contains("the journal lacks this pass")
        });
        assert!(noted, "twenty lines fit on a full disk");
        site.assert_as(&before);

        std::fs::remove_file(site.state_dir().join("filler")).unwrap();
        site.publish(document(NEWER, &rows_and(MORE)));
        assert_eq!(site.reconcile(&[], 0)["outcome"], "changed");
    });
}

#[test]
fn read_only_state_dir_fails_the_pass_but_not_a_dry_run() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let state = site.state_dir();
        let state = state.to_str().unwrap();
        mount(&["--bind", state, state]);
        mount(&["-o", "remount,bind,ro", state]);
        site.publish(document(NEWER, &rows_and(MORE)));
        let says = ["Read-only file system", "state_dir (--state-dir)"];
        site.refuses(&[], 1, &says);
        // A missing directory on a read-only file system.
        let below = format!("{state}/below");
        let report = site.refuses(&["--state-dir", &below], 1, &says);
        assert!(report.is_some());
        // Looking works.
        let report = site.reconcile(&["--dry-run"], 2);
        assert_eq!(report["outcome"], "pending");
    });
}

#[test]
fn file_in_place_of_the_state_dir_is_refused() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        std::fs::write(site.state_dir(), "a file").unwrap();
        site.refuses(
            &[],
            1,
            &["cannot create the state dir", "a file stands where"],
        );
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
        nothing(1, &["--dry-run", "--cache-only", "--source", "absent.json"]);
        site.reconcile(&[], 0);
        nothing(0, &["--dry-run"]);
        site.publish(document(NEWER, &rows_and(MORE)));
        nothing(2, &["--dry-run"]);
        site.publish(document(NEWER, &ROWS[1..]));
        nothing(3, &["--dry-run"]);
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
    });
}

/// The capabilities by which root reads every file, for `command_without`.
const ALL_FILES: &str = "dac_override,-dac_read_search";

/// An unreadable file is never treated as empty: an unreadable document is a failed source, an
/// unreadable guard state stops the pass. Without these capabilities root is refused like any user.
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
        let output = site.bare.ns.exec_command(&mut command).expect_code(1);
        lock(&guard, 0o640);
        for words in ["cannot read", "guard.json", "Permission denied"] {
            assert!(output.stderr.contains(words), "lacks {words:?}: {output}");
        }
        site.assert_as(&before);
    });
}
