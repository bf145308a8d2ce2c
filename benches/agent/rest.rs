//! An idle agent: wake-ups and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::daemon::{Daemon, sleeps};
use super::host::Host;
use super::web::Web;
use super::{Mode, REGION, Res, documents};

/// About all of AWS.
const ALL: usize = 11_000;
/// Passes before the rest, since passes leave memory behind.
const KICKS: usize = 10;
/// Idle threads have ended by then (tokio's after 10 s).
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// How often the counters are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Sleeps within this time count as one wake-up: a timer, and all threads that the timer wakes.
const TOGETHER: Duration = Duration::from_secs(2);

/// Idle agents, watched during other measurements, which do not concern them.
pub struct Rest {
    subjects: Vec<Subject>,
    until: Instant,
}

struct Subject {
    label: &'static str,
    most_mib: f64,
    daemon: Daemon,
    _host: Host,
    ended: Arc<AtomicBool>,
    watch: JoinHandle<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    minutes: f64,
    sleeps: f64,
    wakes: f64,
    fetches: usize,
}

impl Rest {
    /// Starts the agents, lets each fetch over TLS and run some passes, and leaves them idle.
    pub fn begin(mode: Mode) -> Res<Rest> {
        let mut subjects = Vec::new();
        for (name, label, size, most_mib) in [
            ("region", "one region's S3", REGION, 16.0),
            ("all", "all of AWS (11,000 prefixes)", ALL, 32.0),
        ] {
            subjects.push(Subject::begin(name, label, size, most_mib)?);
        }
        let long = match mode {
            Mode::Quick => Duration::from_secs(120),
            _ => Duration::from_secs(1200),
        };
        Ok(Rest {
            subjects,
            until: Instant::now() + SETTLED_AFTER + long,
        })
    }

    /// Reads the figures after enough rest.
    pub fn end(self, bounds: &mut Bounds) -> Res<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        eprintln!("agents at rest: {} s more", left.as_secs());
        thread::sleep(left);
        println!("at rest, after a fetch over TLS and {KICKS} passes:");
        for subject in self.subjects {
            subject.end(bounds)?;
        }
        Ok(())
    }
}

impl Subject {
    fn begin(name: &str, label: &'static str, size: usize, most_mib: f64) -> Res<Subject> {
        let document = |token| documents::large_document(token, size);
        let name = format!("rest-{name}");
        let mut host = Host::new(&name, size, document(1_700_000_000))?;
        let web = Web::start(&name, document(1_700_000_001))?;
        host.source(&web.url())?;
        host.variable("SSL_CERT_FILE", web.authorities());
        let daemon = host.start()?;
        daemon.ready()?;
        daemon.wait_for("another document in force", |status| {
            status.source.fetches.get("changed") == Some(&1)
        })?;
        for kick in 1..=KICKS {
            daemon.kick()?;
            daemon.wait_for("a pass", |status| {
                let kicks = status.pass_totals.duration.count;
                kicks > kick as u64
            })?;
        }
        // A kick asks the source too, but not at once.
        daemon.wait_for("a second fetch", |status| {
            status.source.fetches.contains_key("unchanged")
        })?;
        let ended = Arc::new(AtomicBool::new(false));
        let (pid, until) = (daemon.pid(), Arc::clone(&ended));
        let watch = thread::spawn(move || watch(pid, &web, &until));
        Ok(Subject {
            label,
            most_mib,
            daemon,
            _host: host,
            ended,
            watch,
        })
    }

    fn end(self, bounds: &mut Bounds) -> Res<()> {
        self.ended.store(true, Ordering::Relaxed);
        let watched = self.watch.join().map_err(|_panic| "the watch panicked")?;
        let status = self.daemon.status()?;
        if status.routes.ipv4 + status.routes.ipv6 == 0 {
            return Err(format!("nothing in force; its log:\n{}", self.daemon.log()).into());
        }
        let [resident, anonymous, peak] =
            ["VmRSS", "RssAnon", "VmHWM"].map(|name| self.daemon.memory(name));
        let (resident, anonymous, peak) = (resident?, anonymous?, peak?);
        let a_minute = watched.wakes / watched.minutes;
        let label = self.label;
        println!(
            "  {label}: {resident:.1} MiB resident ({anonymous:.1} of its own, peak {peak:.1}), {} threads, \
             {} files; {:.0} wake-ups and {:.0} voluntary context switches in {:.1} minutes, {} fetches among them",
            self.daemon.threads()?,
            self.daemon.files()?,
            watched.wakes,
            watched.sleeps,
            watched.minutes,
            watched.fetches,
        );
        bounds.add(
            a_minute < 2.0,
            format!("at rest, {label}: wake-ups"),
            format!("{a_minute:.2} a minute, under 2"),
        );
        bounds.add(
            resident < self.most_mib,
            format!("at rest, {label}: resident memory"),
            format!("{resident:.1} MiB, under {} MiB", self.most_mib),
        );
        Ok(())
    }
}

fn watch(pid: u32, web: &Web, ended: &AtomicBool) -> Watched {
    thread::sleep(SETTLED_AFTER);
    let asked = web.asked();
    let started = Instant::now();
    let first = sleeps(pid).unwrap_or(f64::NAN);
    let (mut before, mut last, mut wakes) = (first, None::<Instant>, 0.0);
    loop {
        thread::sleep(LOOK);
        let now = sleeps(pid).unwrap_or(f64::NAN);
        if now != before {
            if last.is_none_or(|last| last.elapsed() > TOGETHER) {
                wakes += 1.0;
            }
            (before, last) = (now, Some(Instant::now()));
        }
        if ended.load(Ordering::Relaxed) {
            return Watched {
                minutes: started.elapsed().as_secs_f64() / 60.0,
                sleeps: now - first,
                wakes,
                fetches: web.asked() - asked,
            };
        }
    }
}
