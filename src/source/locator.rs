//! The addresses of sources: paths and URLs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use reqwest::Url;
use url::Host;

use super::error::Failure;
use crate::printable::escaped;
use crate::types::METADATA;

/// The address of a source, by the method of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Locator {
    File(PathBuf),
    Http(Url),
}

impl Locator {
    /// Parses a path or URL. A path needs no scheme, so that `--source examples/ip-ranges.json`
    /// works. Text with `://` or with one of our schemes in front is a URL.
    pub(super) fn parse(text: &str) -> Result<Locator, Failure> {
        if text.is_empty() {
            return Err(Failure::BadUrl("it is empty".to_owned()));
        }
        let scheme = text
            .split_once(':')
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        let known = matches!(scheme.as_deref(), Some("file" | "http" | "https"));
        if !known && !text.contains("://") {
            return Ok(Locator::File(PathBuf::from(text)));
        }
        let mut url = Url::parse(text)
            .map_err(|error| Failure::BadUrl(format!("{error}; write it as https://host/path")))?;
        match url.scheme() {
            "file" => path_of(&url).map(Locator::File),
            "http" | "https" => {
                // Never sent to a server: two URLs are equal apart from their fragments.
                url.set_fragment(None);
                Ok(Locator::Http(url))
            }
            other => Err(Failure::BadUrl(format!(
                "the scheme {other:?} is not one of https, http and file"
            ))),
        }
    }
}

/// The path of a `file:` URL, percent-decoded (RFC 8089: the host is empty or `localhost`).
fn path_of(url: &Url) -> Result<PathBuf, Failure> {
    if let Some(host) = url.host_str() {
        return Err(Failure::BadUrl(format!(
            "a file: URL cannot name another host ({host}): write file:///path, or use https"
        )));
    }
    // A file has no query and no fragment: without a refusal, another file would be read.
    if url.query().is_some() {
        return Err(Failure::BadUrl(
            "a question mark in the path of a file: URL is written %3F".to_owned(),
        ));
    }
    if url.fragment().is_some() {
        return Err(Failure::BadUrl(
            "a # in the path of a file: URL is written %23".to_owned(),
        ));
    }
    url.to_file_path().map_err(|()| {
        Failure::BadUrl("this file: URL names no path: write file:///path".to_owned())
    })
}

/// True for a URL that names this host itself or its link.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_local_address(address.into()),
        Some(Host::Ipv6(address)) => is_local_address(address.into()),
        None => false,
    }
}

/// True for a name with an address of this host itself or of its link. A name without an answer is not
/// local: the request then fails with the reason.
pub(super) async fn resolves_locally(url: &Url) -> bool {
    let Some(Host::Domain(name)) = url.host() else {
        return false;
    };
    let found = tokio::net::lookup_host((name, 0)).await;
    found.is_ok_and(|mut found| found.any(|at| is_local_address(at.ip())))
}

/// True for loopback, link-local space with the metadata service, and the unspecified address, also
/// for an IPv6 address that holds such an IPv4 address: a mapped or a compatible one (RFC 4291), one
/// for a translator (RFC 6052) or for a tunnel (RFC 3056).
fn is_local_address(address: IpAddr) -> bool {
    let v4 = |v4: Ipv4Addr| v4.is_loopback() || v4.is_link_local() || v4.is_unspecified();
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            let embedded = match [a, b, c, d, e, f] {
                [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some((g, h)),
                [0x2002, ..] => Some((b, c)),
                _ => None,
            };
            let halves = |(g, h): (u16, u16)| Ipv4Addr::from(u32::from(g) << 16 | u32::from(h));
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || METADATA.contains(&address)
                || embedded.map(halves).is_some_and(v4)
        }
    }
}

/// A printable URL or path: without user and password, and without the query, since presigned URLs
/// carry their signature in the query.
pub fn redacted(url: &str) -> String {
    if !url.contains("://") {
        return escaped(url).into_owned();
    }
    let Ok(mut parsed) = Url::parse(url) else {
        // The position of a password is unknown in an invalid URL.
        let scheme = url.split("://").next().unwrap_or_default();
        return format!("{}://… (not a valid URL)", escaped(scheme));
    };
    let had_query = parsed.query().is_some();
    parsed.set_query(None);
    parsed.set_fragment(None);
    // Both fail only for URLs without a user part, such as file: URLs.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    let mut text = parsed.to_string();
    if had_query {
        text.push_str("?…");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_targets_are_recognised_in_every_form() {
        let local = |url: &str| is_local(&Url::parse(url).unwrap());
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "169.254.169.254",
            "[::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[::]",
            "[::127.0.0.1]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ] {
            assert!(local(&format!("http://{host}/x")), "{host}");
        }
        for host in [
            "10.0.0.1",
            "localhost.example",
            "[fd00::1]",
            "52.216.0.1",
            "[64:ff9b::52.216.0.1]",
            "[2002:a00:1::1]",
        ] {
            assert!(!local(&format!("http://{host}/x")), "{host}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        assert_eq!(
            redacted("https://user:secret@example.com/a.json?X-Amz-Signature=abc#frag"),
            "https://example.com/a.json?…"
        );
        assert_eq!(
            redacted("https://example.com/a.json"),
            "https://example.com/a.json"
        );
        assert_eq!(redacted("/etc/ranges.json"), "/etc/ranges.json");
        assert!(!redacted("https://user:secret@[bad/").contains("secret"));
    }

    #[test]
    fn scheme_decides_between_url_and_path() {
        let file = |path: &str| Locator::File(PathBuf::from(path));
        assert_eq!(Locator::parse("/a b.json").unwrap(), file("/a b.json"));
        assert_eq!(Locator::parse("a:b.json").unwrap(), file("a:b.json"));
        assert_eq!(
            Locator::parse("file:///a%20b.json").unwrap(),
            file("/a b.json")
        );
        assert_eq!(Locator::parse("FILE:/x").unwrap(), file("/x"));
        assert_eq!(Locator::parse("file://localhost/x").unwrap(), file("/x"));
        assert!(matches!(
            Locator::parse("HTTPS://example.com/x#y").unwrap(),
            Locator::Http(url) if url.as_str() == "https://example.com/x"
        ));
        for (bad, says) in [
            ("", "empty"),
            ("s3://bucket/key", "\"s3\" is not one of"),
            ("http://", "host"),
            ("file://server/x", "server"),
            ("file:///x?y", "%3F"),
            ("file:///x#y", "%23"),
        ] {
            let text = Locator::parse(bad).unwrap_err().to_string();
            assert!(text.contains(says), "{bad}: {text}");
        }
    }
}
