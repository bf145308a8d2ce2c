//! Outages of EC2 for an hour of the agent's time: passes with the real client and the real pauses between
//! them, on a clock that jumps over the pauses. The pauses are the shortest possible ones, so that the
//! numbers of requests are upper bounds.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cloud::{Cloud, Delivery, Fault, Identity, Wrong, sample};
use ipnet::IpNet;
use tempfile::TempDir;

use super::retry::Retry;
use crate::config::{Config, parse};
use crate::reconcile::{Options, Outcome, Watched};
use crate::types::Region;
use crate::vpc::apply::Waits;
use crate::vpc::ec2::{Backoff, Ec2, Ec2Settings, HttpAnswer, Transport, TransportError};
use crate::vpc::pass::{PassMemory, pass};
use crate::vpc::report::VpcReport;
use crate::vpc::session::resolved;

const HOUR: Duration = Duration::from_secs(3600);
/// A pass every 30 s at least, with a handful of reads: far below the 20 a second of the account.
const MOST_REQUESTS: usize = 1000;
const BEFORE: [&str; 2] = ["52.216.0.0/15", "54.231.0.0/16"];
const AFTER: [&str; 2] = ["52.216.0.0/15", "3.5.0.0/19"];

/// The double without sockets.
struct InProcess(Cloud);

impl Transport for InProcess {
    async fn send(&self, body: String) -> Result<HttpAnswer, TransportError> {
        let answer = self.0.answer(&body);
        if answer.delivery != Delivery::Whole {
            return Err(TransportError::Broken("the connection ended".to_owned()));
        }
        Ok(HttpAnswer {
            status: answer.status,
            request_id: None,
            date: None,
            body: answer.body.into_bytes(),
        })
    }
}

/// An agent: a client, a memory and the pauses.
struct Scene {
    directory: TempDir,
    cloud: Cloud,
    ec2: Ec2,
    config: Config,
    memory: PassMemory,
    retry: Retry,
    now: Instant,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let text = format!(
            "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
             [guard]\nhold_down = \"0s\"\nmax_loss = \"100%\"\nmax_gain = \"100000%\"\n\
             [vpc_plane]\nregion = \"us-east-1\"\ntables = [\"{}\"]\nfloor = 1\ntarget.ipv4 = \"{}\"\n",
            sample::TABLE,
            sample::IGW
        );
        let region = Region::from("us-east-1");
        let mut settings = Ec2Settings::new(region.clone());
        settings.backoff = Backoff {
            base: Duration::from_micros(10),
            cap: Duration::from_micros(100),
        };
        // The own bucket is another test's.
        settings.changes_per_second = 1e6;
        let cloud = sample::account();
        let wait = Duration::from_millis(1);
        Scene {
            ec2: Ec2::over(InProcess(cloud.clone()), &settings),
            config: resolved(&parse(&text, "test").unwrap(), &region),
            memory: PassMemory {
                waits: Waits {
                    first_look: wait,
                    longest_look: wait,
                    read_again: wait,
                    ..Waits::default()
                },
                ..PassMemory::default()
            },
            retry: Retry::default(),
            now: Instant::now(),
            directory,
            cloud,
        }
    }

    fn publish(&self, token: u64, prefixes: &[&str]) {
        let rows = prefixes.iter().map(|prefix| {
            format!(
                "{{\"ip_prefix\": \"{prefix}\", \"region\": \"us-east-1\", \"service\": \"S3\"}}"
            )
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        let text = format!(
            "{{\"syncToken\": \"{token}\", \"createDate\": \"2023-11-14-22-13-20\", \"prefixes\": \
             [{rows}], \"ipv6_prefixes\": []}}"
        );
        std::fs::write(self.directory.path().join("ip-ranges.json"), text).unwrap();
    }

    /// A pass, and the pause after it.
    fn pass(&mut self) -> VpcReport {
        let options = Options {
            watched: Some(Watched::default()),
            sync: false,
            ..Options::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let running = pass(&self.ec2, &self.config, &options, &mut self.memory);
        let report = runtime.block_on(running);
        self.retry.after(&report, self.now, 0.0);
        if let Some(next) = self.retry.at {
            self.now = next;
        }
        report
    }

    fn entries(&self) -> BTreeSet<IpNet> {
        let lists = self.cloud.lists_named("trailblazer-s3-ipv4");
        assert_eq!(lists.len(), 1, "{lists:?}");
        self.cloud.prefixes(&lists[0])
    }
}

fn set(prefixes: &[&str]) -> BTreeSet<IpNet> {
    prefixes.iter().map(|it| it.parse().unwrap()).collect()
}

/// An hour of an outage, with a new document at its begin. `word` names the outage in each error.
fn hour(name: &str, word: &str, begin: impl FnOnce(&Cloud), end: impl FnOnce(&Cloud)) {
    let mut scene = Scene::new();
    scene.publish(1_700_000_000, &BEFORE);
    assert_eq!(scene.pass().outcome, Outcome::Changed);
    let addresses = BEFORE.map(|it| it.parse::<IpNet>().unwrap().addr());
    scene.cloud.watch(sample::TABLE, addresses, sample::IGW);
    scene.publish(1_700_000_060, &AFTER);
    begin(&scene.cloud);
    let (start, first) = (scene.now, scene.cloud.next_call());
    let mut passes = 0;
    while scene.now < start + HOUR {
        let report = scene.pass();
        assert_eq!(report.outcome, Outcome::Failed, "{name}: {report:?}");
        let error = report.error.unwrap();
        assert!(error.contains(word), "{name}: {word}: {error}");
        passes += 1;
    }
    let requests = scene.cloud.next_call() - first;
    println!("{name}: {passes} passes, {requests} requests in an hour");
    assert!(requests <= MOST_REQUESTS, "{name}: {requests}");
    assert!(requests >= passes, "{name}");
    assert_eq!(scene.entries(), set(&BEFORE), "{name}");
    assert!(
        scene.cloud.strayed().is_empty(),
        "{name}: {:?}",
        scene.cloud.strayed()
    );
    // The next pass comes within a minute, and needs no other one.
    assert!(
        scene.now <= start + HOUR + Duration::from_secs(60),
        "{name}"
    );
    end(&scene.cloud);
    let report = scene.pass();
    assert_eq!(report.outcome, Outcome::Changed, "{name}: {report:?}");
    assert_eq!(
        (scene.retry.at, scene.entries()),
        (None, set(&AFTER)),
        "{name}"
    );
    assert_eq!(scene.cloud.violations(), Vec::<String>::new(), "{name}");
}

/// Each call goes wrong, or each that changes something.
fn always(cloud: &Cloud, wrong: Wrong, changes_only: bool) {
    cloud.before_call(move |cloud, index, request| {
        let is_read = ["Describe", "Get"]
            .iter()
            .any(|it| request.action.starts_with(it));
        if !(changes_only && is_read) {
            cloud.fail(index, Fault::before(wrong.clone()));
        }
    });
}

fn never(cloud: &Cloud) {
    cloud.before_call(|_, _, _| {});
}

#[test]
fn throttling_for_an_hour_costs_few_requests_and_nothing_else() {
    let word = "RequestLimitExceeded";
    for changes_only in [false, true] {
        let name = format!("throttled, changes only {changes_only}");
        hour(
            &name,
            word,
            |cloud| always(cloud, Wrong::Throttled, changes_only),
            never,
        );
    }
}

#[test]
fn answers_that_are_no_answers_for_an_hour_lose_nothing() {
    for (wrong, word) in [
        (Wrong::Unavailable, "Unavailable"),
        (Wrong::Html(503), "503"),
        (Wrong::Html(200), "<html>"),
        (Wrong::Truncated, "breaks off"),
    ] {
        let name = format!("{wrong:?}");
        hour(&name, word, |cloud| always(cloud, wrong, false), never);
    }
}

#[test]
fn credentials_that_are_expired_for_an_hour_lose_nothing() {
    let identified = |identity| move |cloud: &Cloud| cloud.configure(|it| it.identity = identity);
    let (begin, end) = (identified(Identity::Expired), identified(Identity::Valid));
    hour("expired", "the credentials have expired", begin, end);
}
