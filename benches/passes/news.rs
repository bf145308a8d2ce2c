//! The running agent gets a document with one prefix more.

use std::thread;
use std::time::{Duration, Instant};

use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;
use trailblazer::kernel::route::{self, Write};
use trailblazer::objects::Route;
use trailblazer::ranges::Document;
use trailblazer::status::snapshot::Snapshot;

use super::bounds::Bounds;
use super::daemon::Daemon;
use super::host::Host;
use super::raw::{self, Packed};
use super::samples::{Samples, milliseconds, timed};
use super::{Mode, Res, documents};

/// The most time of the pass, in proportion to the raw message and the parse.
const MOST: f64 = 3.0;
/// The time after which the route has not come.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// The pause between two documents.
const PAUSE: Duration = Duration::from_millis(300);
/// `RTM_NEWROUTE` and the notification groups of IPv4 routes (linux/rtnetlink.h).
const RTM_NEWROUTE: u16 = 24;
const RTNLGRP_IPV4_ROUTE: u32 = 7;

/// Figures of one size.
#[derive(Debug)]
pub struct News {
    pub prefixes: usize,
    /// From the request for a look at the source until the route is in force, in ms.
    pub from_kick: Samples,
    /// The agent's pass, in ms.
    pub pass: Samples,
    /// The raw message and the parse, in ms.
    pub needed: Samples,
}

/// Measures two sizes.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<Vec<News>> {
    let rounds = if mode == Mode::Full { 21 } else { 7 };
    let mut all = Vec::new();
    for prefixes in [11_000, 100_000] {
        eprintln!("an agent with {prefixes} prefixes");
        let news = of_size(prefixes, rounds)?;
        println!(
            "agent, {prefixes} prefixes, one more: {:.1} ms from the request for a look at the source, \
             its pass {:.1} ms; message and parse {:.2} ms",
            news.from_kick.median(),
            news.pass.median(),
            news.needed.median()
        );
        bounds.ratio(
            format!("agent, {prefixes} prefixes, one more: pass / (raw message + parse)"),
            &news.pass.over(&news.needed),
            MOST,
        );
        all.push(news);
    }
    Ok(all)
}

fn of_size(size: usize, rounds: usize) -> Res<News> {
    let mut prefixes = documents::prefixes(size);
    let document = documents::document(1_700_000_000, &prefixes);
    let host = Host::new(&format!("news{size}"), size, document)?;
    let agent = host.start()?;
    agent.ready()?;
    agent.quiet()?;
    let mut news = News {
        prefixes: size,
        from_kick: Samples::default(),
        pass: Samples::default(),
        needed: Samples::default(),
    };
    let template = host.routes()?.into_iter().next().ok_or("no route")?;
    for round in 0..=rounds {
        prefixes.push(documents::another(size + round));
        let token = 1_700_000_001 + round as u64;
        let text = documents::document(token, &prefixes);
        std::fs::write(host.subject.directory().join("ip-ranges.json"), &text)?;
        let listener = Listener::open()?;
        let started = Instant::now();
        agent.kick()?;
        listener.wait()?;
        let from_kick = milliseconds(started.elapsed());
        let pass = pass_of(&agent, token)?;
        // The first round warms caches.
        if round > 0 {
            news.from_kick.0.push(from_kick);
            news.pass.0.push(pass);
            news.needed.0.push(needed(&text, &template, size)?);
        }
    }
    drop(agent);
    host.subject.remove()?;
    Ok(news)
}

/// Milliseconds of the pass for the document with a token.
fn pass_of(agent: &Daemon, token: u64) -> Res<f64> {
    let wanted = |status: &Snapshot| {
        let document = status.document.as_ref();
        document.is_some_and(|document| document.sync_token.0 == token)
    };
    let status = agent.wait_for("the document in force", wanted)?;
    // The agent ends other work before the next document.
    thread::sleep(PAUSE);
    // The newest pass comes first.
    let mut small = status.passes.iter().filter(|pass| pass.steps == 1);
    Ok(small.next().ok_or("no pass with one step")?.duration_ms)
}

/// Milliseconds of the parse and of one raw message.
fn needed(text: &str, template: &Route, size: usize) -> Res<f64> {
    let (parsed, parse) = timed(|| Document::parse(text.as_bytes()).map(|it| it.rows.len()));
    parsed?;
    let socket = raw::socket()?;
    let mut route = template.clone();
    route.key.dst = documents::another(2 * size);
    let mut message = Packed::default();
    message.push(|buffer| route::encode(Write::Add, &route, buffer));
    let (sent, message_took) = timed(|| message.send(&socket));
    sent?;
    let mut back = Packed::default();
    back.push(|buffer| route::encode(Write::Delete, &route, buffer));
    back.send(&socket)?;
    Ok(parse + message_took)
}

/// Hears new IPv4 routes in this network namespace.
struct Listener(Socket);

impl Listener {
    fn open() -> Res<Listener> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(RTNLGRP_IPV4_ROUTE)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOST_AFTER))?;
        Ok(Listener(socket))
    }

    /// Waits for a new route.
    fn wait(&self) -> Res<()> {
        let mut received = Vec::with_capacity(64 << 10);
        loop {
            received.clear();
            self.0.recv_from(&mut received, 0)?;
            if NetlinkBuffer::new_checked(&received)?.message_type() == RTM_NEWROUTE {
                return Ok(());
            }
        }
    }
}
