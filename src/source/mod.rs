//! Bytes from outside: the published document, the last known good of it on disk, and what the
//! instance metadata service says.
//!
//! Nothing here judges what the bytes mean: `ranges` parses them, `guard` decides. What is
//! promised here is that an answer is complete. A failed read is an error, never an empty answer.

pub mod child;
mod file;
mod http;
pub mod imds;
mod marked;
mod retry;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::config::SourceConfig;

/// At most this many redirects are followed (issue A; browsers and curl allow 20 and 50, but
/// each one is a round trip out of the same timeout, and a mirror needs one or two).
pub const MAX_REDIRECTS: usize = 5;

/// How a document is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSettings {
    /// Bound of one try: name lookup, connect, TLS, redirects and body together.
    pub timeout: Duration,
    /// Bound of the connect part of a try (name lookup, TCP, TLS), for each redirect.
    pub connect_timeout: Duration,
    /// Cap on the decoded document, in bytes.
    pub max_bytes: u64,
    /// Further tries after the first, for failures that may pass.
    pub retries: u32,
    /// Whether silence (a timeout, no connection) is among those failures. Off where the caller
    /// has another way to go: there it is faster than asking again.
    pub retry_silence: bool,
    /// Upper bound of the wait before the first further try; it doubles with each.
    pub backoff_base: Duration,
    /// No wait is longer than this. A server whose `Retry-After` asks for more is given up on in
    /// this pass: coming back sooner than asked is impolite, and waiting keeps the pass lock.
    pub max_wait: Duration,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` as curl does.
    pub proxies: bool,
    /// `SO_MARK` of the connections, for rules that send our own fetch another way; needs
    /// `CAP_NET_ADMIN`. A marked fetch uses no proxy: which way a proxy goes on is its own affair.
    pub mark: Option<u32>,
}

impl FetchSettings {
    /// The operator's settings and, for what has no key, these defaults:
    ///
    /// - connect timeout 5 s, or the timeout if that is shorter: Linux repeats a lost SYN after
    ///   1 s and 3 s (`TCP_TIMEOUT_INIT`, net/tcp.h), so two losses in a row are survived;
    /// - 2 further tries: with a timeout of 10 s a dead source costs a pass 30 s, not minutes,
    ///   and the agent comes back at the next refresh anyway;
    /// - back-off from 500 ms, doubling, with full jitter ("Exponential Backoff And Jitter",
    ///   AWS Architecture Blog, 2015);
    /// - no single wait longer than the timeout: we do not wait longer to ask than for an answer;
    /// - no mark: which one belongs to a path is for the caller to know.
    pub fn from_config(config: &SourceConfig) -> Self {
        FetchSettings {
            timeout: config.timeout,
            connect_timeout: config.timeout.min(Duration::from_secs(5)),
            max_bytes: config.max_bytes,
            retries: 2,
            retry_silence: true,
            backoff_base: Duration::from_millis(500),
            max_wait: config.timeout,
            user_agent: concat!("trailblazer/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: true,
            mark: None,
        }
    }
}

/// What makes the next request conditional (RFC 9110, section 13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// The URL that the document came from, after redirects. The validators are sent to this
    /// URL only: another server may use the same `ETag` for another document. It can carry
    /// credentials: print it through [`redacted`].
    pub url: String,
    /// The `ETag` header, verbatim.
    pub etag: Option<String>,
    /// The `Last-Modified` header, verbatim.
    pub last_modified: Option<String>,
}

/// The answer of the first source that gave one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// The document that the validators came from is still the current one.
    NotModified {
        /// The source, as configured but without credentials.
        url: String,
    },
    /// A complete document, decoded, not empty, not over the cap.
    Document {
        /// The decoded body; where the answer is handed on, it goes beside it ([`child`]).
        #[serde(skip)]
        bytes: Vec<u8>,
        /// The source, as configured but without credentials.
        url: String,
        /// For the next request; `None` for files, and where the server sent none.
        validators: Option<Validators>,
    },
}

/// No source gave a document.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SourceError {
    /// The list of sources is empty.
    #[error("no source is configured: set [source] url to a URL or a file")]
    NoSource,
    /// Every source failed; the failures in the order of the list.
    #[error("{}", failures(.0))]
    Failed(Vec<SourceFailure>),
}

impl SourceError {
    /// Whether a source answered, with something that is no document; else none answered.
    pub fn is_answer(&self) -> bool {
        match self {
            SourceError::NoSource => false,
            SourceError::Failed(all) => all.iter().any(|failure| failure.cause.is_answer()),
        }
    }
}

fn failures(all: &[SourceFailure]) -> String {
    let each: Vec<String> = all.iter().map(ToString::to_string).collect();
    match each.as_slice() {
        [one] => one.clone(),
        many => format!(
            "none of {} sources answered: {}",
            many.len(),
            many.join("; ")
        ),
    }
}

/// Why one source gave no document.
#[derive(Debug, Serialize, Deserialize)]
pub struct SourceFailure {
    /// The source, as configured but without credentials.
    pub url: String,
    /// How often it was asked.
    pub tries: u32,
    /// The last failure.
    pub cause: Failure,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.cause)?;
        if self.tries > 1 {
            write!(f, " (the last of {} tries)", self.tries)?;
        }
        Ok(())
    }
}

impl std::error::Error for SourceFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// What went wrong with a source.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// Not something that can be fetched.
    #[error("not a usable source: {0}")]
    BadUrl(String),
    /// The HTTP client could not be set up; for HTTPS this is where root certificates are read.
    #[error(
        "cannot set up the HTTP client: {0}: check that CA certificates are installed (package ca-certificates) or that SSL_CERT_FILE names a readable PEM file"
    )]
    Client(String),
    /// No complete answer in time.
    #[error(
        "no complete answer within {0:?}: check the way to the server, or raise [source] timeout"
    )]
    Timeout(Duration),
    /// No connection.
    #[error("cannot connect: {0}: check the name, the address and the way to the server")]
    Connect(String),
    /// The server's certificate, or TLS itself.
    #[error(
        "TLS failed: {0}: check the server's certificate, this host's clock and its CA certificates (SSL_CERT_FILE adds none, it replaces them)"
    )]
    Tls(String),
    /// The connection ended before the answer did, or the answer isn't HTTP.
    #[error("the answer broke off or is not HTTP: {0}: what came is ignored")]
    Broken(String),
    /// Any status but 200, 304, a redirect, 429 and 5xx.
    #[error("the server answered {0}: check the URL and who may read it")]
    Status(#[serde(with = "status_as_number")] StatusCode),
    /// 429 or 5xx.
    #[error("the server is in trouble: {status}{}", retry_advice(.retry_after))]
    Unavailable {
        /// The status.
        #[serde(with = "status_as_number")]
        status: StatusCode,
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("{0}: set [source] url to where the document is")]
    Redirect(String),
    /// 304 without having been asked whether it changed.
    #[error(
        "the server answered 304 Not Modified to an unconditional request: check the server or the proxy before it"
    )]
    UnaskedNotModified,
    /// A content coding that was not asked for.
    #[error(
        "the body is encoded as {0:?}, which was not asked for: have the server send it plain or as gzip"
    )]
    Encoding(String),
    /// Over the cap.
    #[error("the document is larger than {limit} bytes{}: if that is right, raise [source] max_bytes", told(.announced))]
    TooLarge {
        /// `[source] max_bytes`.
        limit: u64,
        /// What the server or the file system said it is; `None` when it showed while reading.
        announced: Option<u64>,
    },
    /// Nothing in it.
    #[error("empty document: the source answered without content; check what publishes it")]
    Empty,
    /// The process that asked for the agent.
    #[error(
        "the process that fetches the document broke off: {0}: look for what ended it (the kernel's log tells of memory); what is in force stays"
    )]
    Child(String),
    /// A file that cannot be read.
    #[error("cannot read the file: {problem}: {advice}")]
    File {
        /// What happened.
        problem: String,
        /// What to do.
        advice: Cow<'static, str>,
    },
}

impl Failure {
    /// Whether this is an answer (the wrong one), and not the want of one. A server in trouble
    /// (429, 5xx) has answered: another way to it would find it in the same trouble.
    pub fn is_answer(&self) -> bool {
        match self {
            Failure::Broken(_)
            | Failure::Status(_)
            | Failure::Unavailable { .. }
            | Failure::Redirect(_)
            | Failure::UnaskedNotModified
            | Failure::Encoding(_)
            | Failure::TooLarge { .. }
            | Failure::Empty => true,
            Failure::BadUrl(_)
            | Failure::Client(_)
            | Failure::Timeout(_)
            | Failure::Connect(_)
            | Failure::Tls(_)
            | Failure::Child(_)
            | Failure::File { .. } => false,
        }
    }
}

mod status_as_number {
    use reqwest::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.as_u16())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(from)?).map_err(D::Error::custom)
    }
}

fn retry_advice(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(after) => format!("; it asks to be left alone for {} s", after.as_secs()),
        None => "; try again later, or name a second source in [source] url".to_owned(),
    }
}

fn told(announced: &Option<u64>) -> String {
    announced.map_or_else(String::new, |size| format!(" ({size} bytes announced)"))
}

/// Whether a source of the list is asked over the network.
pub fn any_is_remote(urls: &[String]) -> bool {
    urls.iter().any(|url| url.starts_with("http"))
}

/// Fetches the document from the first source that gives one.
///
/// `urls` are `https:`, `http:` and `file:` URLs or plain paths, tried in order, each with its
/// own further tries. `previous` makes the request to the URL that it came from conditional; pass
/// it only while the document that it belongs to is at hand.
///
/// # Errors
/// [`SourceError`] with the failure of each source, when none gave a document.
pub async fn fetch(
    urls: &[String],
    settings: &FetchSettings,
    previous: Option<&Validators>,
) -> Result<Fetched, SourceError> {
    let clients = http::Clients::new(settings);
    let mut failed = Vec::new();
    for configured in urls {
        let (tries, outcome) = match Locator::parse(configured) {
            Err(cause) => (0, Err(cause)),
            Ok(Locator::File(path)) => (1, file::read(&path, settings.max_bytes)),
            Ok(Locator::Http(url)) => http::fetch(&clients, &url, previous).await,
        };
        let url = redacted(configured);
        match outcome {
            Ok(Answer::NotModified) => return Ok(Fetched::NotModified { url }),
            Ok(Answer::Document { bytes, validators }) => {
                return Ok(Fetched::Document {
                    bytes,
                    url,
                    validators,
                });
            }
            Err(cause) => failed.push(SourceFailure { url, tries, cause }),
        }
    }
    if failed.is_empty() {
        return Err(SourceError::NoSource);
    }
    Err(SourceError::Failed(failed))
}

/// What one source gave.
enum Answer {
    NotModified,
    Document {
        bytes: Vec<u8>,
        validators: Option<Validators>,
    },
}

/// A source, by the way in which it is read.
#[derive(Debug, PartialEq, Eq)]
enum Locator {
    File(PathBuf),
    Http(Url),
}

impl Locator {
    /// A path needs no scheme, so that `--source examples/ip-ranges.json` works. Whatever has
    /// `://` or one of our schemes in front is a URL.
    fn parse(text: &str) -> Result<Locator, Failure> {
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
            "file" => file::path_of(&url).map(Locator::File),
            "http" | "https" => {
                // Never sent to a server, so it must not tell two equal URLs apart.
                url.set_fragment(None);
                Ok(Locator::Http(url))
            }
            other => Err(Failure::BadUrl(format!(
                "the scheme {other:?} is not one of https, http and file"
            ))),
        }
    }
}

/// A URL or path as it may be printed: without user and password, and without the values of a
/// query, where presigned URLs carry their signature.
pub fn redacted(url: &str) -> String {
    if !url.contains("://") {
        return url.to_owned();
    }
    let Ok(mut parsed) = Url::parse(url) else {
        // Too broken to know where a password would be.
        let scheme = url.split("://").next().unwrap_or_default();
        return format!("{scheme}://… (not a valid URL)");
    };
    let had_query = parsed.query().is_some();
    parsed.set_query(None);
    parsed.set_fragment(None);
    // Both fail only for URLs that cannot have a user, such as file: ones.
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
    fn sources_by_scheme() {
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

    #[test]
    fn one_wrong_answer_among_the_silent_is_an_answer() {
        let failed = |causes: Vec<Failure>| {
            let failure = |cause| SourceFailure {
                url: String::new(),
                tries: 1,
                cause,
            };
            SourceError::Failed(causes.into_iter().map(failure).collect())
        };
        let silent = || Failure::Timeout(Duration::from_secs(1));
        let troubled = Failure::Unavailable {
            status: StatusCode::BAD_GATEWAY,
            retry_after: None,
        };
        // Not 200 and not 304: the guard's list calls that a reject.
        assert!(failed(vec![silent(), troubled]).is_answer());
        assert!(!failed(vec![silent(), silent()]).is_answer());
        assert!(failed(vec![silent(), Failure::Empty]).is_answer());
        assert!(failed(vec![Failure::Status(StatusCode::NOT_FOUND)]).is_answer());
        assert!(!SourceError::NoSource.is_answer());
    }

    #[tokio::test]
    async fn an_empty_list_is_an_error() {
        let settings = FetchSettings::from_config(&SourceConfig {
            urls: vec![],
            refresh: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
            max_bytes: 1,
            state_dir: PathBuf::new(),
            path: crate::config::FetchPath::Auto,
        });
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        let error = fetch(&[], &settings, None).await.unwrap_err();
        assert!(matches!(error, SourceError::NoSource));
    }
}
