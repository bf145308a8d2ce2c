use super::*;
use crate::commands::check::report::Severity;
use crate::config::ManagedSysctl;

const AGENT: &str = include_str!("../../../../systemd/trailblazer.service");
const DROP_IN: &str = "etc/systemd/system/trailblazer.service.d/50-site.conf";
const SYSCTLS: &str = include_str!("../../../../packaging/files/dropins/sysctls.conf");
const IPTABLES: &str = include_str!("../../../../packaging/files/dropins/iptables.conf");

/// A root with the package's unit and user.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Site {
        let site = Site(std::env::temp_dir().join(format!("tb-{name}-{}", std::process::id())));
        site.put("usr/lib/systemd/system/trailblazer.service", AGENT);
        site.put(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\ntrailblazer:x:64999:64999::/:/bin/false\n",
        );
        site.put("etc/group", "root:x:0:\ntrailblazer:x:64999:\n");
        site
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The findings with these changes of the defaults.
    fn findings(&self, needs: &Needs, change: impl Fn(&mut Config)) -> Vec<(Severity, String)> {
        let mut config = Config::default();
        change(&mut config);
        let loaded = Loaded {
            config,
            file: None,
            origin: Default::default(),
        };
        let mut report = CheckReport::default();
        all(&self.0, &loaded, needs, &mut report);
        let text = |advice: Option<String>| advice.unwrap_or_default();
        let found = report.0.into_iter();
        found
            .map(|it| {
                (
                    it.severity,
                    format!("{} -> {}", it.message, text(it.advice)),
                )
            })
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn one(found: &[(Severity, String)], severity: Severity, words: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, severity, "{found:#?}");
    for word in words {
        assert!(found[0].1.contains(word), "{word:?} in {found:#?}");
    }
}

fn needs_forwarding() -> Needs {
    Needs {
        sysctls: vec!["net/ipv4/ip_forward".to_owned()],
        ..Needs::default()
    }
}

fn manages(config: &mut Config) {
    config.kernel.manage.insert(ManagedSysctl::IpForward);
}

#[test]
fn the_shipped_unit_suffices_for_the_defaults() {
    let found = Site::new("unit-plain").findings(&Needs::default(), |_| {});
    one(
        &found,
        Severity::Ok,
        &["trailblazer.service, user trailblazer"],
    );
}

#[test]
fn without_a_unit_the_rights_are_those_of_the_caller() {
    let site = Site(std::env::temp_dir().join("tb-no-unit-at-all"));
    one(
        &site.findings(&Needs::default(), |_| {}),
        Severity::Ok,
        &["rights of this command"],
    );
}

#[test]
fn sysctls_need_the_drop_in_that_the_finding_names() {
    let site = Site::new("unit-sysctls");
    let found = site.findings(&needs_forwarding(), manages);
    let words = [
        "ProtectKernelTunables=yes (/usr/lib/systemd/system/trailblazer.service)",
        "net.ipv4.ip_forward",
        "/etc/systemd/system/trailblazer.service.d/",
        "dropins/sysctls.conf",
    ];
    one(&found, Severity::Fail, &words);
    assert!(may_not_write_sysctls(&site.0));
    // The values are right now: nothing fails, and nothing would be repaired.
    let calm = site.findings(&Needs::default(), manages);
    assert_eq!(calm[0].0, Severity::Warn, "{calm:#?}");
    site.put(DROP_IN, SYSCTLS);
    assert!(!may_not_write_sysctls(&site.0));
    one(
        &site.findings(&needs_forwarding(), manages),
        Severity::Ok,
        &[],
    );
    // A later drop-in closes them again.
    site.put(
        "etc/systemd/system/trailblazer.service.d/90-x.conf",
        "[Service]\nProtectKernelTunables=1\n",
    );
    let found = site.findings(&needs_forwarding(), manages);
    one(
        &found,
        Severity::Fail,
        &["in /etc/systemd/system/trailblazer.service.d/90-x.conf, write"],
    );
}

#[test]
fn each_missing_right_names_its_setting() {
    let rows: [(&str, &[&str]); 8] = [
        (
            "AmbientCapabilities=",
            &[
                "no CAP_NET_ADMIN",
                "50-site.conf",
                "AmbientCapabilities=CAP_NET_ADMIN",
            ],
        ),
        (
            "CapabilityBoundingSet=~CAP_NET_ADMIN",
            &["no CAP_NET_ADMIN by CapabilityBoundingSet="],
        ),
        (
            "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            &["forbids AF_NETLINK", "50-site.conf"],
        ),
        (
            "PrivateNetwork=yes",
            &["another network namespace", "50-site.conf"],
        ),
        ("IPAddressDeny=any", &["metadata service", "IPAddressDeny="]),
        ("User=nobody-here", &["/etc/passwd names no such user"]),
        (
            "StateDirectory=",
            &[
                "ProtectSystem=strict",
                "ReadWritePaths=/var/lib/trailblazer",
            ],
        ),
        ("InaccessiblePaths=/etc/trailblazer", &["hides the config"]),
    ];
    for (line, words) in rows {
        let site = Site::new("unit-row");
        site.put(DROP_IN, &format!("[Service]\n{line}\n"));
        let found = site.findings(&Needs::default(), |_| {});
        one(&found, Severity::Fail, words);
    }
}

#[test]
fn paths_of_the_config_are_judged_in_the_sandbox() {
    let site = Site::new("unit-paths");
    let found = site.findings(&Needs::default(), |config| {
        config.source.state_dir = "/srv/trailblazer".into();
    });
    let words = [
        "ProtectSystem=strict",
        "makes the state directory /srv/trailblazer read-only",
        "ReadWritePaths=/srv/trailblazer",
    ];
    one(&found, Severity::Fail, &words);
    let found = site.findings(&Needs::default(), |config| {
        config.source.urls = vec!["file:///home/me/ip-ranges.json".to_owned()];
    });
    one(
        &found,
        Severity::Fail,
        &[
            "ProtectHome=yes",
            "hides the source /home/me/ip-ranges.json",
        ],
    );
    let found = site.findings(&Needs::default(), |config| {
        config.agent.metrics = "127.0.0.1:80".parse().ok();
    });
    one(&found, Severity::Fail, &["port 80"]);
}

#[test]
fn a_config_for_root_only_is_named_with_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new("unit-mode");
    let config = site.0.join("secret.toml");
    std::fs::write(&config, "").unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    // The directory of the test lies below /tmp, which the unit hides.
    let line = format!(
        "[Service]\nPrivateTmp=no\nExecStart=\nExecStart=/usr/bin/trailblazer agent -c {}\n",
        config.display()
    );
    site.put(DROP_IN, &line);
    let found = site.findings(&Needs::default(), |_| {});
    one(
        &found,
        Severity::Fail,
        &["cannot read the config", "secret.toml", "chgrp trailblazer"],
    );
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    one(&site.findings(&Needs::default(), |_| {}), Severity::Ok, &[]);
}

#[test]
fn legacy_iptables_needs_the_packaged_drop_in() {
    let site = Site::new("unit-legacy");
    let needs = Needs {
        legacy_iptables: true,
        ..Needs::default()
    };
    let found = site.findings(&needs, |_| {});
    one(
        &found,
        Severity::Fail,
        &["CAP_NET_RAW, CAP_DAC_READ_SEARCH", "dropins/iptables.conf"],
    );
    site.put(DROP_IN, IPTABLES);
    one(&site.findings(&needs, |_| {}), Severity::Ok, &[]);
}
