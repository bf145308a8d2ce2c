//! The name of the program behind a change, for an operator who wants to stop the program.

use std::fs;

use crate::printable::escaped;

/// The program behind a netlink port, as far as known: the kernel gives the first socket of a
/// process its PID as the port, and the program may have ended. The unit or the parent tells which
/// of many programs called `ip` it is.
pub(super) fn name_of(port: u32) -> String {
    if port == 0 {
        return "the kernel".to_owned();
    }
    let Some(name) = name(port) else {
        return format!("netlink port {port}");
    };
    let unit = fs::read_to_string(format!("/proc/{port}/cgroup"))
        .ok()
        .and_then(|text| unit_in(&text));
    let parent = fs::read_to_string(format!("/proc/{port}/status"))
        .ok()
        .and_then(|text| parent_in(&text));
    let parent = parent.and_then(|parent| Some((parent, self::name(parent)?)));
    format!("program {name} (pid {port}{})", origin(unit, parent))
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

/// The innermost unit in `/proc/PID/cgroup`: of the unified hierarchy, or of systemd's own.
fn unit_in(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        ["", "name=systemd"].contains(&controllers).then_some(path)
    })?;
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
        assert_eq!(name_of(0), "the kernel");
    }
}
