//! Sysctls and the resolver's configuration, read from files.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The directory of the sysctls; `net` belongs to the process's network namespace.
const ROOT: &str = "/proc/sys";

/// Reads the sysctls at `paths`, leaving out absent and unreadable ones.
pub fn read(paths: impl IntoIterator<Item = String>) -> BTreeMap<String, String> {
    paths
        .into_iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(Path::new(ROOT).join(&path)).ok()?;
            Some((path, text.trim().to_owned()))
        })
        .collect()
}

/// Writes a sysctl.
pub fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new(ROOT).join(path), value)
}

/// True if the kernel has IPv6 (`ipv6.disable=1` removes the directory).
pub fn has_ipv6() -> bool {
    Path::new(ROOT).join("net/ipv6").is_dir()
}

/// The machine's memory in bytes (sysinfo(2)).
pub fn memory() -> Option<u64> {
    let found = rustix::system::sysinfo();
    found.totalram.checked_mul(u64::from(found.mem_unit))
}

/// The `nameserver` addresses of `/etc/resolv.conf` (resolv.conf(5)), without a scope such as
/// `%eth0`.
pub fn name_servers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    parse_name_servers(&text)
}

fn parse_name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter_map(|address| {
            address
                .split('%')
                .next()
                .and_then(|plain| plain.parse().ok())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_without_scopes_and_nonsense() {
        let text = "# a comment\nsearch x\nnameserver 10.0.0.2\n nameserver fe80::1%eth0\nnameserver nonsense\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(parse_name_servers(text), expected);
    }
}
