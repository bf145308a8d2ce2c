//! The source against real servers on loopback: misbehaving HTTP, HTTPS, and a metadata service.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod http;
mod imds;
mod marked;
mod redirects;
mod sandbox;
mod tls;

use std::time::Duration;

use trailblazer::source::{FetchSettings, Fetched, SourceError, SourceFailure, Validators, fetch};

/// Short, with reserve for a busy machine.
fn settings() -> FetchSettings {
    FetchSettings {
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        max_bytes: 1 << 20,
        retries: 2,
        retry_silence: true,
        backoff_base: Duration::from_millis(20),
        max_wait: Duration::from_secs(2),
        user_agent: "trailblazer/test".to_owned(),
        proxies: false,
        mark: None,
    }
}

async fn get(url: &str) -> Result<Fetched, SourceError> {
    fetch(&[url.to_owned()], &settings(), None).await
}

fn body(fetched: Fetched) -> Vec<u8> {
    match fetched {
        Fetched::Document { bytes, .. } => bytes,
        Fetched::NotModified { url } => panic!("{url}: not modified"),
    }
}

fn validators(fetched: Fetched) -> Validators {
    match fetched {
        Fetched::Document { validators, .. } => validators.expect("validators"),
        Fetched::NotModified { url } => panic!("{url}: not modified"),
    }
}

/// The only failure of a fetch from one source.
fn failure(outcome: Result<Fetched, SourceError>) -> SourceFailure {
    match outcome {
        Err(SourceError::Failed(mut all)) if all.len() == 1 => all.remove(0),
        other => panic!("not one failure: {other:?}"),
    }
}
