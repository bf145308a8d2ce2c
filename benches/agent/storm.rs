//! Everything around the agent changes as fast as possible: the cost, and no loss of our objects.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use trailblazer::kernel::events::{Change, Listener};
use trailblazer::kernel::route::{self, Write};
use trailblazer::objects::{Route, RouteKey, RouteTarget};
use trailblazer::status::snapshot::State;
use trailblazer::types::{Metric, Protocol, Realm, TableId};

use super::arena::{self, GATEWAY4, GATEWAY6};
use super::bounds::Bounds;
use super::daemon::Daemon;
use super::host::{BYPASS, Host};
use super::raw::{self, Packed};
use super::samples::{Samples, milliseconds};
use super::{MANY, Mode, Res, documents, wire};

/// Foreign tables: one number that fits the message's byte, and one that does not.
const TABLES: [TableId; 2] = [TableId(200), TableId(5000)];
/// Changes of foreign routes a second.
const CHANGES: u64 = 10_000;
/// So many are sent at once: a few milliseconds' worth.
const BATCH: u64 = 50;
/// Flaps of a link a second.
const FLAPS: u32 = 10;
/// The interval between deletions of our routes.
const DELETION: Duration = Duration::from_millis(100);
/// Until the agent has settled.
const SETTLING: Duration = Duration::from_secs(3);
/// The largest share of one core.
const MOST: f64 = 0.1;

/// Measures with a foreign link that flaps, and with ours.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let long = match mode {
        Mode::Quick => Duration::from_secs(8),
        _ => Duration::from_secs(20),
    };
    println!(
        "storm: {CHANGES} foreign route changes and {FLAPS} flaps of a link a second, {MANY} routes:"
    );
    for (name, link) in [("a foreign link", "flap0"), ("our own link", "eth0")] {
        one(name, link, long, bounds)?;
    }
    Ok(())
}

fn one(name: &str, link: &str, long: Duration, bounds: &mut Bounds) -> Res<()> {
    let document = documents::document(1_700_000_000, &documents::prefixes(MANY));
    let host = Host::new(&format!("storm-{link}"), MANY, document)?;
    // Without this sysctl IPv6 addresses vanish with the link until restored by another program.
    std::fs::write("/proc/sys/net/ipv6/conf/all/keep_addr_on_down", "1")?;
    arena::ip_batch(
        "link add flap0 type veth peer name flap1\n\
         addr add 192.0.2.1/24 dev flap0\n\
         link set flap1 up\n\
         link set flap0 up\n",
    )?;
    let daemon = host.start()?;
    daemon.ready()?;
    daemon.quiet()?;
    let routes = host.routes()?;
    let stop = AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    let (cpu, took, mended) = thread::scope(|scope| {
        let foreign = scope.spawn(|| change_foreign_routes(&stop, &changes).map_err(said));
        let links = scope.spawn(|| flap(link, &stop).map_err(said));
        let measured = during(&daemon, &routes, link == "eth0", long);
        stop.store(true, Ordering::Relaxed);
        for thread in [foreign, links] {
            thread.join().map_err(|_panic| "a thread panicked")??;
        }
        measured
    })?;
    let back = until_correct(&host, &daemon, &routes)?;
    let status = daemon.status()?;
    println!(
        "  {name}: {:.1} % of a core, {:.0} foreign changes a second; {} overruns, {} passes; \
         correct {back:.1} s after the end{}",
        cpu / took * 100.0,
        changes.load(Ordering::Relaxed) as f64 / (took + SETTLING.as_secs_f64()),
        status.drift.overruns,
        status.pass_totals.duration.count,
        if mended.0.is_empty() {
            String::new()
        } else {
            format!(
                "; {} deletions meanwhile repaired after {:.2} ms (p99 {:.1})",
                mended.0.len(),
                mended.median(),
                mended.quantile(0.99)
            )
        }
    );
    bounds.add(
        cpu / took < MOST,
        format!("storm, {name} flaps: processor time"),
        format!("{:.1} % of a core, under 10 %", cpu / took * 100.0),
    );
    bounds.add(
        true,
        format!("storm, {name} flaps: ours is correct in the end"),
        format!("all {MANY} routes, {back:.1} s after it"),
    );
    Ok(())
}

fn said(error: Box<dyn std::error::Error>) -> String {
    error.to_string()
}

/// Processor seconds of the agent, elapsed seconds, and the time of each repair.
fn during(
    daemon: &Daemon,
    routes: &[Route],
    all_gone: bool,
    long: Duration,
) -> Res<(f64, f64, Samples)> {
    thread::sleep(SETTLING);
    let (before, started) = (daemon.cpu()?, Instant::now());
    let mut mended = Samples::default();
    if all_gone {
        // With our link down there is nothing to delete.
        thread::sleep(long);
    } else {
        let socket = raw::socket()?;
        let heard = listen()?;
        for route in routes.iter().step_by(37) {
            if started.elapsed() >= long {
                break;
            }
            thread::sleep(DELETION);
            let deleted = Instant::now();
            wire::send(&socket, &wire::message(Write::Delete, route))?;
            loop {
                let (back, at) = heard
                    .recv_timeout(Duration::from_secs(30))
                    .map_err(|_late| format!("{} isn't back", route.key.dst))?;
                if back.key == route.key {
                    mended.0.push(milliseconds(at - deleted));
                    break;
                }
            }
        }
    }
    Ok((
        daemon.cpu()? - before,
        started.elapsed().as_secs_f64(),
        mended,
    ))
}

/// Routes added to our table, received in a background thread.
fn listen() -> Res<Receiver<(Route, Instant)>> {
    let mut listener = Listener::open(1 << 20)?;
    listener.filter(&[BYPASS])?;
    let (to, heard) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(heard) = listener.wait(None).and_then(|()| listener.read(128)) {
            let now = Instant::now();
            for event in heard.events {
                if let Change::RouteCame(route) = event.change
                    && to.send((route, now)).is_err()
                {
                    return;
                }
            }
        }
    });
    Ok(heard)
}

/// Adds and removes routes of somebody else's until told to stop.
fn change_foreign_routes(stop: &AtomicBool, changes: &AtomicU64) -> Res<()> {
    let socket = raw::socket()?;
    let pause = Duration::from_secs_f64(BATCH as f64 / CHANGES as f64);
    let mut next = Instant::now();
    for round in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let table = TABLES[round as usize % TABLES.len()];
        let mut messages = Packed::default();
        for write in [Write::Add, Write::Delete] {
            for number in 0..BATCH as u32 / 2 {
                let route = foreign_route(table, number);
                messages.push(|buffer| route::encode(write, &route, buffer));
            }
        }
        messages.send(&socket)?;
        changes.fetch_add(BATCH, Ordering::Relaxed);
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn foreign_route(table: TableId, number: u32) -> Route {
    let bits = (60 << 24) + (number << 8);
    Route {
        key: RouteKey {
            table,
            dst: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), 24)),
            tos: 0,
            metric: Metric(0),
        },
        // A route without a device survives every flap.
        target: RouteTarget::Unreachable,
        realm: Realm(0),
        options: None,
        protocol: Protocol(4),
    }
}

/// Takes a link down and up again until told to stop, and brings the defaults back as a DHCP
/// client and a router's advertisement do.
fn flap(link: &str, stop: &AtomicBool) -> Res<()> {
    let mut ip = Ip::start()?;
    let half = Duration::from_secs(1) / FLAPS / 2;
    while !stop.load(Ordering::Relaxed) {
        ip.feed(&format!("link set {link} down\n"))?;
        thread::sleep(half);
        ip.feed(&format!("link set {link} up\n"))?;
        if link == "eth0" {
            ip.feed(&format!(
                "route replace default via {GATEWAY4} dev eth0\n\
                 route replace default via {GATEWAY6} dev eth0\n"
            ))?;
        }
        thread::sleep(half);
    }
    ip.end()
}

/// One `ip` process that reads commands line by line: a process for each command would be half of
/// the load.
struct Ip {
    child: Child,
    stdin: ChildStdin,
}

impl Ip {
    fn start() -> Res<Ip> {
        let mut child = Command::new("ip")
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no standard input")?;
        Ok(Ip { child, stdin })
    }

    fn feed(&mut self, lines: &str) -> Res<()> {
        self.stdin.write_all(lines.as_bytes())?;
        Ok(self.stdin.flush()?)
    }

    fn end(self) -> Res<()> {
        let Ip { mut child, stdin } = self;
        drop(stdin);
        child.wait()?;
        Ok(())
    }
}

/// Waits until exactly the earlier routes are present and the agent reports them in force; returns
/// the seconds.
fn until_correct(host: &Host, daemon: &Daemon, routes: &[Route]) -> Res<f64> {
    let started = Instant::now();
    let wanted: std::collections::BTreeSet<&Route> = routes.iter().collect();
    loop {
        let found = host.routes()?;
        let state = daemon.status()?.state;
        if state == State::InForce
            && found.iter().collect::<std::collections::BTreeSet<_>>() == wanted
        {
            return Ok(started.elapsed().as_secs_f64());
        }
        if started.elapsed() > Duration::from_secs(90) {
            return Err(format!(
                "{} of {} routes, {state:?}; its log:\n{}",
                found.len(),
                wanted.len(),
                daemon.log()
            )
            .into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
