//! Two builds give the same bytes.

use std::path::Path;
use std::process::Command;

use crate::built::{build, packages, repository};

/// Another directory, time zone, language, umask, user environment and time. The binary is the same
/// file in both builds: `packaging/build-binary.sh` in two directories shows that two compilations
/// agree, at the cost of two link-time optimisations (docs/packages.md).
#[test]
fn two_package_builds_give_the_same_bytes() {
    let first = packages();
    let out = repository().join("target/packages/again");
    let again = build(&first.binary, &out, |command| {
        let plain = std::mem::replace(command, Command::new("sh"));
        command.arg("-c").arg("umask 077; exec \"$0\" \"$@\"");
        command.arg(plain.get_program()).args(plain.get_args());
        for (key, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
            .current_dir("/")
            .envs([("TZ", "Asia/Kolkata"), ("LC_ALL", "C.UTF-8"), ("USER", "x")])
            .envs([("DEBEMAIL", "x@y.example"), ("HOSTNAME", "elsewhere")])
    });
    for (one, other) in [(&first.deb, &again.deb), (&first.rpm, &again.rpm)] {
        assert_eq!(one.file_name(), other.file_name());
        assert!(bytes(one) == bytes(other), "diffoscope {one:?} {other:?}");
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}
