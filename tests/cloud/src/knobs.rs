//! The settings of a double: quotas, delays, faults, permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::answer::ApiError;

/// The settings that hold until they change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region.
    pub region: String,
    /// `aws`, `aws-cn` or `aws-us-gov`: the second part of each ARN.
    pub partition: String,
    /// The account of the caller.
    pub account: String,
    /// The routes of a table, for each family. AWS's default is 500.
    pub routes_per_table: usize,
    /// The customer-managed lists of the region. AWS's default is 100.
    pub lists: usize,
    /// The versions of a list that are kept; an older one goes. AWS's default is 1,000.
    pub versions: usize,
    /// The most members of a page, whatever `MaxResults` says: an answer may hold fewer than asked.
    pub page: usize,
    /// The number of reads during which a changed list stays `…-in-progress`.
    pub progress_reads: usize,
    /// The number of calls by which reads lag behind writes. A list that was created in these
    /// calls doesn't exist for any call that names it.
    pub lag: usize,
    /// True if an added entry with a known CIDR and another description changes the description;
    /// false if EC2 refuses the entry. The reference says neither.
    pub redescribe: bool,
    /// True if filters work that EC2 takes although the reference doesn't list them: tags of
    /// prefix lists.
    pub unlisted_filters: bool,
    /// True if answers have elements of a later version of EC2.
    pub unknown_elements: bool,
    /// The state of the caller's credentials.
    pub identity: Identity,
    /// The actions that the caller's policies don't allow.
    pub denied: BTreeSet<String>,
    /// The token buckets; none by default.
    pub buckets: Option<Buckets>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
            account: "123456789012".to_owned(),
            routes_per_table: 500,
            lists: 100,
            versions: 1000,
            page: 100,
            progress_reads: 0,
            lag: 0,
            redescribe: false,
            unlisted_filters: true,
            unknown_elements: false,
            identity: Identity::Valid,
            denied: BTreeSet::new(),
            buckets: None,
        }
    }
}

/// The state of the caller's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// The credentials are good.
    #[default]
    Valid,
    /// A session has ended: `RequestExpired`.
    Expired,
    /// The client's clock is behind by more than five minutes: `RequestExpired`, with both times.
    ClockBehind,
    /// The client's clock is ahead by more than five minutes: `SignatureDoesNotMatch`.
    ClockAhead,
    /// The access key is unknown, or the secret is wrong: `AuthFailure`.
    Unknown,
    /// The account hasn't switched the region on: `OptInRequired`.
    OtherRegion,
}

impl Identity {
    /// The errors of credentials. The codes are of the reference; the texts follow AWS's own.
    pub(crate) fn check(self) -> Result<(), ApiError> {
        let (code, text) = match self {
            Identity::Valid => return Ok(()),
            Identity::Expired => ("RequestExpired", "Request has expired."),
            Identity::ClockBehind => (
                "RequestExpired",
                "Request has expired. Timestamp date is 2020-01-01T00:00:00Z. Current date is \
                 2020-01-01T00:10:00Z",
            ),
            Identity::ClockAhead => (
                "SignatureDoesNotMatch",
                "Signature not yet current: 20200101T001000Z is still later than 20200101T000500Z \
                 (20200101T000000Z + 5 min.)",
            ),
            Identity::Unknown => (
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
            ),
            Identity::OtherRegion => (
                "OptInRequired",
                "You are not subscribed to this service. Please go to http://aws.amazon.com to \
                 subscribe.",
            ),
        };
        Err(ApiError::new(code, text))
    }
}

/// Sizes and rates of the token buckets, one bucket for each action ("Request throttling for the
/// Amazon EC2 API").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Buckets {
    /// An action that reads: size, and tokens a second.
    pub read: (f64, f64),
    /// An action that reads without a filter, an id or a page size.
    pub unfiltered: (f64, f64),
    /// An action that changes something.
    pub write: (f64, f64),
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets {
            read: (100.0, 20.0),
            unfiltered: (50.0, 10.0),
            write: (50.0, 5.0),
        }
    }
}

/// A fault of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// True if the call has its effect, and only its answer is wrong.
    pub after_effect: bool,
    /// The answer.
    pub wrong: Wrong,
}

/// A wrong answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// 503 with EC2's error `Unavailable`.
    Unavailable,
    /// 500 with EC2's error `InternalError`.
    Internal,
    /// 503 with EC2's error `RequestLimitExceeded`.
    Throttled,
    /// Another of EC2's errors: its code.
    Code(String),
    /// An HTML page with this status.
    Html(u16),
    /// A status without a body.
    Empty(u16),
    /// Half of the right answer, whole for HTTP.
    Truncated,
    /// Half of the right answer, then the end of the connection.
    Half,
    /// The end of the connection.
    Dropped,
    /// Silence.
    Hangs,
    /// The right answer after a pause.
    Slow(Duration),
}

impl Fault {
    /// A fault before the effect: the call did nothing.
    pub fn before(wrong: Wrong) -> Fault {
        Fault {
            after_effect: false,
            wrong,
        }
    }

    /// A fault after the effect: the call did its work.
    pub fn after(wrong: Wrong) -> Fault {
        Fault {
            after_effect: true,
            wrong,
        }
    }
}

/// The levels of the token buckets.
#[derive(Debug, Default)]
pub(crate) struct Levels(BTreeMap<(String, bool), (f64, Duration)>);

impl Levels {
    /// Takes a token; false if the bucket is empty.
    pub(crate) fn take(
        &mut self,
        buckets: &Buckets,
        action: &str,
        mutating: bool,
        unfiltered: bool,
        now: Duration,
    ) -> bool {
        let (size, rate) = match (mutating, unfiltered) {
            (true, _) => buckets.write,
            (false, true) => buckets.unfiltered,
            (false, false) => buckets.read,
        };
        let level = self.0.entry((action.to_owned(), unfiltered));
        let (tokens, since) = level.or_insert((size, now));
        let elapsed = now.saturating_sub(*since).as_secs_f64();
        *tokens = (*tokens + elapsed * rate).min(size);
        *since = now;
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}
