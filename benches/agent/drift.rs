//! One of our routes is deleted: the time until the repair. Compared with the floor, a bare
//! listener that knows the message to send and does nothing else.

use std::thread;
use std::time::{Duration, Instant};

use trailblazer::kernel::route::Write;
use trailblazer::objects::Route;

use super::bounds::Bounds;
use super::daemon::Daemon;
use super::host::Host;
use super::samples::{Samples, milliseconds};
use super::wire::{self, CAME, GONE, Listener};
use super::{MANY, Mode, Res, documents, raw};

/// Deletions of each kind.
const DELETIONS: usize = 1000;
/// The longest pause between two spread deletions: some fall into every stage of the passes that
/// follow each burst.
const PAUSE_MS: f64 = 10.0;

/// Measures both paces, and the floor before and after.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let host = Host::new(
        "drift",
        MANY,
        documents::document(1_700_000_000, &documents::prefixes(MANY)),
    )?;
    let daemon = host.start()?;
    daemon.ready()?;
    daemon.quiet()?;
    let routes = host.routes()?;
    if routes.len() != MANY {
        return Err(format!("{} routes, not {MANY}", routes.len()).into());
    }
    drop(daemon);
    let rounds = if mode == Mode::Quick { 1 } else { 5 };
    let (mut floor, mut close, mut spread) = Default::default();
    for round in 0..rounds {
        // Other routes each time, since repeated changes of one route are a fight.
        let some = |offset: usize| -> Vec<&Route> {
            let step = MANY / DELETIONS;
            routes
                .iter()
                .skip(offset % step)
                .step_by(step)
                .take(DELETIONS)
                .collect()
        };
        at_the_floor(&some(round * 3), &mut floor)?;
        let daemon = host.start()?;
        daemon.ready()?;
        daemon.quiet()?;
        let said = |error| {
            format!(
                "{error}; {:#?}; its log:\n{}",
                daemon.status(),
                daemon.log()
            )
        };
        delete_each(&some(round * 3 + 1), 0.0, &mut close).map_err(said)?;
        daemon.quiet()?;
        delete_each(&some(round * 3 + 2), PAUSE_MS, &mut spread).map_err(said)?;
        all_back(&host, &daemon)?;
    }
    println!(
        "drift, {MANY} routes, {} deletions of different routes each (ms):",
        DELETIONS * rounds
    );
    for (what, samples) in [
        ("floor: a bare listener", &floor),
        ("agent, one after the other", &close),
        ("agent, pauses of up to 10 ms", &spread),
    ] {
        println!("  {what:<30} {}", figures(samples));
    }
    for (what, samples) in [("one after the other", &close), ("spread out", &spread)] {
        bounds.add(
            samples.median() < 0.5,
            format!("drift mended, {what}: median"),
            format!(
                "{:.3} ms, under 0.5 ms (floor {:.3})",
                samples.median(),
                floor.median()
            ),
        );
        bounds.add(
            samples.quantile(0.99) < 5.0,
            format!("drift mended, {what}: 99th percentile"),
            format!(
                "{:.3} ms, under 5 ms (floor {:.3})",
                samples.quantile(0.99),
                floor.quantile(0.99)
            ),
        );
    }
    Ok(())
}

fn figures(samples: &Samples) -> String {
    let at = |share| samples.quantile(share);
    format!(
        "median {:.3}, p90 {:.3}, p99 {:.3}, most {:.3}",
        samples.median(),
        at(0.9),
        at(0.99),
        at(1.0)
    )
}

fn delete_each(routes: &[&Route], pause_ms: f64, samples: &mut Samples) -> Res<()> {
    let socket = raw::socket()?;
    let mut listener = Listener::open()?;
    for (number, route) in routes.iter().enumerate() {
        // Evenly spread, and the same in every run: multiples of the golden ratio.
        let share = (number as f64 * 0.618_034).fract();
        if pause_ms > 0.0 {
            thread::sleep(Duration::from_secs_f64(share * pause_ms / 1e3));
        }
        samples.0.push(one(&socket, &mut listener, route)?);
    }
    Ok(())
}

fn one(socket: &rtnetlink::sys::Socket, listener: &mut Listener, route: &Route) -> Res<f64> {
    let message = wire::message(Write::Delete, route);
    let started = Instant::now();
    wire::send(socket, &message)?;
    let back = listener.wait(CAME, route.key.dst.addr())?;
    Ok(milliseconds(back - started))
}

/// The least possible effort: a thread that receives the deletion and sends the prepared message.
fn at_the_floor(routes: &[&Route], samples: &mut Samples) -> Res<()> {
    let mut repairs = Vec::new();
    for route in routes {
        repairs.push((route.key.dst.addr(), wire::message(Write::Add, route)));
    }
    let mut ears = Listener::open()?;
    let mender = thread::spawn(move || -> Result<(), String> {
        let socket = raw::socket().map_err(|error| error.to_string())?;
        for (destination, message) in repairs {
            ears.wait(GONE, destination)
                .and_then(|_heard| wire::send(&socket, &message))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    });
    delete_each(routes, 0.0, samples).map_err(|error| format!("the floor: {error}"))?;
    mender
        .join()
        .map_err(|_panic| "the floor's thread panicked")??;
    Ok(())
}

/// Every route is back, and nobody says otherwise.
fn all_back(host: &Host, daemon: &Daemon) -> Res<()> {
    daemon.quiet()?;
    match host.routes()?.len() {
        MANY => Ok(()),
        other => Err(format!("{other} routes, not {MANY}; its log:\n{}", daemon.log()).into()),
    }
}
