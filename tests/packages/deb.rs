//! A .deb's whole life in a fresh root, by dpkg and apt, without systemd, as in an image build.
//! (The boot test has systemd as the first process.)

use crate::built::{next_packages, packages};
use crate::inside::{configure, every_command_works, in_network, ip_knows_our_names, must_sh};
use lab::root::{Root, differences};

/// Files that dpkg and apt write for any package, and backups left by shadow's tools.
const THEIRS: &[&str] = &[
    "/var/lib/dpkg/",
    "/var/lib/apt/",
    "/var/cache/",
    "/var/log/",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/etc/ld.so.cache",
    // Put there by the tests.
    "/srv",
    "/tmp",
];

const INSTALL: &str = "apt-get install --yes -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold";

/// The units enabled at boot.
const LINKS: &str = "find /etc/systemd/system -name 'trailblazer*' | sort";

fn with_packages(name: &str) -> Root {
    let root = Root::fresh(name);
    root.put(&packages().deb, "/tmp/first.deb");
    root.put(&next_packages().deb, "/tmp/second.deb");
    root
}

#[test]
fn deb_installation_works_and_starts_nothing() {
    let root = with_packages("deb-install");
    let said = root.sh(&format!("{INSTALL} /tmp/first.deb"));
    assert_eq!(said.code, 0, "{said}");
    // The kernel was asked for nothing, no manager either, and no script complained.
    for word in ["rror", "arning", "annot", "systemctl"] {
        let lines: Vec<_> = said
            .stderr
            .lines()
            .filter(|line| line.contains(word))
            .collect();
        assert_eq!(lines, [""; 0], "{said}");
    }
    assert_eq!(must_sh(&root, "dpkg --verify trailblazer"), "");
    assert_eq!(must_sh(&root, LINKS), "");
    let user = must_sh(&root, "getent passwd trailblazer");
    assert!(
        user.contains(":Trailblazer agent:/var/lib/trailblazer:"),
        "{user}"
    );
    assert!(user.trim().ends_with("nologin"), "{user}");
    // No config: the unit's condition keeps an enabled service away.
    let config = root.sh("test -e /etc/trailblazer/trailblazer.toml");
    assert_eq!(config.code, 1, "{config}");

    every_command_works(&root);
    ip_knows_our_names(&root);
}

#[test]
fn deb_removal_and_purge_leave_nothing() {
    let root = with_packages("deb-life");
    let before = root.files(THEIRS);
    must_sh(&root, &format!("{INSTALL} /tmp/first.deb"));
    configure(&root);
    must_sh(
        &root,
        "trailblazer reconcile --cache-only && systemctl enable trailblazer",
    );
    let enabled = must_sh(&root, LINKS);
    assert_eq!(enabled.lines().count(), 2, "{enabled}");
    must_sh(
        &root,
        "echo '# mine' >>/etc/trailblazer/trailblazer.toml.example",
    );

    // Upgrade: the administrator's choices stay.
    let mine = [
        "/etc/trailblazer",
        "/etc/systemd",
        "/etc/passwd",
        "/var/lib/trailblazer",
    ];
    let kept = |root: &Root| {
        let mut files = root.files(THEIRS);
        files.retain(|path, _| mine.iter().any(|start| path.starts_with(start)));
        files
    };
    let chosen = kept(&root);
    assert!(chosen.len() > 8, "{chosen:?}");
    must_sh(&root, &format!("{INSTALL} /tmp/second.deb"));
    let version = must_sh(&root, "dpkg-query -W -f '${Version}' trailblazer");
    assert!(version.ends_with("-2"), "{version}");
    assert_eq!(differences(&chosen, &kept(&root)), "");

    // Removal: config and state stay for a later installation, along with the enabled unit.
    must_sh(&root, "dpkg --remove trailblazer");
    let gone = root.sh("command -v trailblazer");
    assert_ne!(gone.code, 0, "{gone}");
    assert_eq!(differences(&chosen, &kept(&root)), "");
    must_sh(&root, &format!("{INSTALL} /tmp/second.deb"));
    assert_eq!(must_sh(&root, LINKS), enabled);

    // Purge, in the usual two steps.
    must_sh(&root, "dpkg --remove trailblazer");
    must_sh(&root, "dpkg --purge trailblazer");
    assert_eq!(differences(&before, &root.files(THEIRS)), "");

    // Purge in one step.
    must_sh(&root, &format!("{INSTALL} /tmp/first.deb"));
    configure(&root);
    must_sh(
        &root,
        "trailblazer reconcile --cache-only && systemctl enable trailblazer",
    );
    must_sh(&root, "dpkg --purge trailblazer");
    assert_eq!(differences(&before, &root.files(THEIRS)), "");
}

#[test]
fn image_build_leaves_the_build_machines_kernel_alone() {
    let root = with_packages("deb-kernel");
    must_sh(&root, &format!("{INSTALL} /tmp/first.deb"));
    configure(&root);
    // In an image build the routes belong to the build host: neither upgrade nor removal may flush
    // them.
    let said = in_network(
        &root,
        &format!(
            "trailblazer reconcile >/dev/null
             ip -N rule show >/tmp/before
             {INSTALL} /tmp/second.deb >/dev/null
             dpkg --purge trailblazer >/dev/null
             ip -N rule show | diff /tmp/before - && grep -c 'lookup 108[34]' /tmp/before"
        ),
    );
    assert_eq!(said, "2\n");
}

#[test]
fn deb_scripts_may_run_twice() {
    let root = with_packages("deb-twice");
    must_sh(&root, &format!("{INSTALL} /tmp/second.deb"));
    configure(&root);
    must_sh(
        &root,
        "trailblazer reconcile --cache-only && systemctl enable trailblazer",
    );
    must_sh(&root, "cp /var/lib/dpkg/info/trailblazer.p* /tmp");
    let before = root.files(THEIRS);
    for call in [
        "postinst configure 0.1.0-1",
        "postinst configure",
        "postinst abort-upgrade 0.1.0-2",
        "prerm upgrade 0.1.0-3",
        "prerm failed-upgrade 0.1.0-3",
        "prerm remove",
        "postinst abort-remove",
        "postrm upgrade 0.1.0-3",
        "postrm remove",
        "postinst configure 0.1.0-2",
    ] {
        must_sh(
            &root,
            &format!("sh /tmp/trailblazer.{call} && sh /tmp/trailblazer.{call}"),
        );
        assert_eq!(differences(&before, &root.files(THEIRS)), "", "{call}");
    }
    must_sh(&root, "dpkg --purge trailblazer");
    let after = root.files(THEIRS);
    must_sh(
        &root,
        "sh /tmp/trailblazer.postrm purge && sh /tmp/trailblazer.postrm purge",
    );
    assert_eq!(differences(&after, &root.files(THEIRS)), "");
    for (script, call) in [("postinst", "reconfigure"), ("prerm", "install")] {
        let refused = root.sh(&format!("sh /tmp/trailblazer.{script} {call}"));
        assert_eq!(refused.code, 1, "{refused}");
    }
}
