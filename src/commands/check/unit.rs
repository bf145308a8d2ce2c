//! The package's units: may the service do what a pass needs? `check` runs as its caller, often root,
//! while the service runs as a user of its own in a sandbox.

mod file;
mod rights;

use std::path::{Path, PathBuf};
use std::process::Command;

use self::file::{Setting, UnitFile};
use self::rights::{Obstacle, Rights};
use super::report::CheckReport;
use crate::config::file::{DEFAULT_FILE, Loaded};
use crate::config::{Config, Role};
use crate::desired::DesiredState;
use crate::firewall::{BackendKind, Variant};
use crate::kernel::Kernel;
use crate::reconcile::View;

const NAME: &str = "unit";
const UNITS: [&str; 2] = ["trailblazer.service", "trailblazer-reconcile.service"];
const SHUT: &str = crate::commands::boot::UNIT;

/// The needs of a pass that depend on this host.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Sysctls that the next pass writes, as paths below `/proc/sys`.
    pub sysctls: Vec<String>,
    pub legacy_iptables: bool,
    pub metadata: bool,
}

impl Needs {
    /// The needs of a pass towards this state.
    pub fn of(view: &View, desired: &DesiredState, kernel: &mut Kernel) -> Needs {
        let chosen = view.backend.kind;
        let mut legacy = || kernel.firewall(chosen).variant() == Variant::Legacy;
        let settings = desired.sysctls.iter();
        Needs {
            sysctls: settings.map(|setting| setting.path.clone()).collect(),
            legacy_iptables: chosen == BackendKind::Iptables && legacy(),
            metadata: view.instance.is_some() || view.instance_error.is_some(),
        }
    }
}

/// The installed units whose service runs passes: the agent's unit, and the timer's if enabled.
fn installed(root: &Path) -> Vec<Result<UnitFile, (PathBuf, std::io::Error)>> {
    let timer = "etc/systemd/system/timers.target.wants/trailblazer-reconcile.timer";
    let timer_is_on = root.join(timer).symlink_metadata().is_ok();
    let units = UNITS.into_iter().take(if timer_is_on { 2 } else { 1 });
    units
        .filter_map(|name| file::read(root, name).transpose())
        .collect()
}

/// True if a service of this host exists and may not write sysctls.
pub(super) fn may_not_write_sysctls(root: &Path) -> bool {
    let path = Path::new("/proc/sys/net/ipv4");
    let mut units = installed(root).into_iter().flatten();
    units.any(|unit| Rights::of(root, &unit).writing_in(path).is_some())
}

/// Judges the units below `root`, which is `/` except in tests.
pub(super) fn all(root: &Path, loaded: &Loaded, needs: &Needs, report: &mut CheckReport) {
    let mut units = installed(root);
    units.extend(file::read(root, SHUT).transpose());
    if units.is_empty() {
        let text = "no trailblazer.service is installed: judged with the rights of this command";
        return report.ok(NAME, text);
    }
    for unit in units {
        match unit {
            Ok(unit) => judge(root, &unit, loaded, needs, report),
            Err((path, error)) => report.warn(
                NAME,
                format!("cannot read {}: {error}", path.display()),
                "run the check as root",
            ),
        }
    }
}

fn judge(root: &Path, unit: &UnitFile, loaded: &Loaded, needs: &Needs, report: &mut CheckReport) {
    let judgement = Judgement {
        rights: Rights::of(root, unit),
        config: &loaded.config,
    };
    let before = report.fails();
    judgement.user(report);
    let passes = unit.name != SHUT;
    if passes {
        judgement.network(needs, report);
        judgement.files(loaded, report);
        judgement.sysctls(needs, report);
    }
    // A host shuts its egress without iptables.
    if needs.legacy_iptables && (passes || loaded.config.role == Some(Role::Nat)) {
        judgement.legacy_iptables(report);
    }
    if root == Path::new("/") && needs_reload(&unit.name) {
        report.warn(
            NAME,
            format!(
                "{}: the files have changed since systemd read them",
                unit.name
            ),
            "systemctl daemon-reload, then restart the service",
        );
    }
    if report.fails() == before {
        report.ok(
            NAME,
            format!(
                "{}, user {}: the unit gives the rights that a pass needs",
                unit.name, judgement.rights.user
            ),
        );
    }
}

/// True if systemd says so; without systemd nothing is loaded.
fn needs_reload(name: &str) -> bool {
    if !Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let mut command = Command::new("systemctl");
    command.args(["show", "--value", "--property=NeedDaemonReload", name]);
    command
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"yes"))
}

struct Judgement<'a> {
    rights: Rights<'a>,
    config: &'a Config,
}

impl Judgement<'_> {
    fn fail(&self, report: &mut CheckReport, what: &str, advice: impl Into<String>) {
        let Rights { unit, user, .. } = &self.rights;
        report.fail(NAME, format!("{}, user {user}: {what}", unit.name), advice);
    }

    /// The advice against a setting: its file, or a drop-in if the file belongs to the package.
    fn instead(&self, setting: Option<&Setting>, line: &str) -> String {
        let unit = &self.rights.unit;
        let own = setting.filter(|it| it.file != unit.fragment);
        let reload = format!(
            "then systemctl daemon-reload and systemctl restart {}",
            unit.name
        );
        match own {
            Some(setting) => format!(
                "in {}, write \"{line}\" in place of \"{}={}\", {reload}",
                setting.file.display(),
                setting.key,
                setting.value
            ),
            None => format!(
                "write \"[Service]\" and \"{line}\" to /etc/systemd/system/{}.d/override.conf, {reload}",
                unit.name
            ),
        }
    }

    fn user(&self, report: &mut CheckReport) {
        let unit = self.rights.unit;
        if !self.rights.user_is_known() {
            let advice = "create the user (systemd-sysusers), or correct User= of the unit";
            self.fail(report, "/etc/passwd names no such user", advice);
        }
        if !self.rights.has("CAP_NET_ADMIN") {
            let key = if unit.holds("CapabilityBoundingSet", "CAP_NET_ADMIN", true, false) {
                "AmbientCapabilities"
            } else {
                "CapabilityBoundingSet"
            };
            let advice = self.instead(unit.all(key).next_back(), &format!("{key}=CAP_NET_ADMIN"));
            let text = format!("no CAP_NET_ADMIN by {key}=: a pass cannot change anything");
            self.fail(report, &text, advice);
        }
    }

    fn network(&self, needs: &Needs, report: &mut CheckReport) {
        let unit = self.rights.unit;
        for key in ["AF_NETLINK", "AF_INET", "AF_INET6", "AF_UNIX"] {
            if !unit.holds("RestrictAddressFamilies", key, true, true) {
                let line = "RestrictAddressFamilies=AF_NETLINK AF_INET AF_INET6 AF_UNIX";
                let advice = self.instead(unit.last("RestrictAddressFamilies"), line);
                let text = format!("RestrictAddressFamilies= forbids {key} sockets");
                self.fail(report, &text, advice);
                break;
            }
        }
        for key in ["PrivateNetwork", "NetworkNamespacePath"] {
            let setting = match key {
                "PrivateNetwork" => unit.on(key),
                _ => unit.last(key),
            };
            if let Some(setting) = setting {
                let advice = self.instead(Some(setting), &format!("{key}="));
                let text = format!("{key}= puts routes and rules into another network namespace");
                self.fail(report, &text, advice);
            }
        }
        let remote = self
            .config
            .source
            .urls
            .iter()
            .any(|url| url.starts_with("http"));
        let denied = unit.words("IPAddressDeny");
        let allowed = unit.words("IPAddressAllow");
        let any = |list: &[(&str, &Setting)]| list.iter().any(|(word, _)| *word == "any");
        if let Some((_, setting)) = denied.iter().find(|(word, _)| *word == "any")
            && !any(&allowed)
            && (remote || needs.metadata)
        {
            let what = "IPAddressDeny=any keeps the sources and the metadata service away";
            self.fail(report, what, self.instead(Some(setting), "IPAddressDeny="));
        }
        if let Some(address) = self.config.agent.metrics
            && address.port() < 1024
            && !self.rights.has("CAP_NET_BIND_SERVICE")
        {
            let text = format!(
                "[agent] metrics: port {} needs CAP_NET_BIND_SERVICE",
                address.port()
            );
            self.fail(report, &text, "choose a port from 1024 on");
        }
    }

    fn files(&self, loaded: &Loaded, report: &mut CheckReport) {
        let of_unit = self.config_of_unit();
        if let Some(file) = &loaded.file
            && *file != of_unit
        {
            report.warn(
                NAME,
                format!(
                    "{} reads {}, not {}",
                    self.rights.unit.name,
                    of_unit.display(),
                    file.display()
                ),
                "check the file of the service too",
            );
        }
        self.readable(&of_unit, "the config", report);
        for url in &self.config.source.urls {
            if let Some(path) = url.strip_prefix("file://") {
                self.readable(Path::new(path), "the source", report);
            }
        }
        for (word, _) in self.rights.unit.words("Environment") {
            if let Some(path) = word.trim_matches('"').strip_prefix("SSL_CERT_FILE=") {
                self.readable(Path::new(path), "the trusted authorities", report);
            }
        }
        let state = &self.config.source.state_dir;
        self.writable(state, "the state directory", report);
        if self.rights.unit.name == UNITS[0]
            && let Some(directory) = self.config.agent.socket.parent()
        {
            self.writable(directory, "the directory of the control socket", report);
        }
    }

    /// The config file of the unit's command line.
    fn config_of_unit(&self) -> PathBuf {
        let command = self.rights.unit.last("ExecStart");
        let mut words = command.map_or("", |it| &it.value).split_whitespace();
        while let Some(word) = words.next() {
            if ["-c", "--config"].contains(&word) {
                return words.next().unwrap_or_default().into();
            }
            if let Some(path) = word.strip_prefix("--config=") {
                return path.into();
            }
        }
        DEFAULT_FILE.into()
    }

    fn readable(&self, path: &Path, what: &str, report: &mut CheckReport) {
        let user = &self.rights.user;
        let shown = path.display();
        match self.rights.reading(path) {
            None => {}
            Some(Obstacle::Setting(setting)) => {
                let Setting { key, value, file } = setting;
                let text = format!("{key}={value} ({}) hides {what} {shown}", file.display());
                let place = "place the file elsewhere, such as below /etc/trailblazer";
                self.fail(report, &text, place);
            }
            Some(Obstacle::Mode(at)) => {
                let text = format!(
                    "cannot read {what} {shown}: owner and mode of {}",
                    at.display()
                );
                let bit = if at == path { "r" } else { "x" };
                let advice = format!("chgrp {user} {0} && chmod g+{bit} {0}", at.display());
                self.fail(report, &text, advice);
            }
        }
    }

    fn writable(&self, directory: &Path, what: &str, report: &mut CheckReport) {
        let shown = directory.display();
        match self.rights.writing(directory) {
            None => {}
            Some(Obstacle::Setting(setting)) => {
                let Setting { key, value, file } = setting;
                let text = format!(
                    "{key}={value} ({}) makes {what} {shown} read-only",
                    file.display()
                );
                self.fail(
                    report,
                    &text,
                    self.instead(None, &format!("ReadWritePaths={shown}")),
                );
            }
            Some(Obstacle::Mode(at)) => {
                let text = format!(
                    "cannot write to {what} {shown}: owner and mode of {}",
                    at.display()
                );
                let user = &self.rights.user;
                self.fail(report, &text, format!("chown {user} {}", at.display()));
            }
        }
    }

    fn sysctls(&self, needs: &Needs, report: &mut CheckReport) {
        if self.config.kernel.manage.is_empty() {
            return;
        }
        let Some(setting) = self.rights.writing_in(Path::new("/proc/sys/net/ipv4")) else {
            return;
        };
        let Setting { key, value, file } = setting;
        let line = match key.as_str() {
            "ProtectKernelTunables" => "ProtectKernelTunables=no",
            _ => "ReadWritePaths=/proc/sys/net",
        };
        let own = Some(setting).filter(|_| key == "ProtectKernelTunables");
        let mut advice = self.instead(own, line);
        if *file == self.rights.unit.fragment {
            advice +=
                " (the package has this drop-in: /usr/share/doc/trailblazer/dropins/sysctls.conf)";
        }
        let by = format!("{key}={value} ({})", file.display());
        match needs.sysctls.first() {
            Some(first) => {
                let name = first.replace('/', ".");
                let text = format!("{by} forbids to write {name}, which [kernel] manage asks for");
                self.fail(report, &text, advice);
            }
            None => report.warn(
                NAME,
                format!("{}: {by} forbids to write the sysctls of [kernel] manage: they are right now, and a change by another program stays", self.rights.unit.name),
                advice,
            ),
        }
    }

    /// iptables-legacy works through a raw socket, and takes a lock file of root.
    fn legacy_iptables(&self, report: &mut CheckReport) {
        let mut missing: Vec<&str> = ["CAP_NET_RAW", "CAP_DAC_READ_SEARCH"]
            .into_iter()
            .filter(|name| !self.rights.has(name))
            .collect();
        let lock = Path::new("/run/xtables.lock");
        if self.rights.writing_in(lock).is_some() {
            missing.push("ReadWritePaths=-/run/xtables.lock");
        }
        if missing.is_empty() {
            return;
        }
        let text = format!(
            "the legacy variant of iptables needs {}",
            missing.join(", ")
        );
        let advice = format!(
            "cp /usr/share/doc/trailblazer/dropins/iptables.conf /etc/systemd/system/{0}.d/, then systemctl daemon-reload and systemctl restart {0}",
            self.rights.unit.name
        );
        self.fail(report, &text, advice);
    }
}

#[cfg(test)]
mod tests;
