//! The directory of real AWS data and the decompression of its files. The data is not part of the
//! repository: without the data the tests print a message and check nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipnet::IpNet;
use serde_json::Value;

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

/// The prefixes of a service in a region of a document, sharing no code with the product.
pub fn independent(document: &Value, service: &str, region: &str) -> BTreeSet<IpNet> {
    [("prefixes", "ip_prefix"), ("ipv6_prefixes", "ipv6_prefix")]
        .iter()
        .filter_map(|(list, key)| Some((document.get(list)?.as_array()?, key)))
        .flat_map(|(rows, key)| rows.iter().map(move |row| (row, key)))
        .filter(|(row, _)| row["service"] == service && row["region"] == region)
        .map(|(row, key)| row[key].as_str().and_then(|text| text.parse().ok()))
        .map(|prefix| prefix.expect("a prefix"))
        .collect()
}
