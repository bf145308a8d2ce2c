//! The package repositories of a release, read by the real apt, dnf and rpm.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{next_packages, packages};
use crate::inside::must_sh;
use lab::keyring::Keyring;
use lab::root::{Output, Root, as_root, must, run, script};

/// The output of the script that adds packages to the repositories.
fn add(key: &Keyring, directory: &Path, packages: &[&Path]) -> Output {
    let mut command = script("release/repository.sh");
    key.lend(&mut command);
    command.args(["-k", &key.fingerprint, "-u", "copy:/srv/repository"]);
    run(command.arg(directory).args(packages))
}

#[track_caller]
fn must_add(key: &Keyring, directory: &Path, packages: &[&Path]) {
    let output = add(key, directory, packages);
    assert_eq!(output.code, 0, "{output}");
}

/// Places the repositories in a root without any other source of packages.
fn publish(root: &Root, directory: &Path) {
    let place = root.path().join("srv/repository");
    must(as_root("rm").arg("-rf").arg(&place));
    must(as_root("cp").arg("-r").arg(directory).arg(&place));
    must_sh(
        root,
        "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
         mkdir -p /etc/apt/keyrings
         cp /srv/repository/trailblazer.sources /etc/apt/sources.list.d/
         test -e /etc/apt/keyrings/trailblazer.asc ||
            cp /srv/repository/trailblazer.asc /etc/apt/keyrings/",
    );
}

const UPDATE: &str = "apt-get update --error-on=any";
const INSTALL: &str = "apt-get install --yes -o Dpkg::Use-Pty=0 trailblazer";
const VERSION: &str = "dpkg-query --show --showformat='${Version}' trailblazer";

#[test]
fn apt_installs_and_upgrades_from_the_signed_repository() {
    let key = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("repository");
    must_add(&key, &directory, &[&packages().deb]);
    let root = Root::fresh("apt-repository");
    publish(&root, &directory);
    must_sh(&root, UPDATE);
    must_sh(&root, INSTALL);
    let first = must_sh(&root, VERSION);
    assert!(first.ends_with("-1"), "{first}");

    must_add(&key, &directory, &[&next_packages().deb]);
    publish(&root, &directory);
    must_sh(&root, UPDATE);
    must_sh(&root, "apt-get upgrade --yes -o Dpkg::Use-Pty=0");
    let second = must_sh(&root, VERSION);
    assert!(second.ends_with("-2"), "{second}");
    // The earlier version stays available.
    must_sh(
        &root,
        &format!("{INSTALL}={first} --allow-downgrades && test \"$({VERSION})\" = {first}"),
    );
}

#[test]
fn apt_refuses_changed_and_foreign_repositories() {
    let key = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("repository");
    must_add(&key, &directory, &[&packages().deb]);
    let root = Root::fresh("apt-refusal");
    publish(&root, &directory);
    must_sh(&root, UPDATE);

    must_sh(
        &root,
        "for file in /srv/repository/apt/pool/main/t/trailblazer/*.deb; do printf x >>$file; done",
    );
    let changed = root.sh(INSTALL);
    assert_eq!(changed.code, 100, "{changed}");

    let other = Keyring::fresh();
    must_add(&other, &directory, &[&packages().deb]);
    publish(&root, &directory);
    let foreign = root.sh(UPDATE);
    assert_eq!(foreign.code, 100, "{foreign}");
    // As gpgv says it, and sqv since Debian 13.
    let words = ["NO_PUBKEY", "Missing key"];
    assert!(
        words.iter().any(|words| foreign.stderr.contains(words)),
        "{foreign}"
    );
}

/// dnf's list of the repository's packages, with both signatures required.
fn dnf(directory: &Path, key: &Path) -> Output {
    let work = tempfile::tempdir().unwrap();
    let tree = directory.join("yum/x86_64");
    let mut command = Command::new("dnf");
    command.env("HOME", work.path());
    command.arg(format!("--installroot={}", work.path().display()));
    command.arg(format!("--setopt=cachedir={}/cache", work.path().display()));
    command.arg(format!("--setopt=logdir={}", work.path().display()));
    command.arg(format!("--repofrompath=tb,file://{}", tree.display()));
    command.arg(format!("--setopt=tb.gpgkey=file://{}", key.display()));
    command.args(["--quiet", "--assumeyes", "--releasever=1", "--repo=tb"]);
    command.args(["--setopt=tb.gpgcheck=1", "--setopt=tb.repo_gpgcheck=1"]);
    command.args(["--forcearch=x86_64", "--setopt=tb.skip_if_unavailable=0"]);
    run(command.args(["repoquery", "trailblazer"]))
}

/// rpm's answer about the signature of a package, where only `key` is known.
fn verify_rpm(key: &Path, package: &Path) -> Output {
    let database = tempfile::tempdir().unwrap();
    let rpmkeys = || {
        let mut command = Command::new("rpmkeys");
        command.arg("--dbpath").arg(database.path());
        command.args(["--define", "_pkgverify_level all"]);
        command
    };
    must(rpmkeys().arg("--import").arg(key));
    run(rpmkeys().arg("--checksig").arg(package))
}

#[test]
fn dnf_and_rpm_accept_the_signed_repository_only() {
    let key = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("repository");
    must_add(&key, &directory, &[&packages().rpm]);
    let public = directory.join("trailblazer.asc");
    let listed = dnf(&directory, &public);
    assert_eq!(listed.code, 0, "{listed}");
    assert!(listed.stdout.contains("trailblazer-"), "{listed}");

    let signed = directory
        .join("yum/x86_64")
        .join(packages().rpm.file_name().unwrap());
    let verified = verify_rpm(&public, &signed);
    assert_eq!(verified.code, 0, "{verified}");
    let unsigned = verify_rpm(&public, &packages().rpm);
    assert_eq!(unsigned.code, 1, "{unsigned}");

    let index: PathBuf = directory.join("yum/x86_64/repodata/repomd.xml");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text + "<!-- changed -->\n").unwrap();
    let changed = dnf(&directory, &public);
    assert_ne!(changed.code, 0, "{changed}");
}

#[test]
fn repository_without_a_key_or_with_odd_files_is_refused() {
    let key = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("repository");
    let unknown = Keyring::empty();
    let output = add(&unknown, &directory, &[&packages().deb]);
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.contains("no secret key"), "{output}");
    let output = add(&key, &directory, &[Path::new("Cargo.toml")]);
    assert_eq!(output.code, 64, "{output}");
    assert!(!directory.exists());
}
