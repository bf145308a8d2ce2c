//! The packages under test: built by `make packages`, once a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lab::root::{must, script};

/// One build.
#[derive(Debug)]
pub struct Packages {
    /// `trailblazer_*.deb`
    pub deb: PathBuf,
    /// `trailblazer-*.rpm`
    pub rpm: PathBuf,
    /// The release binary in both.
    pub binary: PathBuf,
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of this commit, in `target/packages`.
#[track_caller]
pub fn packages() -> &'static Packages {
    static PACKAGES: OnceLock<Packages> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let binary = must(&mut script("build-binary.sh"));
        let out = repository().join("target/packages");
        build(Path::new(binary.trim()), &out, |command| {
            command.current_dir(repository())
        })
    })
}

/// The same packages with revision 2, for upgrades.
#[track_caller]
pub fn next_packages() -> &'static Packages {
    static PACKAGES: OnceLock<Packages> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let out = repository().join("target/packages/next");
        build(&packages().binary, &out, |command| {
            command.args(["-r", "2"])
        })
    })
}

/// Packages `binary` into `out`.
#[track_caller]
pub fn build(
    binary: &Path,
    out: &Path,
    adjust: impl FnOnce(&mut Command) -> &mut Command,
) -> Packages {
    let mut command = script("build.sh");
    command.arg("-o").arg(out).env("TRAILBLAZER_BINARY", binary);
    must(adjust(&mut command));
    let find = |extension: &str| {
        let mut found = std::fs::read_dir(out)
            .expect("the script has made it")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|end| end == extension));
        let first = found.next();
        assert!(found.next().is_none(), "several .{extension} in {out:?}");
        first.unwrap_or_else(|| panic!("no .{extension} in {out:?}"))
    };
    Packages {
        deb: find("deb"),
        rpm: find("rpm"),
        binary: binary.to_owned(),
    }
}
