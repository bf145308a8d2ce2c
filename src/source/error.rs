//! The reasons for a fetch without a document.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

/// No source returned a document.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SourceError {
    #[error("no source is configured: set [source] url to a URL or a file")]
    NoSource,
    #[error("{}", failures(.0))]
    Failed(Vec<SourceFailure>),
}

impl SourceError {
    /// The error of the failures of all sources.
    pub fn of(failures: Vec<SourceFailure>) -> SourceError {
        if failures.is_empty() {
            SourceError::NoSource
        } else {
            SourceError::Failed(failures)
        }
    }

    /// True if any source answered, although without a document.
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
            "none of {} sources has a usable document: {}",
            many.len(),
            many.join("; ")
        ),
    }
}

/// The failure of one source.
#[derive(Debug, Serialize, Deserialize)]
pub struct SourceFailure {
    /// The source, as configured but without credentials.
    pub url: String,
    /// The proxy between this host and the source, without credentials.
    #[serde(default)]
    pub proxy: Option<String>,
    /// The last URL of a chain of redirects, without credentials.
    #[serde(default)]
    pub redirected: Option<String>,
    /// How often it was asked.
    pub tries: u32,
    pub cause: Failure,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        if let Some(proxy) = &self.proxy {
            write!(f, " through the proxy {proxy}")?;
        }
        if let Some(last) = &self.redirected {
            write!(f, ", redirected to {last}")?;
        }
        write!(f, ": {}", self.cause)?;
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

/// The reason for a source's failure.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    #[error("not a usable source: {0}")]
    BadUrl(String),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
    /// HTTPS clients read the certificates of the trusted authorities at set-up.
    #[error("no certificate of a trusted authority can be read: {0}")]
    NoAuthorities(String),
    /// The proxy stands in the way.
    #[error("{0}")]
    Proxy(String),
    /// The source answered with text that is no document, or with a document that would be
    /// rejected.
    #[error("{0}")]
    Unusable(String),
    /// The server asked for silence (`Retry-After`), so the server was not asked.
    #[error("not asked: the server allows no request before {until} (Retry-After)")]
    Quiet {
        /// A time for people.
        until: String,
    },
    #[error(
        "no complete answer within {0:?}: check the route to the server, or raise [source] timeout"
    )]
    Timeout(Duration),
    #[error("cannot connect: {0}: check the name, the address and the route to the server")]
    Connect(String),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the answer broke off or is not HTTP: {0}: the part received is ignored")]
    Broken(String),
    /// Any status but 200, 304, a redirect, 429 and 5xx.
    #[error("the server answered {0}: check the URL and the permission to read it")]
    Status(#[serde(with = "status_as_number")] StatusCode),
    #[error("the server reports an error: {status}{}", retry_advice(.retry_after))]
    Unavailable {
        #[serde(with = "status_as_number")]
        status: StatusCode,
        /// From `Retry-After`.
        retry_after: Option<Duration>,
    },
    #[error("{0}: set [source] url to the document's final URL")]
    Redirect(String),
    #[error(
        "the server answered 304 Not Modified to an unconditional request: check the server or the proxy before it"
    )]
    UnaskedNotModified,
    #[error(
        "the body is encoded as {0:?}, which was not requested: configure the server to send the body as it is, or in one or two layers of gzip"
    )]
    Encoding(String),
    #[error("the document is larger than {limit} bytes{}: if the size is right, raise [source] max_bytes", announced_size(.announced))]
    TooLarge {
        limit: u64,
        /// The size according to the server or the file system; `None` if found while reading.
        announced: Option<u64>,
    },
    #[error("empty document: the source answered without content; check the publisher")]
    Empty,
    #[error(
        "the process that fetches the document broke off: {0}: look for the cause (the kernel's log shows a lack of memory); the document in force stays"
    )]
    Child(String),
    #[error("cannot read the file: {problem}: {advice}")]
    File {
        problem: String,
        advice: Cow<'static, str>,
    },
}

impl Failure {
    /// True if the server sent a wrong answer, as opposed to no answer. A server with an error (429,
    /// 5xx) has answered: another path to the server would lead to the same error.
    pub fn is_answer(&self) -> bool {
        match self {
            Failure::Broken(_)
            | Failure::Status(_)
            | Failure::Unavailable { .. }
            | Failure::Redirect(_)
            | Failure::UnaskedNotModified
            | Failure::Encoding(_)
            | Failure::TooLarge { .. }
            | Failure::Unusable(_)
            | Failure::Empty => true,
            Failure::BadUrl(_)
            | Failure::Client(_)
            | Failure::NoAuthorities(_)
            | Failure::Proxy(_)
            | Failure::Quiet { .. }
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

/// The longest obeyed `Retry-After`: a wrong clock of a server must not stop the fetch for years.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(86_400);

fn retry_advice(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(after) if *after > LONGEST_SILENCE => {
            let asked = match after.as_secs() / 86_400 {
                1 => span(*after),
                days @ ..=36_500 => format!("{days} days"),
                _ => "more than a hundred years".to_owned(),
            };
            format!("; it asks for no request within {asked}, and is obeyed for one day")
        }
        Some(after) => format!("; it asks for no request within {}", span(*after)),
        None => "; try again later, or name a second source in [source] url".to_owned(),
    }
}

/// A time in whole minutes from two minutes on, and in whole hours from two hours on, rounded up.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3_600)),
    }
}

fn announced_size(announced: &Option<u64>) -> String {
    announced.map_or_else(String::new, |size| format!(" ({size} bytes announced)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_answer_among_the_silent_is_an_answer() {
        let failed = |causes: Vec<Failure>| {
            let failure = |cause| SourceFailure {
                url: String::new(),
                proxy: None,
                redirected: None,
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
        // A status other than 200 and 304: the guard rejects the answer.
        assert!(failed(vec![silent(), troubled]).is_answer());
        assert!(!failed(vec![silent(), silent()]).is_answer());
        assert!(failed(vec![silent(), Failure::Empty]).is_answer());
        assert!(failed(vec![Failure::Status(StatusCode::NOT_FOUND)]).is_answer());
        assert!(!SourceError::NoSource.is_answer());
    }

    #[test]
    fn demanded_silence_is_shown_in_the_largest_unit() {
        for (seconds, text) in [
            (1, "within 1 s"),
            (3_600, "within 60 min"),
            (86_400, "within 24 h"),
            (90_000, "within 25 h, and is obeyed for one day"),
            (
                2_300_315_657,
                "within 26624 days, and is obeyed for one day",
            ),
            (u64::MAX, "within more than a hundred years, and is obeyed"),
        ] {
            let advice = retry_advice(&Some(Duration::from_secs(seconds)));
            assert!(advice.contains(text), "{advice}");
        }
    }
}
