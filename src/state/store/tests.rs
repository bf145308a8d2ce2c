use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::state::directory::small_disk;
use lab::isolated;

fn meta() -> Meta {
    Meta {
        url: "https://example.com/ip-ranges.json".to_owned(),
        validators: Some(Validators {
            url: "https://example.com/ip-ranges.json".to_owned(),
            etag: Some("\"abc\"".to_owned()),
            last_modified: None,
        }),
        fetched_at: 1_795_000_000,
        sync_token: Some(SyncToken(1_794_999_000)),
    }
}

const BODY: &[u8] = b"{\n  \"prefixes\": []\n}\x00\xff";

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn corrupt(store: &Store) -> String {
    match store.read(Slot::LastKnownGood) {
        Err(error @ ReadError::Corrupt { .. }) => error.to_string(),
        other => panic!("not corrupt: {other:?}"),
    }
}

#[test]
fn written_document_is_read_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("lib/trailblazer");
    let store = Store::open(&state);
    assert!(store.read(Slot::LastKnownGood).unwrap_err().is_absent());
    assert!(!state.exists(), "reading writes nothing");

    store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
    store.write(Slot::Held, &meta(), b"held").unwrap();
    let stored = store.read(Slot::LastKnownGood).unwrap();
    assert_eq!((stored.meta(), stored.body()), (&meta(), BODY));
    assert_eq!(store.read(Slot::Held).unwrap().body(), b"held");
    assert_eq!(names(&state), ["held", "last-known-good"]);

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o750);
    assert_eq!(mode(&store.path_of(Slot::LastKnownGood)), 0o640);

    store.remove(Slot::Held).unwrap();
    store.remove(Slot::Held).unwrap();
    assert!(store.read(Slot::Held).unwrap_err().is_absent());
}

#[test]
fn the_first_line_is_json_and_its_digest_can_be_checked_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
    let path = store.path_of(Slot::LastKnownGood);
    let bytes = std::fs::read(&path).unwrap();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    let head: serde_json::Value = serde_json::from_slice(line).unwrap();
    assert_eq!(head["format"], 1);
    assert_eq!(head["length"], BODY.len());
    assert_eq!(head["meta"]["sync_token"], 1_794_999_000);
    // sha256sum belongs to coreutils, present on every system with a shell.
    let output = Command::new("sh")
        .arg("-c")
        .arg(r#"tail -c +$((1 + $(head -c 100 "$0" | grep -bo '",' | head -1 | cut -d: -f1) + 1)) "$0" | sha256sum"#)
        .arg(&path)
        .output()
        .unwrap();
    let sum = String::from_utf8(output.stdout).unwrap();
    assert_eq!(head["sha256"].as_str().unwrap(), &sum[..64], "{sum}");
}

#[test]
fn every_flipped_bit_and_every_cut_shows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).with_sync(false);
    store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
    let path = store.path_of(Slot::LastKnownGood);
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        corrupt(&store);
        std::fs::write(&path, &sound[..at]).unwrap();
        corrupt(&store);
    }
    let text = corrupt(&store);
    assert!(text.contains("bytes follow the first line"), "{text}");
    std::fs::write(&path, [&sound[..], b"x"].concat()).unwrap();
    corrupt(&store);
    std::fs::write(&path, &sound).unwrap();
    assert!(store.read(Slot::LastKnownGood).is_ok());
}

#[test]
fn unreadable_slot_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    std::fs::create_dir(store.path_of(Slot::LastKnownGood)).unwrap();
    let error = store.read(Slot::LastKnownGood).unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { .. }), "{error}");
    // A write fails too, and leaves no temporary file.
    let error = store.write(Slot::LastKnownGood, &meta(), BODY).unwrap_err();
    assert!(error.to_string().contains("in place of"), "{error}");
    assert_eq!(names(dir.path()), ["last-known-good"]);

    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below = Store::open(file.join("state"));
    let error = below.read(Slot::LastKnownGood).unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { .. }), "{error}");
    let error = below.write(Slot::LastKnownGood, &meta(), BODY).unwrap_err();
    assert!(
        error.to_string().contains("create the state dir"),
        "{error}"
    );
}

#[test]
fn next_write_removes_the_temporary_file_of_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
    let left = ".trailblazer-last-known-good.tmp";
    std::fs::write(dir.path().join(left), b"{\"format\":1,\"sha").unwrap();
    std::fs::write(dir.path().join(".somebody.tmp"), b"").unwrap();
    assert_eq!(store.read(Slot::LastKnownGood).unwrap().body(), BODY);
    assert!(store.read(Slot::Held).unwrap_err().is_absent());

    store.write(Slot::LastKnownGood, &meta(), b"new").unwrap();
    assert_eq!(store.read(Slot::LastKnownGood).unwrap().body(), b"new");
    assert_eq!(names(dir.path()), [".somebody.tmp", "last-known-good"]);
}

/// The agent stores its counters while a pass of the same or another process writes documents.
#[test]
fn parallel_writes_of_two_files_do_not_interfere() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for file in [StateFile::Guard, StateFile::Traffic] {
            let store = Store::open(dir.path()).with_sync(false);
            scope.spawn(move || {
                for number in 0..500 {
                    store.write_json(file, &number).unwrap();
                }
            });
        }
    });
    assert_eq!(names(dir.path()), ["guard.json", "traffic.json"]);
}

#[test]
fn small_file_is_read_back_and_garbage_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    assert!(
        store
            .read_json::<Vec<u32>>(StateFile::Numbers)
            .unwrap_err()
            .is_absent()
    );
    store
        .write_json(StateFile::Numbers, &vec![1083, 1084])
        .unwrap();
    assert_eq!(
        store.read_json::<Vec<u32>>(StateFile::Numbers).unwrap(),
        [1083, 1084]
    );
    let error = store.read_json::<String>(StateFile::Numbers).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    std::fs::write(dir.path().join("numbers.json"), b"").unwrap();
    let error = store.read_json::<Vec<u32>>(StateFile::Numbers).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    store.remove_json(StateFile::Numbers).unwrap();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    isolated(|| {
        let directory = small_disk("size=64k");
        let store = Store::open(&directory);
        store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
        let error = store
            .write(Slot::LastKnownGood, &meta(), &[b' '; 100_000])
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("No space left on device") && text.contains("free space"),
            "{text}"
        );
        assert_eq!(store.read(Slot::LastKnownGood).unwrap().body(), BODY);
        assert_eq!(names(&directory), ["last-known-good"]);
    });
}

#[test]
fn a_read_only_disk_leaves_the_old_file() {
    isolated(|| {
        let directory = small_disk("size=64k");
        let store = Store::open(&directory);
        store.write(Slot::LastKnownGood, &meta(), BODY).unwrap();
        small_disk("remount,ro");
        let text = store
            .write(Slot::LastKnownGood, &meta(), b"new")
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("Read-only file system") && text.contains("remount"),
            "{text}"
        );
        let text = store.remove(Slot::LastKnownGood).unwrap_err().to_string();
        assert!(text.contains("cannot remove"), "{text}");
        assert_eq!(store.read(Slot::LastKnownGood).unwrap().body(), BODY);
        assert_eq!(names(&directory), ["last-known-good"]);
    });
}
