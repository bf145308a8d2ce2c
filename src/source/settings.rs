//! The settings of a fetch.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::client::USER_AGENT;
use super::is_remote;
use super::proxy::Proxy;
use crate::config::SourceConfig;

/// The largest number of redirects. Browsers and curl allow 20 and 50, but each redirect is a round
/// trip within the same timeout, and a mirror needs one or two.
pub const MAX_REDIRECTS: usize = 5;

/// The settings of a fetch, from the config and from defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSettings {
    /// For one try: name lookup, connect, TLS, redirects and body together.
    pub timeout: Duration,
    /// For the connect part of a try (name lookup, TCP, TLS), for each redirect.
    pub connect_timeout: Duration,
    /// Largest decoded document, in bytes.
    pub max_bytes: u64,
    /// Tries after the first, for transient failures.
    pub retries: u32,
    /// True if silence (a timeout, no connection) counts as transient. Off if the caller has
    /// another path to the source, since the other path is faster than a retry.
    pub retry_silence: bool,
    /// Upper bound of the wait before the first retry; doubled for each further retry.
    pub backoff_base: Duration,
    /// The longest wait. If `Retry-After` of a server asks for more, the fetch gives up: an earlier
    /// retry would ignore the server, and a longer wait would delay the pass.
    pub max_wait: Duration,
    pub user_agent: String,
    /// Honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` as curl does.
    pub proxies: bool,
    /// `SO_MARK` of the connections, for policy rules that route our own fetch differently; needs
    /// `CAP_NET_ADMIN`. A marked fetch uses no proxy: the mark has no influence on a proxy's route.
    pub mark: Option<u32>,
}

impl FetchSettings {
    /// The operator's settings, and defaults for settings without a key:
    ///
    /// - connect timeout 5 s, or the timeout if that is shorter: Linux repeats a lost SYN after
    ///   1 s and 3 s (`TCP_TIMEOUT_INIT`, net/tcp.h), so two losses in a row are survived;
    /// - 2 retries: with a timeout of 10 s, a dead source costs a pass 30 s, not minutes, and the
    ///   agent tries again at the next refresh;
    /// - back-off from 500 ms, doubling, with full jitter ("Exponential Backoff And Jitter",
    ///   AWS Architecture Blog, 2015);
    /// - no single wait longer than the timeout: a wait for a retry never exceeds the wait for an
    ///   answer;
    /// - no mark: the caller knows the mark of a path.
    pub fn from_config(config: &SourceConfig) -> Self {
        FetchSettings {
            timeout: config.timeout,
            connect_timeout: config.timeout.min(Duration::from_secs(5)),
            max_bytes: config.max_bytes,
            retries: 2,
            retry_silence: true,
            backoff_base: Duration::from_millis(500),
            max_wait: config.timeout,
            user_agent: USER_AGENT.to_owned(),
            proxies: true,
            mark: None,
        }
    }

    /// True if a source is a server that this host asks without a proxy.
    pub fn needs_route(&self, urls: &[String]) -> bool {
        let remote = urls.iter().filter(|url| is_remote(url));
        let mut parsed = remote.filter_map(|url| Url::parse(url).ok());
        parsed.any(|url| self.proxy_of(&url).is_none())
    }

    /// The longest time of a fetch from one source: all tries, and the waits between them.
    pub fn longest(&self) -> Duration {
        let retries = if self.retry_silence { self.retries } else { 0 };
        self.timeout * (retries + 1) + self.backoff_base * ((1 << retries) - 1)
    }

    /// The proxy of a URL under these settings.
    pub(super) fn proxy_of(&self, url: &Url) -> Option<Proxy> {
        if self.proxies && self.mark.is_none() {
            Proxy::of(url)
        } else {
            None
        }
    }
}
