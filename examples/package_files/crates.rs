//! The crates that the binary is linked from, as cargo resolves them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Failure;

/// A crate with its sources.
#[derive(Debug)]
pub struct Crate {
    /// `name-version`.
    pub name: String,
    /// The SPDX expression of its manifest.
    pub licence: String,
    /// From its manifest; often empty.
    pub authors: Vec<String>,
    /// Where its sources lie.
    pub directory: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
}

/// Every crate but our own, sorted. What only builds or tests (`cc`, `proptest`) is not in the
/// binary; what generates code that is (`serde_derive`) is counted, with what it is made of.
pub fn linked(target: &str) -> Result<Vec<Crate>, Failure> {
    // The tree alone knows which optional parts are taken without the tests; the metadata alone
    // knows the directories.
    let tree = cargo(&[
        "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--target",
        target,
    ])?;
    let names: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let version = words.next()?.strip_prefix('v')?;
            Some(format!("{name}-{version}"))
        })
        .collect();
    let metadata = cargo(&[
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        target,
    ])?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let mut crates = Vec::new();
    for package in metadata.packages {
        let name = format!("{}-{}", package.name, package.version);
        if package.name == env!("CARGO_PKG_NAME") || !names.contains(&name) {
            continue;
        }
        let licence = package.license.ok_or(format!("{name} names no licence"))?;
        let directory = package.manifest_path.parent().unwrap_or(Path::new("/"));
        crates.push(Crate {
            name,
            licence,
            authors: package.authors,
            directory: directory.to_owned(),
        });
    }
    // One less for our own. A crate that is missed would be a licence that is broken.
    if crates.len() + 1 != names.len() {
        return Err(format!(
            "{} crates in the tree, {} found",
            names.len() - 1,
            crates.len()
        )
        .into());
    }
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(crates)
}

/// `rustc 1.95.0`: whose standard library is linked too.
pub fn rustc() -> Result<String, Failure> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .arg("--version")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some(name), Some(version)) => Ok(format!("{name}-{version}")),
        _ => Err(format!("rustc --version says {text:?}").into()),
    }
}

fn cargo(arguments: &[&str]) -> Result<String, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo).args(arguments).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {}: {words}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
