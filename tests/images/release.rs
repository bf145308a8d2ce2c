//! The files of a release, made from the real packages by the scripts of the public CI.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::keyring::Keyring;
use lab::root::{must, script};
use serde_json::Value;

use crate::tools::*;

/// A script of a release, with the keys.
fn script_of(name: &str, keyring: &Keyring) -> Command {
    let mut command = script(&format!("release/{name}"));
    keyring.lend(&mut command).current_dir(repository());
    command
}

/// The packages, built once by the script of `make packages`.
fn packages() -> Vec<PathBuf> {
    static BUILT: std::sync::Once = std::sync::Once::new();
    let out = repository().join("target/packages/release");
    BUILT.call_once(|| {
        must(script("build.sh").arg("-o").arg(&out));
    });
    let mut found: Vec<PathBuf> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert_eq!(found.len(), 2, "{found:?}");
    found
}

/// The names and versions of crates in the SBOM.
fn listed_crates(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains("/tmp"), "a path of the build machine");
    let sbom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let components = sbom["components"].as_array().unwrap();
    let licensed = components.iter().filter(|part| part["licenses"].is_array());
    assert_eq!(licensed.count(), components.len());
    components
        .iter()
        .map(|part| format!("{} {}", part["name"], part["version"]).replace('"', ""))
        .collect()
}

#[test]
#[ignore = "compiles the SBOM tool: make test-images"]
fn release_assets_are_complete_and_signed() {
    let keyring = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let assets = directory.path().join("assets");
    must(
        script_of("assets.sh", &keyring)
            .args(["-k", &keyring.fingerprint])
            .arg(&assets)
            .args(packages()),
    );

    must(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&assets),
    );
    let listed = std::fs::read_to_string(assets.join("SHA256SUMS")).unwrap();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let verify = |file: &str| {
        let mut command = keyring.gpg();
        command.args(["--verify", "SHA256SUMS.asc", file]);
        command.current_dir(&assets).output().unwrap().status
    };
    assert!(verify("SHA256SUMS").success());
    std::fs::write(assets.join("changed"), listed + "x").unwrap();
    assert!(!verify("changed").success());

    // The program alone runs.
    let archive = names(&assets, ".tar.gz");
    must(
        Command::new("tar")
            .arg("-xf")
            .arg(assets.join(&archive))
            .current_dir(directory.path()),
    );
    let program = directory
        .path()
        .join(archive.trim_end_matches(".tar.gz"))
        .join("trailblazer");
    let version = must(Command::new(program).arg("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");

    let crates = listed_crates(&assets.join(names(&assets, ".cdx.json")));
    let tree = must(
        Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--edges=normal"])
            .args(["--target=x86_64-unknown-linux-gnu", "--prefix=none"])
            .args(["--package=trailblazer", "--format={p}"])
            .current_dir(repository()),
    );
    let linked: BTreeSet<String> = tree
        .lines()
        .map(|line| line.split(" (").next().unwrap().replacen(" v", " ", 1))
        .filter(|package| !package.starts_with("trailblazer "))
        .collect();
    let absent: Vec<&String> = linked.difference(&crates).collect();
    assert!(linked.len() > 50 && absent.is_empty(), "{absent:?}");
}

/// The one file name with this ending.
#[track_caller]
fn names(directory: &Path, ending: &str) -> String {
    let mut found = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending));
    let first = found.next().expect("a file with this ending");
    assert_eq!(found.next(), None);
    first
}

#[test]
#[ignore = "builds the packages: make test-images"]
fn second_release_keeps_the_first_on_the_pages() {
    let keyring = Keyring::fresh();
    let directory = tempfile::tempdir().unwrap();
    let remote = directory.path().join("remote.git");
    must(
        Command::new("git")
            .args(["init", "--quiet", "--bare"])
            .arg(&remote),
    );
    let publish = |package: &Path| {
        let mut command = script_of("pages.sh", &keyring);
        command.args([
            "-k",
            &keyring.fingerprint,
            "-u",
            "https://packages.trailblazer.example",
        ]);
        must(command.arg(&remote).arg(package));
    };
    for package in packages() {
        publish(&package);
    }
    let listed = must(Command::new("git").arg("-C").arg(&remote).args([
        "ls-tree",
        "-r",
        "--name-only",
        "gh-pages",
    ]));
    for part in [
        ".nojekyll",
        "apt/dists/stable/InRelease",
        "apt/pool/main/t/trailblazer/trailblazer_",
        "repodata/repomd.xml.asc",
        "yum/",
        "trailblazer.asc",
        "trailblazer.repo",
        "trailblazer.sources",
    ] {
        assert!(listed.contains(part), "{part}\n{listed}");
    }

    // An unreachable remote never starts a new, empty branch.
    let mut unreachable = script_of("pages.sh", &keyring);
    unreachable.args([
        "-k",
        &keyring.fingerprint,
        "-u",
        "https://packages.trailblazer.example",
    ]);
    unreachable.arg(directory.path().join("absent.git"));
    let output = unreachable.args(packages()).output().unwrap();
    assert_eq!(output.status.code(), Some(128), "{output:?}");
}
