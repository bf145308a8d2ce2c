//! Bytes from outside: the published document, and the instance metadata service.
//!
//! The module does not interpret the bytes: `ranges` parses, `guard` decides. An answer is always
//! complete: a failed read is an error, never an empty answer.

mod answer;
pub mod child;
mod client;
mod coding;
mod error;
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod imds;
mod locator;
mod marked;
mod proxy;
mod retry;
pub mod sandbox;
mod settings;
mod tls;
pub mod web;

use answer::Content;
use locator::Locator;

pub use answer::{Fetched, Validators};
pub use error::{Failure, LONGEST_SILENCE, SourceError, SourceFailure};
pub use locator::redacted;
pub use settings::{FetchSettings, MAX_REDIRECTS};

/// True if any source of the list is on the network.
pub fn any_is_remote(urls: &[String]) -> bool {
    urls.iter().any(|url| is_remote(url))
}

fn is_remote(url: &str) -> bool {
    url.starts_with("http")
}

/// Fetches the document from the first source with an answer.
///
/// `urls` are `https:`, `http:` and `file:` URLs or plain paths, tried in order, each with
/// retries. `previous` makes the request to the URL of the validators conditional; pass validators
/// only while their document is at hand.
///
/// # Errors
/// [`SourceError`] with the failure of each source.
pub async fn fetch(
    urls: &[String],
    settings: &FetchSettings,
    previous: Option<&Validators>,
) -> Result<Fetched, SourceError> {
    let clients = http::Clients::new(settings);
    let mut failed = Vec::new();
    for configured in urls {
        let mut proxy = None;
        let mut redirected = None;
        let (tries, outcome) = match Locator::parse(configured) {
            Err(cause) => (0, Err(cause)),
            Ok(Locator::File(path)) => (1, file::read_within(path, settings).await),
            Ok(Locator::Http(url)) => {
                proxy = settings.proxy_of(&url);
                let (tries, last, outcome) =
                    http::fetch(&clients, &url, proxy.as_ref(), previous).await;
                redirected = last.map(|last| redacted(last.as_str()));
                (tries, outcome)
            }
        };
        let url = redacted(configured);
        match outcome {
            Ok(Content::NotModified) => return Ok(Fetched::NotModified { url }),
            Ok(Content::Document { bytes, validators }) => {
                return Ok(Fetched::Document {
                    bytes,
                    url,
                    redirected,
                    validators,
                });
            }
            Err(cause) => failed.push(SourceFailure {
                url,
                proxy: proxy.map(|proxy| proxy.shown()),
                redirected,
                tries,
                cause,
            }),
        }
    }
    Err(SourceError::of(failed))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::SourceConfig;

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
