//! The content of a machine's image: packages, settings and the last known good.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Image, Machine};
use crate::packets::{FIRST, document};
use lab::scratch;

/// The packaged path of the settings.
pub const SETTINGS: &str = "/etc/trailblazer/trailblazer.toml";
/// The token of the document in the image and at the mirror.
pub const TOKEN: u64 = 1_795_021_512;
/// A short watchdog timeout in a drop-in, so that the unit stays as shipped.
const SHORT_WATCHDOG: &str = "[Service]\nWatchdogSec=3\n";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Debian package that `make packages` built.
pub struct Package(PathBuf);

impl Package {
    /// Finds the package.
    ///
    /// # Panics
    /// Unless exactly one exists.
    pub fn find() -> Package {
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
        Package(first)
    }

    /// The next build: another version, which is returned too, and a program with other bytes.
    pub fn next(&self) -> (Package, String) {
        let next_version = format!("{}+next", field(&self.0, "Version"));
        let next = scratch().join("trailblazer-next.deb");
        let unpacked = scratch().join("next");
        // Bytes after a program's last section change its digest and nothing else.
        let script = "dpkg-deb -R \"$1\" \"$2\"
            sed -i \"s/^Version: .*/Version: $3/\" \"$2/DEBIAN/control\"
            printf next >>\"$2/usr/bin/trailblazer\"
            (cd \"$2\" && md5sum usr/bin/trailblazer) >\"$2.sum\"
            sed -i \"s|^.*  usr/bin/trailblazer\\$|$(cat \"$2.sum\")|\" \"$2/DEBIAN/md5sums\"
            dpkg-deb --root-owner-group -b \"$2\" \"$4\"";
        let built = Command::new("sh")
            .args(["-ec", script, "sh"])
            .args([self.0.as_os_str(), unpacked.as_os_str()])
            .arg(&next_version)
            .arg(&next)
            .output()
            .expect("sh is there");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        (Package(next), next_version)
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
    /// Builds an image with the package, its settings and the last known good, as Packer does.
    /// Returns also the files that existed before.
    #[track_caller]
    pub fn baked(name: &str, settings: &str, package: &Package) -> (Image, BTreeSet<String>) {
        let image = Image::new(name);
        let before = image.files();
        image.install(package);
        image.write(SETTINGS, settings);
        image.write("/var/tmp/ip-ranges.json", &document(TOKEN, FIRST));
        image.chroot(
            "trailblazer reconcile --cache-only --source /var/tmp/ip-ranges.json
             rm /var/tmp/ip-ranges.json
             systemctl enable trailblazer",
        );
        image.write(
            "/etc/systemd/system/trailblazer.service.d/test.conf",
            SHORT_WATCHDOG,
        );
        (image, before)
    }

    /// Installs a package in the root, as an image's build does.
    #[track_caller]
    pub fn install(&self, package: &Package) {
        self.put(package);
        self.chroot(INSTALL);
    }

    fn put(&self, package: &Package) {
        std::fs::copy(&package.0, self.path("/var/tmp/trailblazer.deb")).expect("the root is ours");
    }
}

impl Machine<'_> {
    /// Installs a package in the running machine.
    #[track_caller]
    pub fn install(&self, package: &Package) {
        self.image.put(package);
        self.ok(INSTALL);
    }
}

const INSTALL: &str = "dpkg -i /var/tmp/trailblazer.deb; rm /var/tmp/trailblazer.deb";
