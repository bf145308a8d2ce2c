//! The rights of a service: user, capabilities, and the files that its sandbox leaves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{Setting, UnitFile};
use crate::state::patience::in_time;

/// The rights of a service, derived from its unit.
#[derive(Debug)]
pub(super) struct Rights<'a> {
    pub unit: &'a UnitFile,
    pub user: String,
    uid: Option<u32>,
    gids: Vec<u32>,
}

/// The reason against an access: a setting of the unit, or a path with its owner and mode.
#[derive(Debug)]
pub(super) enum Obstacle<'a> {
    Setting(&'a Setting),
    Mode(PathBuf),
}

impl<'a> Rights<'a> {
    /// The rights that a unit gives, with the users and groups below `root`.
    pub fn of(root: &Path, unit: &'a UnitFile) -> Rights<'a> {
        let user = unit.last("User").map_or("root", |it| &it.value).to_owned();
        let lines = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let field = |line: &str, place: usize| line.split(':').nth(place).map(str::to_owned);
        let users = lines("etc/passwd");
        let account = users.lines().find(|line| {
            [0, 2]
                .iter()
                .any(|at| field(line, *at).as_deref() == Some(&user))
        });
        let number = |place| account.and_then(|line| field(line, place)?.parse().ok());
        let uid = if user == "root" { Some(0) } else { number(2) };
        let mut groups: Vec<String> = ["Group", "SupplementaryGroups"]
            .iter()
            .flat_map(|key| unit.words(key))
            .map(|(word, _)| word.to_owned())
            .collect();
        groups.extend(number(3).map(|gid: u32| gid.to_string()));
        let gids = lines("etc/group")
            .lines()
            .filter(|line| {
                let names = [field(line, 0), field(line, 2)];
                let member = field(line, 3).unwrap_or_default();
                names.iter().flatten().any(|name| groups.contains(name))
                    || member.split(',').any(|name| name == user)
            })
            .filter_map(|line| field(line, 2)?.parse().ok())
            .collect();
        Rights {
            unit,
            user,
            uid,
            gids,
        }
    }

    /// False for a user that `/etc/passwd` doesn't name.
    pub fn user_is_known(&self) -> bool {
        self.uid.is_some() || self.unit.on("DynamicUser").is_some()
    }

    /// True if the main process has a capability: root has those of the bounding set, another user
    /// the ambient ones.
    pub fn has(&self, capability: &str) -> bool {
        let bounded = (self.unit).holds("CapabilityBoundingSet", capability, true, false);
        let ambient = || (self.unit).holds("AmbientCapabilities", capability, false, false);
        bounded && (self.uid == Some(0) || ambient())
    }

    /// The obstacle to reading a file, if any.
    pub fn reading(&self, path: &Path) -> Option<Obstacle<'a>> {
        let hidden = |key, paths: &[&str]| {
            let setting = self.unit.last(key)?;
            let shut = match key {
                "ProtectHome" => ["yes", "true", "1", "on", "tmpfs"].contains(&&*setting.value),
                _ => self.unit.on(key).is_some(),
            };
            let inside = paths.iter().any(|it| path.starts_with(it));
            (shut && inside).then_some(Obstacle::Setting(setting))
        };
        let listed = || {
            let words = self.unit.words("InaccessiblePaths").into_iter();
            let mut shut = words.filter(|(word, _)| path.starts_with(plain(word)));
            shut.next().map(|(_, setting)| Obstacle::Setting(setting))
        };
        hidden("ProtectHome", &["/home", "/root", "/run/user"])
            .or_else(|| hidden("PrivateTmp", &["/tmp", "/var/tmp"]))
            .or_else(listed)
            .or_else(|| self.denied(path, 4))
    }

    /// The obstacle to writing into a directory, if any. systemd creates the directories that the
    /// unit names, and gives them to the user.
    pub fn writing(&self, directory: &Path) -> Option<Obstacle<'a>> {
        if let Some(setting) = self.writing_in(directory) {
            return Some(Obstacle::Setting(setting));
        }
        if self.opened(directory).0 {
            return None;
        }
        let path = directory.to_owned();
        let existing = in_time(directory, move || {
            let mut ancestors = path.ancestors();
            ancestors.find(|path| path.exists()).map(Path::to_owned)
        });
        // Another line of the report names a silent disk.
        existing.ok()?.and_then(|path| self.denied(&path, 2))
    }

    /// The setting that makes a path read-only, whatever its owner and mode.
    pub fn writing_in(&self, path: &Path) -> Option<&'a Setting> {
        let (_, depth) = self.opened(path);
        let shut = self.shut(path).filter(|(at, _)| *at > depth);
        shut.map(|(_, setting)| setting)
    }

    /// The longest setting that opens a path for writing: true if systemd creates the directory,
    /// with the number of the path's parts.
    fn opened(&self, path: &Path) -> (bool, usize) {
        let made = [
            ("StateDirectory", "/var/lib"),
            ("RuntimeDirectory", "/run"),
            ("CacheDirectory", "/var/cache"),
        ];
        let mut best = (false, 0);
        for (key, base) in made {
            for (word, _) in self.unit.words(key) {
                let directory = Path::new(base).join(word);
                if path.starts_with(&directory) {
                    best = best.max((true, parts(&directory)));
                }
            }
        }
        for (word, _) in self.unit.words("ReadWritePaths") {
            let listed = Path::new(plain(word));
            if path.starts_with(listed) && parts(listed) >= best.1 {
                best = (best.0, parts(listed));
            }
        }
        best
    }

    /// The longest setting that closes a path for writing.
    fn shut(&self, path: &Path) -> Option<(usize, &'a Setting)> {
        let mut found: Vec<(usize, &Setting)> = Vec::new();
        let mut shut = |setting, closed: &[&str], open: &[&str]| {
            let inside = |list: &[&str]| list.iter().any(|it| path.starts_with(it));
            if inside(closed) && !inside(open) {
                let length = closed.iter().filter(|it| path.starts_with(it));
                let depth = length.map(|it| parts(Path::new(it))).max().unwrap_or(0);
                found.push((depth, setting));
            }
        };
        if let Some(setting) = self.unit.last("ProtectSystem") {
            match setting.value.as_str() {
                "strict" => shut(setting, &["/"], &["/dev", "/proc", "/sys"]),
                "full" => shut(setting, &["/usr", "/boot", "/efi", "/etc"], &[]),
                "no" | "false" | "0" | "off" => {}
                _ => shut(setting, &["/usr", "/boot", "/efi"], &[]),
            }
        }
        if let Some(setting) = self.unit.on("ProtectKernelTunables") {
            shut(setting, &["/proc/sys", "/sys"], &[]);
        }
        if let Some(setting) = self.unit.last("ProtectHome").filter(|it| it.value != "no") {
            shut(setting, &["/home", "/root", "/run/user"], &[]);
        }
        for key in ["ReadOnlyPaths", "InaccessiblePaths"] {
            for (word, setting) in self.unit.words(key) {
                shut(setting, &[plain(word)], &[]);
            }
        }
        found.into_iter().max_by_key(|(depth, _)| *depth)
    }

    /// The file or directory whose owner and mode deny an access; `bit` is 4 to read, 2 to write.
    fn denied(&self, path: &Path, bit: u32) -> Option<Obstacle<'a>> {
        if self.has("CAP_DAC_OVERRIDE") || (bit == 4 && self.has("CAP_DAC_READ_SEARCH")) {
            return None;
        }
        let allows = |path: &Path, bit: u32| {
            let Ok(meta) = fs::metadata(path) else {
                return true;
            };
            let shift = if self.uid == Some(meta.uid()) {
                6
            } else if self.gids.contains(&meta.gid()) {
                3
            } else {
                0
            };
            (meta.mode() >> shift) & bit != 0
        };
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        let closed = ancestors
            .into_iter()
            .find(|directory| !allows(directory, 1));
        let file = || (!allows(path, bit)).then_some(path);
        closed.or_else(file).map(|it| Obstacle::Mode(it.to_owned()))
    }
}

fn parts(path: &Path) -> usize {
    path.components().count()
}

/// A path of a unit without the prefixes "may be absent" and "below RootDirectory".
fn plain(word: &str) -> &str {
    word.trim_start_matches(['-', '+'])
}
