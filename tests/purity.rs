//! The pure modules stay pure: no network, no disk, no clock, no runtime. Read off the sources.

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};

/// A module: `NAME.rs`, and everything below `NAME/`.
const PURE: [&str; 50] = [
    "words",
    "types",
    "degraded",
    "nearest",
    "notes",
    "config",
    "objects",
    "facts",
    "firewall",
    "ownership",
    "observed",
    "ranges",
    "guard",
    "health",
    "desired",
    "plan",
    "judge",
    "agent/repair_limiter",
    "agent/schedule",
    "agent/debounce",
    "status/snapshot",
    "status/metrics",
    "status/text",
    "columns",
    "vpc/calls",
    "vpc/drift",
    "vpc/ec2/decode",
    "vpc/ec2/endpoint",
    "vpc/ec2/error",
    "vpc/ec2/filter",
    "vpc/ec2/pace",
    "vpc/ec2/profile",
    "vpc/ec2/request",
    "vpc/ec2/settings",
    "vpc/ec2/transport",
    "vpc/ec2/verdict",
    "vpc/ec2/xml",
    "vpc/goal",
    "vpc/ledger",
    "vpc/lint",
    "vpc/lookup",
    "vpc/objects",
    "vpc/observed",
    "vpc/plan",
    "vpc/quota",
    "vpc/refused",
    "vpc/routes",
    "vpc/step",
    "vpc/summary",
    "vpc/tags",
];

/// The parts of the settings that read the disk.
const EXEMPT: [&str; 2] = ["config/disk.rs", "config/file.rs"];

/// Names forbidden in pure modules, with the reason.
const FORBIDDEN: [(&str, &str); 29] = [
    ("std::{", "what can't be told: one path a `use`"),
    ("tokio", "a runtime"),
    ("reqwest", "the network"),
    ("rtnetlink", "the kernel"),
    ("netlink_packet", "the kernel"),
    ("netlink_sys", "the kernel"),
    ("iptables::", "a program"),
    ("rustix", "system calls"),
    ("std::fs", "the disk"),
    ("fs::", "the disk"),
    ("File::", "the disk"),
    ("std::process", "other programs"),
    ("Command::", "other programs"),
    ("std::thread", "threads"),
    ("std::env", "the environment"),
    ("env::", "the environment"),
    ("std::io::", "input and output"),
    ("println!", "output"),
    ("TcpStream", "sockets"),
    ("TcpListener", "sockets"),
    ("UdpSocket", "sockets"),
    ("UnixStream", "sockets"),
    ("SystemTime", "the clock"),
    // A time as an argument is a number; reading a clock is not pure.
    ("Instant::now", "the clock"),
    ("elapsed(", "the clock"),
    ("Timestamp::now", "the clock"),
    ("Zoned::now", "the clock"),
    ("crate::kernel", "the kernel"),
    ("crate::source", "bytes from outside"),
];

#[test]
fn pure_modules_name_nothing_of_the_outside_world() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut findings = Vec::new();
    let mut read = 0;
    for module in PURE {
        let mut files = vec![];
        let single = source.join(format!("{module}.rs"));
        if single.is_file() {
            files.push(single);
        }
        collect(&source.join(module), &mut files);
        assert!(
            !files.is_empty(),
            "no module {module}: the list is out of date"
        );
        for file in files {
            let name = file.strip_prefix(&source).unwrap_or(&file);
            if EXEMPT.iter().any(|exempt| name == Path::new(exempt)) {
                continue;
            }
            read += 1;
            findings.extend(impure(
                name,
                &std::fs::read_to_string(&file).expect("readable"),
            ));
        }
    }
    println!("{read} files read");
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            files.push(path);
        }
    }
}

/// The lines with a forbidden name, outside comments and unit tests.
fn impure(file: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let next = lines.get(number + 1).copied().unwrap_or_default();
        if line.starts_with("#[cfg(test)]") && next.starts_with("mod") && next.ends_with('{') {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for (word, what) in FORBIDDEN {
            let found = code.match_indices(word).any(|(at, _)| {
                // Whole words only: `prefs::` does not contain `fs::`.
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            });
            if found {
                findings.push(format!(
                    "src/{}:{}: a pure module must not touch {what}: {}",
                    file.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    findings
}

#[test]
fn search_finds_forbidden_names_outside_comments_and_tests() {
    let text = "use std::fs::read;\nlet now = Instant::now();\nlet prefs::x = 1; // std::fs\n#[cfg(test)]\nmod tests {\nuse tokio::test;\n";
    let found = impure(Path::new("x.rs"), text);
    assert_eq!(
        found.iter().filter(|line| line.contains("x.rs:1:")).count(),
        2
    );
    assert_eq!(
        found.iter().filter(|line| line.contains("x.rs:2:")).count(),
        1
    );
    assert_eq!(found.len(), 3, "{found:#?}");
}
