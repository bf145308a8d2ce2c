//! The unit that shuts the egress before the network comes up: is it in force at the next boot?

use std::path::Path;

/// The unit.
pub(super) const UNIT: &str = "trailblazer-shut.service";

/// The note about a host whose egress is shut.
pub(super) const SHUT: &str = "the egress is shut since the boot, and clients outside can connect: the first pass opens the egress (systemctl start trailblazer, or trailblazer reconcile), and trailblazer flush removes everything";

/// The link of `systemctl mask`, at boot and until the next boot.
const MASKS: [&str; 2] = ["etc/systemd/system", "run/systemd/system"];
const INSTALLED: [&str; 3] = [
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "etc/systemd/system",
];
/// The links of enabled units that request the unit.
const REQUESTED: [&str; 3] = [
    "multi-user.target.wants/trailblazer.service",
    "network-online.target.wants/trailblazer.service",
    "multi-user.target.wants/trailblazer-reconcile.service",
];

/// The unit at the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtBoot {
    /// The packages are not installed.
    NotInstalled,
    /// The administrator has switched the unit off.
    Masked,
    /// Neither the agent nor the passes of the timer are enabled.
    NotRequested,
    Shut,
}

impl AtBoot {
    /// Looks below `root`, which is `/` except in tests.
    pub(super) fn look(root: &Path) -> AtBoot {
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        let mut masks = MASKS.iter();
        let masked = masks.any(|directory| is_masked(&root.join(directory).join(UNIT)));
        let mut installed = INSTALLED.iter();
        let requested = |link: &&str| exists(&root.join("etc/systemd/system").join(link));
        if masked {
            AtBoot::Masked
        } else if !installed.any(|directory| exists(&root.join(directory).join(UNIT))) {
            AtBoot::NotInstalled
        } else if !REQUESTED.iter().any(requested) {
            AtBoot::NotRequested
        } else {
            AtBoot::Shut
        }
    }

    /// A warning about a machine that is open at boot on purpose.
    pub(super) fn warning(self) -> Option<String> {
        (self == AtBoot::Masked).then(|| {
            format!(
                "{UNIT} is masked: at each boot, packets leave from a wrong address until the first pass"
            )
        })
    }
}

/// True for the link that `systemctl mask` puts in the place of a unit.
pub(super) fn is_masked(unit: &Path) -> bool {
    let target = unit.read_link();
    target.is_ok_and(|target| target == Path::new("/dev/null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, target: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    #[test]
    fn unit_follows_the_enabled_services_and_its_mask() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let look = || AtBoot::look(root);
        assert_eq!(look(), AtBoot::NotInstalled);
        put(
            root,
            "usr/lib/systemd/system/trailblazer-shut.service",
            "unit",
        );
        assert_eq!(look(), AtBoot::NotRequested);
        let wants = "etc/systemd/system/multi-user.target.wants";
        put(
            root,
            &format!("{wants}/trailblazer-reconcile.service"),
            "unit",
        );
        assert_eq!(look(), AtBoot::Shut);
        assert_eq!(look().warning(), None);
        put(
            root,
            "etc/systemd/system/trailblazer-shut.service",
            "/dev/null",
        );
        assert_eq!(look(), AtBoot::Masked);
        assert!(look().warning().is_some());
    }
}
