//! Idle agents: wake-ups, processor time and memory, with and without probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::arena::{GATEWAY4, command};
use super::bounds::Bounds;
use super::daemon::{Daemon, processor_time, sleeps};
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
/// The bound of an agent that probes: two context switches a second. Readings of the counters each
/// 750 ms are 80 a minute, and answers to probes by three ways 18.
const MOST_SWITCHES: f64 = 120.0;
/// The bound of its share of a core, in percent.
const MOST_PERCENT: f64 = 0.1;
/// The gateways, and the servers of probes: of the gateways' list, then of the bypass path.
const GATEWAYS: [&str; 2] = ["10.0.1.10", "10.0.1.20"];
/// As above.
const SERVERS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"];

/// Idle agents, watched during other measurements, which do not concern them.
pub struct Rest {
    subjects: Vec<Subject>,
    until: Instant,
}

/// The role and the probes of an agent under measurement.
#[derive(Debug, Clone, Copy)]
struct Task {
    name: &'static str,
    label: &'static str,
    /// The selected prefixes.
    size: usize,
    most_mib: f64,
    /// Two gateways and the bypass path are probed, and answer.
    probes: bool,
}

const TASKS: [Task; 3] = [
    Task {
        name: "region",
        label: "one region's S3",
        size: REGION,
        most_mib: 16.0,
        probes: false,
    },
    Task {
        name: "all",
        label: "all of AWS (11,000 prefixes)",
        size: ALL,
        most_mib: 32.0,
        probes: false,
    },
    Task {
        name: "probes",
        label: "one region's S3, with probes",
        size: REGION,
        most_mib: 16.0,
        probes: true,
    },
];

struct Subject {
    task: Task,
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
    /// Seconds.
    processor: f64,
    fetches: usize,
}

impl Rest {
    /// Starts the agents, lets each fetch over TLS and run some passes, and leaves them idle.
    pub fn begin(mode: Mode) -> Res<Rest> {
        let mut subjects = Vec::new();
        for task in TASKS {
            subjects.push(Subject::begin(task)?);
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
    fn begin(task: Task) -> Res<Subject> {
        let document = |token| documents::large_document(token, task.size);
        let name = format!("rest-{}", task.name);
        let mut host = Host::new(&name, task.size, document(1_700_000_000))?;
        if task.probes {
            answer_probes(&host, &format!("{name}-far"))?;
        } else {
            host.settings("[vpc]", "[probe]\nenabled = false\n[vpc]")?;
        }
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
            task,
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
        let Task {
            label,
            most_mib,
            probes,
            ..
        } = self.task;
        println!(
            "  {label}: {resident:.1} MiB resident ({anonymous:.1} of its own, peak {peak:.1}), {} threads, \
             {} files; {:.0} wake-ups, {:.0} voluntary context switches and {:.0} ms of processor time in {:.1} \
             minutes, {} fetches among them",
            self.daemon.threads()?,
            self.daemon.files()?,
            watched.wakes,
            watched.sleeps,
            watched.processor * 1e3,
            watched.minutes,
            watched.fetches,
        );
        if probes {
            let probed = status.gateways.iter().filter_map(|it| it.health.as_ref());
            if probed.filter(|health| health.state == "up").count() != GATEWAYS.len() + 1 {
                return Err(format!("not all ways are up: {:#?}", status.gateways).into());
            }
            watched.add_bounds_with_probes(label, bounds);
        } else {
            let a_minute = watched.wakes / watched.minutes;
            bounds.add(
                a_minute < 2.0,
                format!("at rest, {label}: wake-ups"),
                format!("{a_minute:.2} a minute, under 2"),
            );
        }
        bounds.add(
            resident < most_mib,
            format!("at rest, {label}: resident memory"),
            format!("{resident:.1} MiB, under {most_mib} MiB"),
        );
        Ok(())
    }
}

impl Watched {
    fn add_bounds_with_probes(&self, label: &str, bounds: &mut Bounds) {
        let switches = self.sleeps / self.minutes;
        bounds.add(
            switches < MOST_SWITCHES,
            format!("at rest, {label}: voluntary context switches"),
            format!("{switches:.0} a minute, under {MOST_SWITCHES}"),
        );
        let percent = self.processor / (self.minutes * 60.0) * 100.0;
        bounds.add(
            percent < MOST_PERCENT,
            format!("at rest, {label}: processor time"),
            format!("{percent:.3} % of a core, under {MOST_PERCENT} %"),
        );
    }
}

/// Puts the gateways and the servers into a namespace behind the host's link, and lets the host probe them.
fn answer_probes(host: &Host, far: &str) -> Res<()> {
    command("ip", &["netns", "add", far])?;
    command("ip", &["link", "set", "far0", "netns", far])?;
    let there = |arguments: &[&str]| command("ip", &[&["-n", far], arguments].concat());
    for link in ["lo", "far0"] {
        there(&["link", "set", link, "up"])?;
    }
    for address in GATEWAYS.into_iter().chain([GATEWAY4]) {
        there(&["addr", "add", &format!("{address}/24"), "dev", "far0"])?;
    }
    for address in SERVERS {
        there(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    let gateways = GATEWAYS.map(|it| format!("\"{it}\"")).join(", ");
    host.settings(
        "gateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]",
        &format!("gateways = [{gateways}]"),
    )?;
    // Nobody listens there: a refused connection is an answer.
    let [servers @ .., storage] = SERVERS.map(|it| format!("\"{it}:443\""));
    let targets = servers.join(", ");
    host.settings(
        "[vpc]",
        &format!("[probe]\ntargets = [{targets}]\nbypass_targets = [{storage}]\n[vpc]"),
    )
}

fn watch(pid: u32, web: &Web, ended: &AtomicBool) -> Watched {
    thread::sleep(SETTLED_AFTER);
    let asked = web.asked();
    let started = Instant::now();
    let worked = || processor_time(pid).unwrap_or(f64::NAN);
    let (first, worked_first) = (sleeps(pid).unwrap_or(f64::NAN), worked());
    let (mut before, mut begun, mut wakes) = (first, None::<Instant>, 0.0);
    loop {
        thread::sleep(LOOK);
        let now = sleeps(pid).unwrap_or(f64::NAN);
        if now != before {
            if begun.is_none_or(|begun| begun.elapsed() > TOGETHER) {
                wakes += 1.0;
                begun = Some(Instant::now());
            }
            before = now;
        }
        if ended.load(Ordering::Relaxed) {
            return Watched {
                minutes: started.elapsed().as_secs_f64() / 60.0,
                sleeps: now - first,
                wakes,
                processor: worked() - worked_first,
                fetches: web.asked() - asked,
            };
        }
    }
}
