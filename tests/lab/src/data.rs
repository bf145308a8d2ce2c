//! The directory of real AWS data and the decompression of its files. The data is not part of the
//! repository: without the data the tests print a message and check nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory with `docs/` and the replay, or `None` with a message on standard error.
/// `TRAILBLAZER_DATA` names its parent; the default lies beside the repository.
pub fn ip_ranges_dir() -> Option<PathBuf> {
    let parent = std::env::var_os("TRAILBLAZER_DATA")
        .map_or_else(|| crate::repository().join("../shared/data"), PathBuf::from);
    let dir = parent.join("ip-ranges");
    if dir.is_dir() {
        return Some(dir);
    }
    // libtest captures `eprintln!` of a passing test, but not a write to standard error.
    let _closed = writeln!(
        std::io::stderr(),
        "NOT TESTED against real data: {} does not exist; set TRAILBLAZER_DATA to the directory \
         that holds ip-ranges/",
        dir.display()
    );
    None
}

/// The content of an `.xz` file.
pub fn decompress(path: &Path) -> Vec<u8> {
    let output = Command::new("xz")
        .arg("-dc")
        .arg(path)
        .output()
        .unwrap_or_else(|error| panic!("can't run xz: {error}; install xz-utils"));
    assert!(
        output.status.success(),
        "xz -dc {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
