//! The tables of iptables-legacy and the programs that list them: netlink shows neither.

use std::time::Duration;

use super::tool::{self, Version, io, refused};
use crate::firewall::Variant;
use crate::kernel::firewall::error::FirewallError;
use crate::types::Family;

/// The legacy tables in use in this network namespace.
pub fn tables(family: Family) -> Vec<String> {
    let path = match family {
        Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
        Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // Without the module there is no file.
    let names = std::fs::read_to_string(path).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// The program of the legacy variant: `iptables-legacy`, or `iptables` where that is the only
/// variant, each with a suffix such as `-save`.
///
/// # Errors
/// None is installed.
pub(super) fn program(
    family: Family,
    suffix: &str,
    operation: &str,
) -> Result<String, FirewallError> {
    let names = match family {
        Family::Ipv4 => ["iptables-legacy", "iptables"],
        Family::Ipv6 => ["ip6tables-legacy", "ip6tables"],
    };
    let mut names = names.into_iter().map(|name| format!("{name}{suffix}"));
    names.find(|name| is_legacy(name)).ok_or_else(|| {
        let reason =
            format!("legacy tables are in use, and no iptables-legacy{suffix} is installed");
        refused(operation, reason)
    })
}

fn is_legacy(program: &str) -> bool {
    let version = tool::run(program, &["--version"], "", Duration::ZERO);
    version.is_ok_and(|output| {
        Version::parse(&String::from_utf8_lossy(&output.stdout))
            .is_some_and(|version| version.variant == Variant::Legacy)
    })
}

/// The output of a program that lists rules.
///
/// # Errors
/// The program cannot be started or fails.
pub(super) fn listing(
    program: &str,
    arguments: &[&str],
    extra: Duration,
    operation: &str,
) -> Result<String, FirewallError> {
    let output =
        tool::run(program, arguments, "", extra).map_err(|source| io(operation, source))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(refused(operation, reason));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
