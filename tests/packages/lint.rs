//! The distributions' own checkers find nothing except the exceptions explained beside the package.

use std::process::Command;

use crate::built::{packages, repository};
use lab::root::{must, run};

#[test]
fn deb_passes_lintian() {
    let mut lintian = Command::new("lintian");
    // lintian comments on running as root, outside of any tag.
    if rustix::process::geteuid().is_root() {
        lintian.arg("--allow-root");
    }
    lintian
        .args(["--display-info", "--pedantic", "--tag-display-limit", "0"])
        .args(["--fail-on", "error,warning,info,pedantic"])
        // An override for a tag that only other releases of lintian have.
        .args(["--suppress-tags", "alien-tag"])
        .arg(&packages().deb);
    let output = run(&mut lintian);
    assert_eq!((output.code, output.stdout.trim()), (0, ""), "{output}");
}

#[test]
fn rpm_passes_rpmlint() {
    let mut rpmlint = Command::new("rpmlint");
    rpmlint
        .arg("--config")
        .arg(repository().join("packaging/rpm/rpmlint.toml"))
        .arg(&packages().rpm);
    let output = run(&mut rpmlint);
    assert_eq!(output.code, 0, "{output}");
    assert!(output.stdout.contains("0 errors, 0 warnings"), "{output}");
}

/// Exceptions need reasons: each line has a comment above.
#[test]
fn every_lint_exception_has_a_reason() {
    for file in ["deb/lintian-overrides", "rpm/rpmlint.toml"] {
        let path = repository().join("packaging").join(file);
        let text = std::fs::read_to_string(path).expect("part of the repository");
        let mut explained = false;
        for line in text.lines() {
            match line.trim() {
                "" => explained = false,
                comment if comment.starts_with('#') => explained = true,
                "Filters = [" | "]" => {}
                exception => {
                    assert!(explained, "{file}: {exception}");
                }
            }
        }
    }
}

#[test]
fn package_scripts_are_plain_sh_and_pass_shellcheck() {
    let packaging = repository().join("packaging");
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.args(["--shell", "sh", "--norc"]);
    for script in [
        "build.sh",
        "build-binary.sh",
        "version.sh",
        "stage.sh",
        "deb/build.sh",
        "deb/postinst",
        "deb/postrm",
        "deb/prerm",
        "dev/as-root.sh",
        "dev/debian-root.sh",
        "dev/install-deps.sh",
        "rpm/build.sh",
        "rpm/post",
        "rpm/postun",
        "rpm/preun",
    ] {
        shellcheck.arg(packaging.join(script));
        must(Command::new("dash").arg("-n").arg(packaging.join(script)));
    }
    must(&mut shellcheck);
}
