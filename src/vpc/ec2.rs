//! The client of EC2's Query API.
//!
//! A call becomes form parameters (`request`), goes through a [`Transport`], and its XML answer
//! becomes values (`decode`) or an [`Ec2Error`] with a class. A call that fails in passing is
//! repeated within a time limit; a call that changes something is repeated only if EC2 has certainly
//! done nothing, or if a second change does no harm.

mod credentials;
mod decode;
mod endpoint;
mod error;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod pace;
mod profile;
mod request;
mod settings;
mod targets;
mod transport;
mod verdict;
mod xml;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use self::decode::DecodeFault;
use self::filter::refuse_open;
use self::http::HttpTransport;
use self::request::{Effect, Request};
use self::transport::AnyTransport;
use self::verdict::{Again, Failure, judge};
use self::xml::Element;
use super::calls::Call;
use super::objects::{Entry, ListId, ListVersion, PrefixList, RouteTable};
use crate::random;

pub use self::endpoint::{EndpointChoice, EndpointFault, region_of_variables};
pub use self::error::{Ec2Error, ErrorKind};
pub use self::filter::{ListFilter, TableFilter};
pub use self::http::forbid_core_dumps;
pub use self::pace::{Backoff, RetryBudget, TokenBucket};
pub use self::settings::Ec2Settings;
pub use self::targets::TargetPlace;
pub use self::transport::{HttpAnswer, Transport, TransportError};

/// The largest number of pages of one answer: a region has at most a few thousand tables, and a list
/// at most 1,000 entries.
const MOST_PAGES: usize = 1_000;

/// The error code of a dry run whose call is allowed.
const DRY_RUN_ALLOWED: &str = "DryRunOperation";

/// The numbers of requests since the start, with repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Requests that only read.
    pub reads: u64,
    /// Requests that change something, and dry runs of such requests.
    pub changes: u64,
    /// Requests after which EC2 asked for fewer requests.
    pub throttled: u64,
}

impl Sent {
    /// The requests since an earlier reading.
    #[must_use]
    pub fn since(self, before: Sent) -> Sent {
        Sent {
            reads: self.reads - before.reads,
            changes: self.changes - before.changes,
            throttled: self.throttled - before.throttled,
        }
    }
}

/// The result of a call that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Performed {
    /// The list as EC2 describes it after the call; `None` for a call about a route or tags.
    pub list: Option<PrefixList>,
}

/// A client of EC2 in one region. A clone shares connections, credentials and the token bucket.
#[derive(Clone)]
pub struct Ec2 {
    shared: Arc<Shared>,
    /// The end of the pass.
    deadline: Option<Instant>,
}

struct Shared {
    transport: Box<dyn AnyTransport>,
    settings: Ec2Settings,
    bucket: Mutex<TokenBucket>,
    /// For reads, and for calls that change something.
    budgets: [Mutex<RetryBudget>; 2],
    started: Instant,
    reads: AtomicU64,
    changes: AtomicU64,
    throttled: AtomicU64,
}

impl fmt::Debug for Ec2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2")
            .field("settings", &self.shared.settings)
            .field("sent", &self.sent())
            .finish_non_exhaustive()
    }
}

impl Ec2 {
    /// A client with AWS's endpoint, the credentials of AWS's chain, and AWS's variables. Sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] for a region or an endpoint that cannot be used.
    pub fn connect(settings: &Ec2Settings) -> Result<Ec2, Ec2Error> {
        let transport = HttpTransport::from_environment(settings).map_err(|fault| {
            Ec2Error::without_answer("EC2", ErrorKind::Other, fault.to_string())
        })?;
        Ok(Ec2::over(transport, settings))
    }

    /// A client over another way to EC2.
    pub fn over(transport: impl Transport, settings: &Ec2Settings) -> Ec2 {
        let bucket = TokenBucket::new(settings.changes_per_second, settings.burst);
        Ec2 {
            shared: Arc::new(Shared {
                transport: Box::new(transport),
                settings: settings.clone(),
                bucket: Mutex::new(bucket),
                budgets: [(); 2].map(|()| Mutex::new(RetryBudget::new(settings.retry_budget))),
                started: Instant::now(),
                reads: AtomicU64::new(0),
                changes: AtomicU64::new(0),
                throttled: AtomicU64::new(0),
            }),
            deadline: None,
        }
    }

    /// The same client for one pass: all its calls together end within the total time of the settings.
    pub fn for_pass(&self) -> Ec2 {
        Ec2 {
            shared: Arc::clone(&self.shared),
            deadline: Some(Instant::now() + self.shared.settings.total),
        }
    }

    /// The numbers of requests so far, of all clones.
    pub fn sent(&self) -> Sent {
        Sent {
            reads: self.shared.reads.load(Ordering::Relaxed),
            changes: self.shared.changes.load(Ordering::Relaxed),
            throttled: self.shared.throttled.load(Ordering::Relaxed),
        }
    }

    /// `DescribeManagedPrefixLists`
    ///
    /// # Errors
    /// [`Ec2Error`]; [`ErrorKind::NotFound`] for an unknown id.
    pub async fn describe_lists(&self, filter: &ListFilter) -> Result<Vec<PrefixList>, Ec2Error> {
        let request = request::describe_lists(filter);
        refuse_open(request.action, filter.is_empty())?;
        let found = self.pages(request, "prefixListSet", decode::prefix_list);
        let matches = |list: &PrefixList| filter.matches(list);
        Ok(found.await?.into_iter().filter(matches).collect())
    }

    /// `GetManagedPrefixListEntries`, of one version. The current version if `version` is `None`, for
    /// AWS's own lists, which have none.
    ///
    /// # Errors
    /// [`Ec2Error`]
    pub async fn list_entries(
        &self,
        list: &ListId,
        version: Option<ListVersion>,
    ) -> Result<Vec<Entry>, Ec2Error> {
        let request = request::list_entries(list, version);
        self.pages(request, "entrySet", decode::entry).await
    }

    /// `GetManagedPrefixListAssociations`: the ids of the resources that refer to the list.
    ///
    /// # Errors
    /// [`Ec2Error`]
    pub async fn list_associations(&self, list: &ListId) -> Result<Vec<String>, Ec2Error> {
        let request = request::list_associations(list);
        let set = "prefixListAssociationSet";
        self.pages(request, set, decode::association).await
    }

    /// `DescribeRouteTables`
    ///
    /// # Errors
    /// [`Ec2Error`]; [`ErrorKind::NotFound`] for an unknown id.
    pub async fn describe_route_tables(
        &self,
        filter: &TableFilter,
    ) -> Result<Vec<RouteTable>, Ec2Error> {
        let request = request::describe_route_tables(filter);
        refuse_open(request.action, filter.is_empty())?;
        let found = self.pages(request, "routeTableSet", decode::route_table);
        let matches = |table: &RouteTable| filter.matches(table);
        Ok(found.await?.into_iter().filter(matches).collect())
    }

    /// Carries out a call that changes something.
    ///
    /// # Errors
    /// [`Ec2Error`]; [`ErrorKind::OutcomeUnknown`] if EC2 may have carried out the call.
    pub async fn perform(&self, call: &Call) -> Result<Performed, Ec2Error> {
        let request = request::change(call);
        let list = self.send(&request, |root| decode::performed(root, request.action));
        Ok(Performed { list: list.await? })
    }

    /// Asks for the permission of a call, without the call (`DryRun`).
    ///
    /// # Errors
    /// [`Ec2Error`]; [`ErrorKind::Denied`] if the permission is missing.
    pub async fn try_run(&self, call: &Call) -> Result<(), Ec2Error> {
        let request = request::dry_run(call);
        let answer = self.send(&request, |_| Err(DecodeFault::NoDryRun));
        match answer.await {
            Err(error) if error.code.as_deref() == Some(DRY_RUN_ALLOWED) => Ok(()),
            other => other,
        }
    }

    /// All items of all pages.
    async fn pages<T>(
        &self,
        first: Request,
        set: &'static str,
        item: impl Fn(&Element) -> Result<T, DecodeFault>,
    ) -> Result<Vec<T>, Ec2Error> {
        let action = first.action;
        let mut items = Vec::new();
        let mut tokens = BTreeSet::new();
        let mut request = first.clone();
        for _ in 0..MOST_PAGES {
            let page = self.send(&request, |root| decode::page(root, action, set, &item));
            let page = page.await?;
            items.extend(page.items);
            let Some(token) = page.next else {
                return Ok(items);
            };
            request = first.page(&token);
            if !tokens.insert(token) {
                break;
            }
        }
        let message = "the pages of the answer have no end: check the endpoint";
        let kind = ErrorKind::Unavailable;
        Err(Ec2Error::without_answer(action, kind, message))
    }

    /// Sends a request, again after failures that pass by.
    async fn send<T>(
        &self,
        request: &Request,
        decode: impl Fn(&Element) -> Result<T, DecodeFault>,
    ) -> Result<T, Ec2Error> {
        let settings = &self.shared.settings;
        let deadline = self
            .deadline
            .unwrap_or_else(|| Instant::now() + settings.total);
        let (mut tries, mut renewed) = (0, false);
        let mut last: Option<Failure> = None;
        loop {
            let sent = match self.wait_for_token(request, deadline).await {
                Ok(()) => self.one_try(request, deadline).await,
                Err(late) => Err(late),
            };
            let outcome = match (sent, last) {
                (Ok(outcome), _) => outcome,
                // The last answer says why there was no time left.
                (Err(_late), Some(failure)) => {
                    return Err(failure.into_final(request.effect, tries));
                }
                (Err(late), None) => return Err(late),
            };
            tries += 1;
            let failure = match judge(request, outcome, Timestamp::now(), &decode) {
                Ok(value) => {
                    self.budget(request).succeeded(tries - 1);
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if failure.error.kind == ErrorKind::Throttled {
                self.shared.throttled.fetch_add(1, Ordering::Relaxed);
            }
            if failure.again == Again::WithNewCredentials && !renewed {
                renewed = true;
                if self.shared.transport.renew_boxed().await {
                    last = Some(failure);
                    continue;
                }
            }
            let wait = settings.backoff.wait(tries, random::fraction());
            let is_late = Instant::now() + wait >= deadline;
            let is_last = tries > settings.retries || is_late;
            if is_last || !failure.allows_retry(request.effect) || !self.budget(request).take() {
                return Err(failure.into_final(request.effect, tries));
            }
            tracing::debug!(
                call = request.action,
                tries,
                wait_ms = wait.as_millis() as u64,
                "call failed, trying again: {}",
                failure.error
            );
            last = Some(failure);
            sleep(wait).await;
        }
    }

    /// One request within the time of a try and of the pass.
    async fn one_try(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Result<HttpAnswer, TransportError>, Ec2Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(request.action));
        }
        let counter = if request.effect.is_mutating_call() {
            &self.shared.changes
        } else {
            &self.shared.reads
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let limit = left.min(self.shared.settings.timeout);
        let sent = self.shared.transport.send_boxed(request.body());
        Ok(timeout(limit, sent).await.unwrap_or_else(|_elapsed| {
            Err(TransportError::Broken(format!(
                "no complete answer within {limit:.1?}: check the route to EC2"
            )))
        }))
    }

    /// Waits for a token of the own bucket, for calls that change something.
    async fn wait_for_token(&self, request: &Request, deadline: Instant) -> Result<(), Ec2Error> {
        if request.effect == Effect::Read {
            return Ok(());
        }
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let since_start = now.saturating_duration_since(self.shared.started);
        let wait = self.take_token(since_start, left);
        match wait {
            Ok(wait) if wait.is_zero() => Ok(()),
            Ok(wait) => {
                sleep(wait).await;
                Ok(())
            }
            Err(_wait) => Err(too_late(request.action)),
        }
    }

    fn budget(&self, request: &Request) -> MutexGuard<'_, RetryBudget> {
        let is_change = request.effect.is_mutating_call();
        let budget = &self.shared.budgets[usize::from(is_change)];
        budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_token(&self, now: Duration, most: Duration) -> Result<Duration, Duration> {
        let bucket = &self.shared.bucket;
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now, most)
    }
}

fn too_late(action: &'static str) -> Ec2Error {
    Ec2Error::without_answer(
        action,
        ErrorKind::Deadline,
        "not sent: the time for this pass is over; the next pass continues",
    )
}

#[cfg(test)]
mod tests;
