//! Readers of URLs and paths.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use url::{Host, Url};

use super::SourceConfig;
use crate::nearest::nearest;

/// File systems of the kernel: nothing that a program stores there is a file that stays.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// `NAME_MAX` of linux/limits.h.
const LONGEST_NAME: usize = 255;
/// `PATH_MAX` of linux/limits.h, less the room for our file names.
const LONGEST_PATH: usize = 4000;

/// Directories with a purpose of their own, which no program may take over.
const SHARED: [&str; 16] = [
    "/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/root", "/run", "/sbin", "/tmp",
    "/usr", "/var", "/var/lib", "/var/tmp", "/dev/shm",
];

/// Reads an absolute path. The path of a socket may be unusable: that costs the socket alone.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        let hint = if text.starts_with('~') {
            "; ~ is the shell's, not a service's"
        } else {
            ""
        };
        return Err(format!(
            "{text:?} is not an absolute path: write a path from / on, since a service has no \
             fixed working directory{hint}"
        ));
    }
    Ok(path)
}

/// Reads the path of a directory of our own, outside of the kernel's file systems.
pub(super) fn own_directory(text: &str) -> Result<PathBuf, String> {
    let path = absolute_path(text)?;
    let plain = without_dots(&path);
    if text.len() > LONGEST_PATH || path.iter().any(|name| name.len() > LONGEST_NAME) {
        return Err(format!(
            "{text:?} is too long: a path has at most {LONGEST_PATH} bytes, and each name in it \
             {LONGEST_NAME}"
        ));
    }
    for root in KERNEL {
        if plain.starts_with(root) && !plain.starts_with("/dev/shm") {
            return Err(format!(
                "{text:?} lies in {root}, which the kernel makes up: nothing can be stored there; \
                 write a path such as \"/var/lib/trailblazer\""
            ));
        }
    }
    if SHARED.iter().any(|shared| plain == Path::new(shared)) {
        return Err(format!(
            "{text:?} belongs to the whole system: write a directory of its own, such as \
             \"/var/lib/trailblazer\""
        ));
    }
    Ok(path)
}

/// The path without `.` and `..`, as text: links count as directories.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

impl SourceConfig {
    /// The addresses of the sources that are named by address.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let hosts =
            self.urls
                .iter()
                .filter_map(|url| match Url::parse(url).ok()?.host()?.to_owned() {
                    Host::Ipv4(address) => Some(IpAddr::V4(address)),
                    Host::Ipv6(address) => Some(IpAddr::V6(address)),
                    Host::Domain(_) => None,
                });
        hosts.collect()
    }
}

/// Reads the source of the document. Relative paths are allowed on the command line only.
pub(super) fn source(text: &str, relative: bool) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(format!("{text:?} is not a URL or path"));
    }
    // A colon before any slash ends a scheme (RFC 3986, section 4.2).
    let scheme = text
        .split_once(':')
        .map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest))
        .filter(|(scheme, _)| !scheme.contains('/') && !scheme.is_empty());
    match scheme {
        Some((scheme, rest)) if scheme == "http" || scheme == "https" => {
            server(text, &scheme, rest)?;
        }
        Some((scheme, rest)) if scheme == "file" => {
            let local = rest.starts_with('/')
                && (!rest.starts_with("//")
                    || rest.starts_with("///")
                    || rest.starts_with("//localhost/"));
            if !local {
                return Err(format!(
                    "{text:?} is not a local file: write file:/// and the absolute path"
                ));
            }
        }
        Some((scheme, rest)) => return Err(other_scheme(text, &scheme, rest)),
        None if relative || text.starts_with('/') => {}
        None => {
            let hint = match text.strip_prefix("~/") {
                Some(_) => "write the path of the home directory in full, since ~ is the shell's",
                None => "write https:// before a host, or a path from / on",
            };
            return Err(format!(
                "{text:?} is neither a URL nor an absolute path: {hint}"
            ));
        }
    }
    Ok(text.to_owned())
}

fn other_scheme(text: &str, scheme: &str, rest: &str) -> String {
    if rest.starts_with(|c: char| c.is_ascii_digit()) || !rest.starts_with('/') {
        return format!("{text:?} has no scheme: write https:// before the host");
    }
    let near = nearest(scheme, ["https", "http", "file"]);
    let hint = near.map_or_else(String::new, |near| {
        format!("; did you mean \"{near}:{rest}\"?")
    });
    format!("{text:?} has the scheme {scheme:?}: only https, http and file can be fetched{hint}")
}

/// Checks a URL with a server. Messages quote no password: the URL stands beside them anyway.
fn server(text: &str, scheme: &str, rest: &str) -> Result<(), String> {
    if text.contains(char::is_whitespace) {
        return Err(format!(
            "{text:?} contains a space: remove the space, or write %20 for a space in the path"
        ));
    }
    if text.contains('\\') {
        return Err(format!("{text:?} contains a backslash: write / instead"));
    }
    let authority = rest.strip_prefix("//").map(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        authority.rsplit('@').next().unwrap_or("")
    });
    let written = match authority {
        None => {
            let host = rest.trim_start_matches('/');
            return Err(format!(
                "{text:?} has no host: two slashes stand before the host, write \"{scheme}://{host}\""
            ));
        }
        Some("") => {
            return Err(format!(
                "{text:?} has no host: write a URL such as \"https://ip-ranges.amazonaws.com/ip-ranges.json\""
            ));
        }
        Some("http:" | "https:") => {
            return Err(format!(
                "{text:?} has two schemes: remove one of \"http://\" and \"https://\""
            ));
        }
        Some(written) => written,
    };
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::InvalidPort => {
            format!("{text:?} has a wrong port: a port is a number from 1 to 65535")
        }
        error => format!("{text:?} is not a URL: {error}; write it as https://host/path"),
    })?;
    if url.port() == Some(0) {
        return Err(format!(
            "{text:?} has a wrong port: a port is a number from 1 to 65535"
        ));
    }
    match url.host() {
        // "010.0.0.1" is 8.0.0.1 by the rules of URLs, and "10.1" is 10.0.0.1.
        Some(Host::Ipv4(address)) if !is_host(written, &address.to_string()) => Err(format!(
            "{text:?} has an address that some readers take for {address}: write four decimal \
             numbers without a leading 0"
        )),
        Some(Host::Domain(name)) if name.starts_with('.') || name.contains("..") => {
            Err(format!("{text:?} has an empty part in its host name"))
        }
        _ => Ok(()),
    }
}

fn is_host(authority: &str, address: &str) -> bool {
    authority
        .strip_prefix(address)
        .is_some_and(|port| port.is_empty() || port.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_every_kind_are_accepted() {
        for good in [
            "https://ip-ranges.amazonaws.com/ip-ranges.json",
            "HTTPS://user:word@mirror.example:8443/a%20b?x=1#y",
            "http://10.0.0.7:8080/x",
            "http://[fd00::1]:80/x",
            "https://bücher.example/x",
            "file:///srv/x.json",
            "file:/srv/x.json",
            "file://localhost/srv/x",
            "/srv/a b.json",
        ] {
            assert_eq!(source(good, false), Ok(good.to_owned()));
        }
        assert!(source("ranges.json", true).is_ok());
    }

    #[test]
    fn wrong_sources_get_the_correction() {
        for (bad, says) in [
            ("https://exa mple.com/x", "contains a space"),
            ("https://example.com:99999/x", "wrong port"),
            ("https://example.com:port/x", "wrong port"),
            ("https://example.com:0/x", "wrong port"),
            ("https:/example.com/x", "write \"https://example.com/x\""),
            ("https:///x", "has no host"),
            ("https://user@/x", "has no host"),
            (
                "htps://example.com/x",
                "did you mean \"https://example.com/x\"?",
            ),
            ("example.com:443/x", "write https:// before the host"),
            ("https://example.com\\x", "backslash"),
            ("https://010.0.0.1/x", "take for 8.0.0.1"),
            ("https://10.1/x", "take for 10.0.0.1"),
            ("https://10.0.0.256/x", "invalid IPv4 address"),
            ("https://[::1/x", "invalid IPv6 address"),
            ("https://a..b/x", "empty part"),
            ("https://https://a.b/x", "two schemes"),
            ("http://https://a.b/x", "two schemes"),
            ("~/x.json", "in full"),
            ("s3://bucket/key", "only https, http and file"),
        ] {
            let message = source(bad, false).unwrap_err();
            assert!(message.contains(says), "{bad}: {message}");
        }
    }

    #[test]
    fn directories_of_the_kernel_and_of_the_system_are_refused() {
        for bad in [
            "/proc/x",
            "/sys",
            "/var/../proc/self",
            "/dev/null",
            "/./proc",
        ] {
            assert!(
                own_directory(bad).unwrap_err().contains("the kernel"),
                "{bad}"
            );
        }
        for bad in ["/", "/etc/", "/var/lib/x/..", "/tmp", "/dev/shm"] {
            assert!(
                own_directory(bad).unwrap_err().contains("whole system"),
                "{bad}"
            );
        }
        let (name, names) = (format!("/{}", "a".repeat(256)), "/abc".repeat(1001));
        for bad in [&name, &names] {
            assert!(own_directory(bad).unwrap_err().contains("too long"));
        }
        for good in [
            "/dev/shm/x",
            "/data",
            "/processes/x",
            "/var/lib/trailblazer",
        ] {
            assert!(own_directory(good).is_ok(), "{good}");
        }
    }
}
