//! The packages' metadata: dependencies, configuration files, licences, dates.

use std::collections::BTreeSet;
use std::process::Command;

use crate::built::{packages, repository};
use lab::root::must;

fn field(name: &str) -> String {
    let text = must(
        Command::new("dpkg-deb")
            .arg("-f")
            .arg(&packages().deb)
            .arg(name),
    );
    text.trim().to_owned()
}

fn query(arguments: &[&str]) -> String {
    must(
        Command::new("rpm")
            .arg("-qp")
            .args(arguments)
            .arg(&packages().rpm),
    )
}

/// Of the last commit, as the packages' dates are.
fn commit_seconds() -> String {
    let mut git = Command::new("git");
    git.current_dir(repository())
        .args(["log", "-1", "--format=%ct"]);
    must(&mut git).trim().to_owned()
}

#[test]
fn deb_names_its_dependencies() {
    assert_eq!(field("Package"), "trailblazer");
    assert_eq!(
        field("Version"),
        concat!(env!("CARGO_PKG_VERSION"), "-1"),
        "the newest release of CHANGELOG.md"
    );
    let depends = field("Depends");
    let depends: Vec<&str> = depends.split(", ").collect();
    // The libraries by dpkg-shlibdeps: nothing but glibc and the unwinder.
    assert!(depends[0].starts_with("libc6 (>= 2."), "{depends:?}");
    assert!(depends[1].starts_with("libgcc-s1 ("), "{depends:?}");
    assert_eq!(
        depends[2..],
        [
            "ca-certificates",
            "systemd | systemd-standalone-sysusers | systemd-sysusers"
        ]
    );
    // The binary needs no program: `ip` and `nft` are for people, `iptables` for the second
    // backend.
    assert_eq!(field("Recommends"), "nftables | iptables, iproute2");
    let size: u64 = field("Installed-Size").parse().expect("a number");
    let binary = std::fs::metadata(&packages().binary).expect("built").len() / 1024;
    assert!((binary..binary + 2000).contains(&size), "{size} KiB");
}

#[test]
fn deb_registers_all_its_configuration_files() {
    let mut control = Command::new("dpkg-deb");
    control.arg("-I").arg(&packages().deb).arg("conffiles");
    assert_eq!(
        must(&mut control),
        "/etc/iproute2/rt_protos.d/trailblazer.conf\n\
         /etc/iproute2/rt_tables.d/trailblazer.conf\n\
         /etc/trailblazer/trailblazer.toml.example\n"
    );
}

#[test]
fn rpm_names_its_dependencies() {
    let head = query(&["--qf", "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{BUILDHOST}"]);
    let arch = std::env::consts::ARCH;
    assert_eq!(
        head,
        format!(
            "trailblazer {} 1 {arch} reproducible",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_eq!(query(&["--qf", "%{BUILDTIME}"]), commit_seconds());
    let requires = query(&["--requires"]);
    let requires: BTreeSet<&str> = requires.lines().collect();
    for need in [
        "ca-certificates",
        "systemd",
        "libc.so.6()(64bit)",
        "/bin/sh",
    ] {
        assert!(requires.contains(need), "{need}: {requires:?}");
    }
    // Amazon Linux 2023 has glibc 2.34 and cannot load a binary with newer symbols. A binary linked
    // on a system newer than Debian 12 may need that system's glibc; releases are built and checked
    // on Debian 12 (.github/workflows/ci.yml).
    let newest = local_glibc().max(34);
    for line in &requires {
        if let Some(version) = line.strip_prefix("libc.so.6(GLIBC_2.") {
            let minor: u32 = version
                .split(['.', ')'])
                .next()
                .and_then(|minor| minor.parse().ok())
                .expect("a version");
            assert!(minor <= newest, "{line}");
        }
    }
    let recommends = query(&["--recommends"]);
    assert_eq!(recommends, "(nftables or iptables-nft)\niproute\n");
}

#[test]
fn rpm_marks_configuration_documentation_and_licences() {
    let configuration = query(&["--configfiles"]);
    assert_eq!(
        configuration,
        "/etc/iproute2/rt_protos.d/trailblazer.conf\n\
         /etc/iproute2/rt_tables.d/trailblazer.conf\n\
         /etc/trailblazer/trailblazer.toml.example\n"
    );
    let licences = query(&["--licensefiles"]);
    assert_eq!(licences.lines().count(), 2, "{licences}");
    let documents = query(&["--docfiles"]);
    for document in ["man8/trailblazer.8.gz", "trailblazer/operation.md"] {
        assert!(documents.contains(document), "{documents}");
    }
    // Both packages' changelogs are made from CHANGELOG.md.
    let changelog = query(&["--changelog"]);
    let first = changelog.lines().next().unwrap_or_default();
    let version = concat!(" - ", env!("CARGO_PKG_VERSION"), "-1");
    assert!(
        first.starts_with("* ") && first.ends_with(version),
        "{changelog}"
    );
    assert!(changelog.contains("\n- First packages"), "{changelog}");
}

/// `name-version` of every crate linked by cargo.
fn linked() -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut tree = Command::new(cargo);
    tree.current_dir(repository())
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}"]);
    must(&mut tree)
        .lines()
        .skip(1)
        .map(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            format!("{name}-{}", version.trim_start_matches('v'))
        })
        .collect()
}

#[test]
fn both_packages_hold_the_licence_of_every_linked_crate() {
    let crates = linked();
    assert!(crates.len() > 100, "{crates:?}");
    let mut tar = Command::new("sh");
    tar.arg("-c")
        .arg("dpkg-deb --fsys-tarfile \"$1\" | tar -xO ./usr/share/doc/trailblazer/copyright")
        .arg("sh")
        .arg(&packages().deb);
    let debian = must(&mut tar);
    let mut cpio = Command::new("sh");
    cpio.arg("-c")
        .arg("rpm2cpio \"$1\" | cpio --quiet -i --to-stdout '*LICENSE.dependencies'")
        .arg("sh")
        .arg(&packages().rpm);
    let plain = must(&mut cpio);
    for name in &crates {
        assert!(
            debian.contains(&format!("\nFiles: crates/{name}/*\n")),
            "{name}"
        );
        assert!(plain.contains(&format!("\ncrates/{name}: ")), "{name}");
    }
    // Each label of a stanza has its text, once.
    let mut stanzas = BTreeSet::new();
    let mut labels = BTreeSet::new();
    for paragraph in debian.split("\n\n") {
        let label = paragraph
            .lines()
            .find_map(|line| line.strip_prefix("License: "))
            .unwrap_or_default();
        if paragraph.starts_with("Files: ") {
            labels.extend(label.split(" and ").map(str::to_owned));
        } else if paragraph.starts_with("License: ") {
            assert!(stanzas.insert(label.to_owned()), "{label} twice");
        }
    }
    assert_eq!(labels, stanzas);
    for text in ["Permission is hereby granted", "common-licenses/Apache-2.0"] {
        assert!(debian.contains(text), "{text}");
    }
    assert!(
        plain.contains("Grant of Copyright License"),
        "Apache's full text"
    );
    assert_eq!(
        query(&["--qf", "%{LICENSE}"]),
        "Apache-2.0 AND BSD-3-Clause AND CC0-1.0 AND ISC AND MIT AND Unicode-3.0"
    );
}

/// The minor version of this machine's C library (2.x).
fn local_glibc() -> u32 {
    let said = must(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let minor = said.trim().strip_prefix("glibc 2.");
    minor
        .and_then(|minor| minor.parse().ok())
        .unwrap_or_else(|| panic!("getconf says {said:?}"))
}
