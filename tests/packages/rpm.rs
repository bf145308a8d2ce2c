//! An .rpm's whole life in a fresh root. The root is Debian's, since no other distribution's mirror
//! is in reach: the rpm database there lists no installed package, hence `--nodeps` (`metadata`
//! checks the dependencies).

use std::path::Path;
use std::process::Command;

use crate::built::{next_packages, packages};
use crate::inside::{configure, every_command_works, ip_knows_our_names, must_sh};
use lab::root::{Output, Root, as_root, differences, run};

/// Files that rpm and shadow's tools write for any package, and the tests' own.
const THEIRS: &[&str] = &[
    // The database, before and since Debian 13.
    "/root/.rpmdb",
    "/var/lib/rpm",
    "/var/cache/",
    "/var/log/",
    // Of rpm distributions' package `filesystem`, which Debian doesn't have.
    "/usr/share/licenses",
    "/usr/share/zsh/site-functions",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/srv",
    "/tmp",
];

/// Files that stay after an erasure (docs/packages.md).
const KEPT: &[&str] = &[
    "/etc/trailblazer",
    "/var/lib/trailblazer",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
];

#[track_caller]
fn rpm(root: &Root, action: &str, package: &Path) -> Output {
    let mut command = as_root("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        // Package scripts find /proc, as under dnf.
        .args(["sh", "-c", "mount -t proc proc \"$3/proc\" && exec \"$@\""])
        .args(["rpm", "rpm", "--root"])
        .arg(root.path())
        .args(["--nodeps", action])
        .arg(package);
    // Debian's rpm refused to install packages without this flag; rpm of Debian 13 has no such flag.
    let force = "--force-debian";
    if action != "-e" && run(Command::new("rpm").args([force, "--version"])).code == 0 {
        command.arg(force);
    }
    let output = run(&mut command);
    assert_eq!(output.code, 0, "{action}: {output}");
    output
}

#[test]
fn rpm_installs_upgrades_and_erases() {
    let root = Root::fresh("rpm-life");
    let before = root.files(THEIRS);
    let said = rpm(&root, "-i", &packages().rpm);
    assert!(!said.stderr.contains("scriptlet"), "{said}");
    let mut verify = as_root("rpm");
    verify.arg("--root").arg(root.path());
    let said = run(verify.args(["--verify", "--nodeps", "trailblazer"]));
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said}");
    assert_eq!(must_sh(&root, "find /etc/systemd -name 'trailblazer*'"), "");

    every_command_works(&root);
    ip_knows_our_names(&root);
    must_sh(&root, "systemctl enable trailblazer");

    let configured = root.files(THEIRS);
    rpm(&root, "-U", &next_packages().rpm);
    let mut changed = root.files(THEIRS);
    // Only the version differs, and no file contains the version.
    assert_eq!(differences(&configured, &changed), "");

    rpm(&root, "-e", Path::new("trailblazer"));
    changed = root.files(THEIRS);
    changed.retain(|path, _| !KEPT.iter().any(|kept| path.starts_with(kept)));
    let mut expected = before.clone();
    expected.retain(|path, _| !KEPT.iter().any(|kept| path.starts_with(kept)));
    assert_eq!(differences(&expected, &changed), "");
    // Kept on purpose: the journal may still be wanted, and the config is the administrator's.
    must_sh(&root, "test -s /var/lib/trailblazer/last-known-good");
    must_sh(&root, "test -s /etc/trailblazer/trailblazer.toml");

    // The line of docs/packages.md.
    must_sh(
        &root,
        "rm -r /etc/trailblazer /var/lib/trailblazer; userdel trailblazer",
    );
    assert_eq!(differences(&before, &root.files(THEIRS)), "");
}

#[test]
fn rpm_scripts_may_run_twice() {
    let root = Root::fresh("rpm-twice");
    rpm(&root, "-i", &packages().rpm);
    configure(&root);
    must_sh(&root, "trailblazer reconcile --cache-only");
    let before = root.files(THEIRS);
    for script in ["post", "preun", "postun"] {
        let path = crate::built::repository()
            .join("packaging/rpm")
            .join(script);
        root.put(&path, &format!("/tmp/{script}"));
    }
    for call in [
        "post 1", "post 2", "preun 1", "postun 1", "preun 0", "postun 0",
    ] {
        must_sh(&root, &format!("sh /tmp/{call} && sh /tmp/{call}"));
        assert_eq!(differences(&before, &root.files(THEIRS)), "", "{call}");
    }
}
