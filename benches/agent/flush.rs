//! A whole table is flushed: the time until everything is restored, compared with a first
//! installation.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use trailblazer::kernel::Kernel;
use trailblazer::kernel::lookup::{Lookup, RouteDecision, lookup};
use trailblazer::kernel::route::{self, Write};
use trailblazer::objects::Route;

use super::bounds::Bounds;
use super::host::{BYPASS, Host};
use super::raw::{self, Packed};
use super::samples::{Samples, milliseconds};
use super::{MANY, Mode, Res, arena, documents};

/// The polling interval.
const LOOK: Duration = Duration::from_micros(500);
const LOST_AFTER: Duration = Duration::from_secs(30);

/// Measures `ip route flush`, and the fastest flush there is.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let rounds = if mode == Mode::Quick { 3 } else { 11 };
    let host = Host::new(
        "flush",
        MANY,
        documents::document(1_700_000_000, &documents::prefixes(MANY)),
    )?;
    let [mut first, mut by_ip, mut packed] = <[Samples; 3]>::default();
    for _ in 0..rounds {
        let daemon = host.start()?;
        first.0.push(daemon.ready()?);
        daemon.quiet()?;
        let routes = host.routes()?;
        for (samples, flush) in [
            (&mut by_ip, flush_by_ip as fn(&[Route]) -> Res<()>),
            (&mut packed, flush_packed),
        ] {
            flush(&routes)?;
            samples.0.push(until_all_are_back(&routes)?);
            daemon.quiet()?;
            if host.routes()?.len() != MANY {
                return Err(
                    format!("routes are missing in the end; its log:\n{}", daemon.log()).into(),
                );
            }
        }
        drop(daemon);
        host.subject.remove()?;
        arena::settle(MANY);
    }
    println!("a flush of {MANY} routes, from its end until all are back (ms):");
    println!("  first installation, from exec {:8.1}", first.median());
    for (what, samples) in [
        ("ip route flush table 1083", &by_ip),
        ("packed deletes", &packed),
    ] {
        println!(
            "  {what:<29} {:8.1} (quartiles {:.1} to {:.1})",
            samples.median(),
            samples.quantile(0.25),
            samples.quantile(0.75)
        );
        bounds.ratio(
            format!("{what} / first installation"),
            &samples.over(&first),
            1.2,
        );
    }
    Ok(())
}

fn flush_by_ip(_routes: &[Route]) -> Res<()> {
    for family in ["-4", "-6"] {
        arena::command("ip", &[family, "route", "flush", "table", "1083"])?;
    }
    Ok(())
}

fn flush_packed(routes: &[Route]) -> Res<()> {
    let mut messages = Packed::default();
    // Descending: ascending deletes of IPv4 cost the kernel several times as much.
    for route in routes.iter().rev() {
        messages.push(|buffer| route::encode(Write::Delete, route, buffer));
    }
    messages.send(&raw::socket()?)
}

/// Milliseconds from now. A few routes are looked up one by one, at hardly any cost; once those are
/// present, all are counted.
fn until_all_are_back(routes: &[Route]) -> Res<f64> {
    let started = Instant::now();
    let socket = raw::socket()?;
    let mut kernel = Kernel::open()?;
    let samples: Vec<IpAddr> = routes
        .iter()
        .step_by(MANY / 16)
        .chain(routes.last())
        .map(|route| route.key.dst.addr())
        .collect();
    loop {
        let mut there = true;
        for address in &samples {
            there = there && is_routed(&mut kernel, *address)?;
        }
        if there && raw::dump(&socket, BYPASS.0)? == routes.len() {
            return Ok(milliseconds(started.elapsed()));
        }
        if started.elapsed() > LOST_AFTER {
            let found = raw::dump(&socket, BYPASS.0)?;
            return Err(format!("only {found} of {} routes are back", routes.len()).into());
        }
        thread::sleep(LOOK);
    }
}

/// True if a packet to the address takes the bypass path.
fn is_routed(kernel: &mut Kernel, destination: IpAddr) -> Res<bool> {
    let question = Lookup::from_socket(destination);
    let decision = lookup(kernel.socket(), &question)?;
    Ok(matches!(decision, RouteDecision::Route(route) if route.key.table == BYPASS))
}
