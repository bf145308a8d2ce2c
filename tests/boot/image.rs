//! What machines are made of: the base root and the packages, as the project's own scripts make them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::lab::scratch;
use crate::machine::{Image, Machine};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The base root's tarball: made once, and kept below `target`.
pub fn base() -> PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let script = repository().join("packaging/dev/debian-root.sh");
        let made = Command::new(&script)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let said = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "no base root: {complaint}");
        PathBuf::from(said)
    });
    base.clone()
}

/// Two builds of the Debian package.
pub struct Packages {
    /// What `make packages` built.
    pub first: PathBuf,
    /// The next one: another version, and a program with other bytes.
    pub next: PathBuf,
    /// Its version.
    pub next_version: String,
}

impl Packages {
    /// Takes what `make packages` built, and makes the next one of it.
    ///
    /// # Panics
    /// When there isn't exactly one package.
    pub fn find() -> Packages {
        let directory = repository().join("target/packages");
        let found: Vec<PathBuf> = std::fs::read_dir(&directory)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        let mut debs = found
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "deb"));
        let (Some(first), None) = (debs.next(), debs.next()) else {
            panic!(
                "one .deb is expected in {}: make packages",
                directory.display()
            );
        };
        let version = field(&first, "Version");
        let next_version = format!("{version}+next");
        let next = scratch().join("trailblazer-next.deb");
        let unpacked = scratch().join("next");
        // A program may carry anything behind its last section: other bytes, the same program.
        let script = "dpkg-deb -R \"$1\" \"$2\"
            sed -i \"s/^Version: .*/Version: $3/\" \"$2/DEBIAN/control\"
            printf next >>\"$2/usr/bin/trailblazer\"
            (cd \"$2\" && md5sum usr/bin/trailblazer) >\"$2.sum\"
            sed -i \"s|^.*  usr/bin/trailblazer\\$|$(cat \"$2.sum\")|\" \"$2/DEBIAN/md5sums\"
            dpkg-deb --root-owner-group -b \"$2\" \"$4\"";
        let built = Command::new("sh")
            .args(["-ec", script, "sh"])
            .args([first.as_os_str(), unpacked.as_os_str()])
            .arg(&next_version)
            .arg(&next)
            .output()
            .expect("sh is there");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        Packages {
            first,
            next,
            next_version,
        }
    }
}

fn field(package: &Path, name: &str) -> String {
    let output = Command::new("dpkg-deb")
        .arg("-f")
        .arg(package)
        .arg(name)
        .output()
        .expect("dpkg-deb is there: make deps");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Image {
    /// Installs a package in the root, as an image's build does.
    #[track_caller]
    pub fn install(&self, package: &Path) {
        self.put(package);
        self.chroot("dpkg -i /var/tmp/trailblazer.deb; rm /var/tmp/trailblazer.deb");
    }

    fn put(&self, package: &Path) {
        std::fs::copy(package, self.path("/var/tmp/trailblazer.deb")).expect("the root is ours");
    }
}

impl Machine<'_> {
    /// Installs a package in the running machine.
    #[track_caller]
    pub fn install(&self, package: &Path) {
        self.image.put(package);
        self.ok("dpkg -i /var/tmp/trailblazer.deb; rm /var/tmp/trailblazer.deb");
    }
}
