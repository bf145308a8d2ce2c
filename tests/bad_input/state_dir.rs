//! A state directory whose unprivileged owner has planted something in the place of a file, and
//! root's commands: a linked file of root's keeps its bytes, owner and mode, no command hangs, and
//! each command that can go on does.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use trailblazer::state::StateFile;

use lab::Output;

use crate::site::{BINARY, ROWS, Site, TOKEN, document};

/// The owner of the state dir, where the test may give files away: `nobody`.
const SERVICE: u32 = 65_534;
const CONTENT: &[u8] = b"root's own\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Link,
    DanglingLink,
    LinkToDevice,
    HardLink,
    Fifo,
    Socket,
    Directory,
}

/// Each command with its exit codes for a planted file other than the lock or a directory.
const COMMANDS: [(&[&str], &[i32]); 9] = [
    (&["reconcile"], &[0, 3]),
    (&["reconcile", "--dry-run"], &[0, 2, 3]),
    (&["reconcile", "--cache-only"], &[0, 3]),
    (&["history"], &[0]),
    (&["status"], &[0, 1]),
    (&["check"], &[0, 1, 3]),
    (&["explain", "52.216.1.1"], &[0, 1, 3]),
    (&["agent"], &[0]),
    (&["flush"], &[0]),
];

struct Scene {
    site: Site,
    kind: Planted,
}

impl Scene {
    /// A host with a document in force, another document on hold, and all files in the state
    /// directory.
    fn new(kind: Planted) -> Scene {
        let mut site = Site::new();
        site.install();
        site.publish(document(TOKEN + 100, &ROWS[1..]));
        site.reconcile(&[], 3);
        site.config
            .push_str(&format!("agent.socket = {:?}\n", site.path("socket")));
        let good = site.path("good");
        std::fs::rename(site.state_dir(), &good).unwrap();
        for file in StateFile::ALL {
            let path = good.join(file.name());
            if !path.exists() {
                std::fs::write(&path, "").unwrap();
            }
            give_to_service(&path);
        }
        give_to_service(&good);
        Scene { site, kind }
    }

    /// Fills the state directory, and plants `kind` in the place of `file`.
    fn plant(&self, file: StateFile) {
        let (state, victim) = (self.site.state_dir(), self.site.path("victim"));
        let _ = std::fs::remove_dir_all(&state);
        copy(&self.site.path("good"), &state);
        let _ = std::fs::remove_file(&victim);
        std::fs::write(&victim, CONTENT).unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        let path = state.join(file.name());
        std::fs::remove_file(&path).unwrap();
        match self.kind {
            Planted::Link => symlink(&victim, &path).unwrap(),
            Planted::DanglingLink => symlink(self.site.path("absent"), &path).unwrap(),
            Planted::LinkToDevice => symlink("/dev/zero", &path).unwrap(),
            Planted::HardLink => std::fs::hard_link(&victim, &path).unwrap(),
            Planted::Fifo => fifo(&path),
            Planted::Socket => drop(UnixListener::bind(&path).unwrap()),
            Planted::Directory => std::fs::create_dir(&path).unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // Writes the config.
        self.site.command(&[]);
        let mut command = Command::new("timeout");
        if arguments == ["agent"] {
            command.args(["--preserve-status", "-k", "15", "2"]);
        } else {
            command.args(["-k", "1", "20"]);
        }
        command.arg(BINARY).args(&arguments[..1]);
        command.arg("-c").arg(self.site.path("trailblazer.toml"));
        command.args(&arguments[1..]);
        self.site.bare.ns.exec_command(&mut command)
    }

    fn check(&self, file: StateFile, arguments: &[&str], codes: &[i32]) {
        let output = self.run(arguments);
        let scene = format!(
            "{:?} as {}: {arguments:?}\n{output}",
            self.kind,
            file.name()
        );
        let victim = self.site.path("victim");
        assert_eq!(std::fs::read(&victim).unwrap(), CONTENT, "{scene}");
        let meta = victim.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{scene}");
        assert_eq!(meta.mode() & 0o7777, 0o600, "{scene}");
        assert!(!self.site.path("absent").exists(), "{scene}");
        let code = output.code.unwrap_or(-1);
        assert!(![-1, 101, 124, 137].contains(&code), "{scene}");
        // Neither lock nor journal stops a pass; both faults are named.
        let named = match file {
            StateFile::Lock => arguments[0] == "reconcile" && !arguments.contains(&"--dry-run"),
            StateFile::Journal => arguments == ["reconcile"],
            _ => false,
        };
        if self.kind == Planted::Directory && arguments != ["flush"] {
            return;
        }
        if named {
            // A hold has an exit code of its own.
            assert!([1, 3].contains(&code), "{scene}");
            let path = self.site.state_dir().join(file.name());
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(said.contains(path.to_str().unwrap()), "{scene}");
        } else {
            assert!(codes.contains(&code), "{scene}");
        }
    }
}

/// A user namespace has no user but root; unit tests of `state::directory` cover the owners.
fn give_to_service(path: &Path) {
    let _ = std::os::unix::fs::chown(path, Some(SERVICE), Some(SERVICE));
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo")
        .args(["-m", "666"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn every_file_and_command(kind: Planted) {
    let scene = Scene::new(kind);
    for file in StateFile::ALL {
        for (arguments, codes) in COMMANDS {
            // Two seconds each: only the most harmful kinds.
            if arguments == ["agent"] && ![Planted::Link, Planted::Fifo].contains(&kind) {
                continue;
            }
            scene.plant(file);
            scene.check(file, arguments, codes);
        }
    }
}

#[test]
fn symbolic_link_is_refused_and_its_target_unchanged() {
    lab::isolated(|| every_file_and_command(Planted::Link));
}

#[test]
fn dangling_link_creates_no_file_elsewhere() {
    lab::isolated(|| every_file_and_command(Planted::DanglingLink));
}

#[test]
fn link_to_a_device_is_not_read() {
    lab::isolated(|| every_file_and_command(Planted::LinkToDevice));
}

#[test]
fn hard_linked_file_is_never_written_to() {
    lab::isolated(|| every_file_and_command(Planted::HardLink));
}

#[test]
fn fifo_stops_no_command() {
    lab::isolated(|| every_file_and_command(Planted::Fifo));
}

#[test]
fn socket_stops_no_command() {
    lab::isolated(|| every_file_and_command(Planted::Socket));
}

#[test]
fn directory_is_left_alone() {
    lab::isolated(|| every_file_and_command(Planted::Directory));
}
