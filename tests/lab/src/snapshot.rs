//! All foreign state of a namespace as text, to show byte for byte its survival.

use std::fmt::{self, Write};
use std::path::Path;

use super::Ns;

/// Sections of text, each with its title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: Vec<(String, String)>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, text) in &self.sections {
            writeln!(f, "== {title}\n{text}")?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// The text of the first section with this start of a title.
    pub fn section(&self, title: &str) -> Option<&str> {
        let found = self
            .sections
            .iter()
            .find(|(name, _)| name.starts_with(title));
        found.map(|(_, text)| text.as_str())
    }

    /// Panics with the lines that differ, unless `after` is the same.
    #[track_caller]
    pub fn assert_same(&self, after: &Snapshot) {
        assert!(
            self == after,
            "the namespace is not as it was before:\n{}",
            self.difference(after)
        );
    }

    /// The lines of only one snapshot: `-` before and `+` after.
    pub fn difference(&self, after: &Snapshot) -> String {
        let mut text = String::new();
        for (title, before) in &self.sections {
            let after = after.section(title).unwrap_or_default();
            if before != after {
                let _infallible = writeln!(text, "== {title}");
                let (old, new): (Vec<_>, Vec<_>) =
                    (before.lines().collect(), after.lines().collect());
                for line in old.iter().filter(|line| !new.contains(line)) {
                    let _infallible = writeln!(text, "- {line}");
                }
                for line in new.iter().filter(|line| !old.contains(line)) {
                    let _infallible = writeln!(text, "+ {line}");
                }
            }
        }
        text
    }
}

impl Ns {
    /// The whole state: links with addresses, routes, rules and nexthops of both families, the
    /// policies of IPsec, the nftables ruleset and iptables without counters, sysctls.
    pub fn snapshot(&self) -> Snapshot {
        let mut sections = Vec::new();
        for words in [
            "-N -o addr show",
            "-N -d -4 route show table all",
            "-N -d -6 route show table all",
            "-N -d -4 rule show",
            "-N -d -6 rule show",
            "-N -d nexthop show",
        ] {
            sections.push((format!("ip {words}"), self.ip(words)));
        }
        sections.push(("xfrm".into(), self.ip("xfrm policy")));
        sections.push(("nft".into(), self.run(&["nft", "-s", "list", "ruleset"])));
        for family in ["ip", "ip6"] {
            // A query of iptables-legacy creates the queried table: ask only for existing tables.
            let names = self
                .in_thread(|| std::fs::read_to_string(format!("/proc/net/{family}_tables_names")));
            let program = format!("{family}tables-legacy-save");
            if names.is_ok_and(|names| !names.trim().is_empty()) {
                sections.push((program.clone(), without_counters(&self.run(&[&program]))));
            }
        }
        sections.push(("sysctl".into(), self.in_thread(sysctls)));
        Snapshot { sections }
    }

    /// Only the nftables section of `foreign_snapshot`: one process, for thousands of checks.
    pub fn foreign_nft(&self) -> String {
        let text = foreign_nft(&self.run(&["nft", "-s", "list", "ruleset"]));
        // The empty line between an omitted chain of ours and the next chain stays.
        lines_without(&text, str::is_empty)
    }

    /// Like `snapshot`, without Trailblazer's own objects (recognized by ownership: protocol 83,
    /// tables `inet trailblazer` and `inet trailblazer-guard`, chains `TRAILBLAZER-*` and jumps to these chains).
    pub fn foreign_snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot();
        for (title, text) in &mut snapshot.sections {
            *text = if title == "nft" {
                foreign_nft(text)
            } else if title == "xfrm" {
                foreign_policies(text)
            } else if title.starts_with("ip ") {
                foreign_ip(text)
            } else if title.contains("tables") {
                lines_without(text, |line| line.contains("TRAILBLAZER-"))
            } else {
                continue;
            };
        }
        snapshot
    }
}

fn lines_without(text: &str, owned: impl Fn(&str) -> bool) -> String {
    let kept = text.lines().filter(|line| !owned(line));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Drops routes, rules and nexthops of protocol 83 with the following indented lines (the next hops
/// of a multipath route).
fn foreign_ip(text: &str) -> String {
    let mut kept = String::new();
    let mut dropping = false;
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            let mut words = line.split_whitespace();
            dropping = words.any(|word| word == "proto") && words.next() == Some("83");
        }
        if !dropping {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Drops the policies with Trailblazer's priorities. The further lines of a policy are indented.
fn foreign_policies(text: &str) -> String {
    let mut policies: Vec<String> = Vec::new();
    for line in text.lines() {
        if !line.starts_with('\t') {
            policies.push(String::new());
        }
        if let Some(policy) = policies.last_mut() {
            policy.push_str(line);
            policy.push('\n');
        }
    }
    let ours = ["priority 1413611521 ", "priority 1413611522 "];
    policies.retain(|policy| !ours.iter().any(|words| policy.contains(words)));
    policies.concat()
}

fn foreign_nft(text: &str) -> String {
    let mut kept = String::new();
    // The depth of braces at the start of an owned block.
    let mut dropping: Option<i32> = None;
    let mut depth = 0;
    for line in text.lines() {
        let words = line.trim_start();
        let before = depth;
        depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        if dropping.is_none()
            && (words.starts_with("table inet trailblazer ")
                || words.starts_with("table inet trailblazer-guard ")
                || words.starts_with("chain TRAILBLAZER-"))
        {
            dropping = Some(before);
        }
        match dropping {
            // The blank line between two chains would remain after the omission of a chain.
            None if line.contains(" TRAILBLAZER-") || words.is_empty() => {}
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
            Some(start) if depth <= start => dropping = None,
            Some(_) => {}
        }
    }
    kept
}

/// `iptables-save` without comments (they contain the time) and packet counters.
fn without_counters(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(" [") {
            Some((chain, _)) if line.starts_with(':') => format!("{chain}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

/// Network settings of the thread's namespace, without values counted by the kernel.
fn sysctls() -> String {
    let mut lines = Vec::new();
    for directory in ["net/ipv4", "net/ipv6", "net/netfilter"] {
        read_below(Path::new("/proc/sys").join(directory).as_path(), &mut lines);
    }
    lines.sort();
    lines.concat()
}

fn read_below(directory: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_below(&path, lines);
        } else if !path.ends_with("nf_conntrack_count") {
            // Write-only files (route/flush) and unset secrets are unreadable before and after.
            if let Ok(value) = std::fs::read_to_string(&path) {
                lines.push(format!("{} = {}\n", path.display(), value.trim()));
            }
        }
    }
}
