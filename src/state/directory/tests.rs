use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const LOCK: StateFile = StateFile::Lock;

fn opened(path: &Path) -> StateDir {
    StateDir::open(path).unwrap().expect("it exists")
}

fn update(dir: &StateDir) -> Result<File, StateError> {
    dir.open_to_update(LOCK, OFlags::empty())
}

fn problem<T>(result: Result<T, StateError>) -> String {
    result.err().expect("refused").to_string()
}

#[test]
fn an_empty_file_goes_to_the_owner_of_the_directory_and_one_with_content_stays() {
    let temp = tempfile::tempdir().unwrap();
    let given = std::os::unix::fs::chown(temp.path(), Some(65_534), Some(65_534)).is_ok();
    let owner = |file: &File| file.metadata().unwrap().uid();
    let dir = opened(temp.path());
    // Without root's privileges nothing can be given away, and nothing fails.
    let us = rustix::process::geteuid().as_raw();
    let expected = if given { 65_534 } else { us };
    assert_eq!(owner(&update(&dir).unwrap()), expected);
    assert_eq!(owner(&dir.create_new("new").unwrap()), expected);
    std::fs::remove_file(temp.path().join("lock")).unwrap();
    std::fs::write(temp.path().join("lock"), "").unwrap();
    assert_eq!(owner(&update(&dir).unwrap()), expected);
    std::fs::remove_file(temp.path().join("lock")).unwrap();
    std::fs::write(temp.path().join("lock"), "moved here").unwrap();
    assert_eq!(owner(&update(&dir).unwrap()), us);
}

#[test]
fn anything_but_a_regular_file_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lock");
    let victim = temp.path().join("victim");
    std::fs::write(&victim, "content").unwrap();
    let dir = opened(temp.path());
    let refused = |says: &str| {
        for text in [problem(update(&dir)), problem(dir.open_to_read(LOCK))] {
            assert!(text.contains(says), "lacks {says:?}: {text}");
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"content");
    };
    for target in [&victim, Path::new("absent"), Path::new("/dev/zero")] {
        symlink(target, &path).unwrap();
        refused("a symbolic link");
        std::fs::remove_file(&path).unwrap();
    }
    assert!(!temp.path().join("absent").exists());
    std::fs::create_dir(&path).unwrap();
    refused("a directory");
    std::fs::remove_dir(&path).unwrap();
    let (kind, mode) = (FileType::Fifo, Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    refused("a FIFO");
    std::fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused("a socket");
}

#[test]
fn a_second_name_and_foreign_rights_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lock");
    let victim = temp.path().join("victim");
    std::fs::write(&victim, "content").unwrap();
    std::fs::hard_link(&victim, &path).unwrap();
    let dir = opened(temp.path());
    let text = problem(update(&dir));
    assert!(text.contains("several names"), "{text}");
    // Reading harms nobody: a backup may link files.
    assert!(dir.open_to_read(LOCK).unwrap().is_some());
    std::fs::remove_file(&victim).unwrap();
    update(&dir).unwrap();

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
    for text in [problem(update(&dir)), problem(dir.open_to_read(LOCK))] {
        assert!(text.contains("mode 0646"), "{text}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        let text = problem(dir.open_to_read(LOCK));
        assert!(text.contains("uid 65534"), "{text}");
    }
}

/// The look at the descriptor alone would find one link, on a file that has never been ours.
#[test]
fn a_link_that_is_removed_after_the_open_is_seen() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lock");
    let victim = temp.path().join("victim");
    std::fs::write(&victim, "content").unwrap();
    std::fs::hard_link(&victim, &path).unwrap();
    let dir = opened(temp.path());
    let (file, _) = dir.open_existing("lock", OFlags::RDWR).unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    let stat = fstat(&file).unwrap();
    assert_eq!(stat.st_nlink, 1);
    assert!(matches!(
        dir.check_only_name("lock", &stat),
        Err(StateProblem::System(_))
    ));
    std::fs::write(&path, "").unwrap();
    assert!(matches!(
        dir.check_only_name("lock", &stat),
        Err(StateProblem::Replaced)
    ));
}

#[test]
fn the_directory_may_be_a_link_but_not_a_dangling_one() {
    let temp = tempfile::tempdir().unwrap();
    let (link, volume) = (temp.path().join("link"), temp.path().join("volume"));
    symlink(&volume, &link).unwrap();
    for path in [&link, &link.join("state")] {
        for text in [
            problem(StateDir::open(path)),
            problem(StateDir::create(path)),
        ] {
            assert!(
                text.contains("the symbolic link") && text.contains("mount the volume"),
                "{text}"
            );
        }
    }
    std::fs::create_dir(&volume).unwrap();
    assert!(StateDir::open(&link.join("state")).unwrap().is_none());
    let dir = StateDir::create(&link.join("state")).unwrap();
    update(&dir).unwrap();
    assert!(volume.join("state/lock").exists());
}

#[test]
fn a_directory_that_everybody_may_write_to_is_warned_of() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(opened(temp.path()).warning(), None);
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let warning = opened(temp.path()).warning().unwrap();
    assert!(warning.contains("mode 1777"), "{warning}");
}
