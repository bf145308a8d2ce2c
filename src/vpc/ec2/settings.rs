//! The settings of the client.

use std::fmt;
use std::time::Duration;

use super::endpoint::EndpointChoice;
use super::pace::Backoff;
use crate::types::Region;

/// The settings of the client. The defaults of [`Ec2Settings::new`] suit a pass of a few calls beside
/// the account's other users.
#[derive(Clone, PartialEq)]
pub struct Ec2Settings {
    pub region: Region,
    /// A choice in the configuration; AWS's variables count if this has no URL.
    pub endpoint: EndpointChoice,
    /// For one try: name lookup, connect, TLS and body together.
    pub timeout: Duration,
    /// For the connect part of a try.
    pub connect_timeout: Duration,
    /// For a call with all tries and waits, and for a pass of [`Ec2::for_pass`](super::Ec2::for_pass).
    pub total: Duration,
    /// Tries after the first, for failures that pass by.
    pub retries: u32,
    /// Such tries of all calls together, until calls succeed: for reads, and for calls that change
    /// something.
    pub retry_budget: u32,
    /// The waits between tries.
    pub backoff: Backoff,
    /// The rate of calls that change something.
    pub changes_per_second: f64,
    /// The number of such calls without a wait.
    pub burst: u32,
    /// Honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub proxies: bool,
    /// The largest body of an answer, in bytes.
    pub max_bytes: u64,
}

impl Ec2Settings {
    /// Settings with the defaults:
    ///
    /// - 30 s for a try: EC2 answers in about 300 ms, and a list with 1,000 entries in a few seconds;
    /// - 5 s to connect: two lost SYNs are survived (1 s and 3 s, `TCP_TIMEOUT_INIT`);
    /// - 120 s in total: the first installation of all regions' storage takes seven changes and fits;
    /// - 8 retries with waits up to 20 s, so that the total limits the tries, not the number;
    /// - 32 retries of all calls together until calls succeed: four calls with all of theirs;
    /// - 2 changes a second: EC2's bucket for all users of an account refills with 5 a second;
    /// - 16 MiB of body: a page has at most 100 tables of at most 1,000 routes.
    pub fn new(region: Region) -> Ec2Settings {
        Ec2Settings {
            region,
            endpoint: EndpointChoice::default(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            total: Duration::from_secs(120),
            retries: 8,
            retry_budget: 32,
            backoff: Backoff {
                base: Duration::from_millis(500),
                cap: Duration::from_secs(20),
            },
            changes_per_second: 2.0,
            burst: 4,
            proxies: true,
            max_bytes: 16 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for Ec2Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An endpoint's URL may hold a password until it is refused.
        f.debug_struct("Ec2Settings")
            .field("region", &self.region)
            .field("has_own_endpoint", &self.endpoint.url.is_some())
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
