//! The name of the program behind a change, for an operator who wants to stop the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::printable::escaped;

/// The control groups of systemd: the unified hierarchy, or systemd's own beside those of version 1.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"];
/// Most groups to search. A host of many containers has some thousands.
const GROUPS: usize = 4096;

/// Least time between two searches of the control groups: some milliseconds of file reads each,
/// while the watcher has a conflict to settle.
const PAUSE: Duration = Duration::from_secs(1);
/// Most units to remember, each for [`KEPT`]: a process number belongs to another process later.
const UNITS: usize = 16;
const KEPT: Duration = Duration::from_secs(10);

/// Names of programs, with the units found by control groups.
#[derive(Debug, Default)]
pub(super) struct Culprits {
    units: BTreeMap<u32, (Instant, String)>,
    searched: Option<Instant>,
}

impl Culprits {
    /// The program behind a netlink port, as far as known: the kernel gives the first socket of a
    /// process its PID as the port, and the program may have ended. The unit or the parent tells
    /// which of many programs called `ip` it is. Where the sandbox of the service hides the processes
    /// of other users (`ProtectProc=invisible`), the control groups still tell the unit.
    pub(super) fn name_of(&mut self, port: u32, now: Instant) -> String {
        if port == 0 {
            return "the kernel".to_owned();
        }
        if let Some(name) = visible(port) {
            return name;
        }
        let roots = HIERARCHIES.map(Path::new);
        match self.unit(port, now, || {
            roots.iter().find_map(|root| unit_of(port, root))
        }) {
            Some(unit) => format!("a program of unit {unit} (pid {port})"),
            None => format!("netlink port {port}"),
        }
    }

    fn unit(
        &mut self,
        port: u32,
        now: Instant,
        search: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        self.units
            .retain(|_, (found, _)| now.duration_since(*found) < KEPT);
        if let Some((_, unit)) = self.units.get(&port) {
            return Some(unit.clone());
        }
        if self
            .searched
            .is_some_and(|last| now.duration_since(last) < PAUSE)
        {
            return None;
        }
        self.searched = Some(now);
        let unit = search()?;
        if self.units.len() < UNITS {
            self.units.insert(port, (now, unit.clone()));
        }
        Some(unit)
    }
}

/// A process that this process may see.
fn visible(pid: u32) -> Option<String> {
    let name = name(pid)?;
    let unit = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .ok()
        .and_then(|text| unit_in(&text));
    let parent = fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|text| parent_in(&text));
    let parent = parent.and_then(|parent| Some((parent, self::name(parent)?)));
    Some(format!(
        "program {name} (pid {pid}{})",
        origin(unit, parent)
    ))
}

/// The name that a process chose, which may be of any bytes.
fn name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name);
    Some(escaped(name.trim_end_matches('\n')).into_owned())
}

/// A service says all; in the scope of a login, the shell or the script is of interest too.
fn origin(unit: Option<String>, parent: Option<(u32, String)>) -> String {
    let started_by = parent.map(|(pid, name)| format!(", started by {name}, pid {pid}"));
    match unit {
        Some(unit) if unit.ends_with(".service") => format!(", unit {unit}"),
        Some(unit) => format!(", unit {unit}{}", started_by.unwrap_or_default()),
        None => started_by.unwrap_or_default(),
    }
}

/// The unit whose control group lists the process.
fn unit_of(pid: u32, root: &Path) -> Option<String> {
    let pid = pid.to_string();
    let mut to_do = vec![root.to_owned()];
    for _ in 0..GROUPS {
        let group = to_do.pop()?;
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if processes.lines().any(|line| line == pid) {
            return innermost_unit(&group.to_string_lossy());
        }
        to_do.extend(groups_in(&group));
    }
    None
}

fn groups_in(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path())
}

/// The innermost unit in `/proc/PID/cgroup`: of the unified hierarchy, or of systemd's own.
fn unit_in(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        ["", "name=systemd"].contains(&controllers).then_some(path)
    })?;
    innermost_unit(path)
}

fn innermost_unit(path: &str) -> Option<String> {
    let units = path.rsplit('/');
    let mut units = units.filter(|part| part.ends_with(".service") || part.ends_with(".scope"));
    units.next().map(|unit| escaped(unit).into_owned())
}

/// The parent in `/proc/PID/status`; `None` for a child of the first process.
fn parent_in(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_is_the_innermost_service_or_scope() {
        for (text, unit) in [
            ("0::/system.slice/cron.service\n", Some("cron.service")),
            (
                "0::/system.slice/docker.service/payload\n",
                Some("docker.service"),
            ),
            (
                "0::/user.slice/user-0.slice/session-3.scope\n",
                Some("session-3.scope"),
            ),
            (
                "12:pids:/x.service\n1:name=systemd:/system.slice/a.service\n0::/\n",
                Some("a.service"),
            ),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(text).as_deref(), unit, "{text}");
        }
        assert_eq!(parent_in("Name:\tip\nPPid:\t412\n"), Some(412));
        assert_eq!(parent_in("Name:\tip\nPPid:\t1\n"), None);
    }

    #[test]
    fn unit_is_found_by_control_groups_alone() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, processes: &str| {
            let group = root.path().join(path);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("cgroup.procs"), processes).unwrap();
        };
        group("", "1\n");
        group("system.slice", "");
        group("system.slice/a.service", "41\n4123\n");
        group("system.slice/b.service/payload", "412\n7\n");
        // Processes in groups of threads can't be read.
        fs::create_dir_all(root.path().join("x.slice/cgroup.procs")).unwrap();
        let unit = |pid| unit_of(pid, root.path());
        assert_eq!(unit(412).as_deref(), Some("b.service"));
        assert_eq!(unit(4123).as_deref(), Some("a.service"));
        assert_eq!(unit(1), None, "in no unit");
        assert_eq!(unit(5), None, "ended");
    }

    #[test]
    fn parent_is_named_unless_a_service_says_enough() {
        let parent = || Some((7, "bash".to_owned()));
        let unit = |name: &str| Some(name.to_owned());
        assert_eq!(origin(unit("a.service"), parent()), ", unit a.service");
        assert_eq!(
            origin(unit("s.scope"), parent()),
            ", unit s.scope, started by bash, pid 7"
        );
        assert_eq!(origin(None, parent()), ", started by bash, pid 7");
        assert_eq!(origin(None, None), "");
        let kernel = Culprits::default().name_of(0, Instant::now());
        assert_eq!(kernel, "the kernel");
    }

    #[test]
    fn control_groups_are_searched_once_a_second() {
        let mut culprits = Culprits::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let found = || Some("a.service".to_owned());
        let unsought = || panic!("a search");
        assert_eq!(culprits.unit(7, at(0), found).as_deref(), Some("a.service"));
        assert_eq!(
            culprits.unit(7, at(900), unsought).as_deref(),
            Some("a.service")
        );
        assert_eq!(culprits.unit(8, at(900), unsought), None);
        assert_eq!(culprits.unit(8, at(1000), || None), None);
        assert_eq!(culprits.unit(8, at(1900), unsought), None);
        assert_eq!(
            culprits.unit(7, at(10_000), || None),
            None,
            "perhaps another process"
        );
    }
}
