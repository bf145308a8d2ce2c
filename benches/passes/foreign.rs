//! A large table of somebody else's beside ours must cost nothing.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use trailblazer::kernel::Kernel;
use trailblazer::kernel::route::{self, Write};
use trailblazer::objects::{Route, RouteKey, RouteTarget, Via};
use trailblazer::reconcile::Outcome;
use trailblazer::types::{Metric, Protocol, Realm, TableId};

use super::bounds::Bounds;
use super::raw::{self, Packed};
use super::samples::Samples;
use super::subject::Subject;
use super::{BOUND_SIZE, Mode, Res, arena};

const TABLE: TableId = TableId(999);

/// Measures passes with and without foreign routes, alternating.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let (count, rounds) = match mode {
        Mode::Quick => (200_000, 25),
        Mode::Full => (1_000_000, 51),
    };
    eprintln!("a foreign table of {count} routes");
    let alone = Side::new("alone", 0)?;
    let beside = Side::new("beside", count)?;
    let (mut first, mut no_op) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        let [(first_alone, no_op_alone), (first_beside, no_op_beside)] = match round % 2 {
            0 => [alone.passes()?, beside.passes()?],
            _ => {
                let later = beside.passes()?;
                [alone.passes()?, later]
            }
        };
        if round > 0 {
            first.0.push(first_beside / first_alone);
            no_op.0.push(no_op_beside / no_op_alone);
        }
    }
    bounds.ratio(
        format!("no-op pass with a foreign table of {count} routes / without"),
        &no_op,
        1.1,
    );
    bounds.ratio(
        format!("first installation with a foreign table of {count} routes / without"),
        &first,
        1.1,
    );
    Ok(())
}

struct Side {
    ns: arena::Ns,
    subject: Subject,
}

impl Side {
    fn new(name: &str, foreign: usize) -> Res<Side> {
        let ns = arena::Ns::create(name)?;
        ns.enter()?;
        fill(foreign)?;
        let subject = Subject::new(name, BOUND_SIZE)?;
        Ok(Side { ns, subject })
    }

    /// A first installation and a pass without changes, in milliseconds.
    fn passes(&self) -> Res<(f64, f64)> {
        self.ns.enter()?;
        self.subject.forget()?;
        let (_, first) = self.subject.pass(Outcome::Changed)?;
        let (_, no_op) = self.subject.pass(Outcome::InSync)?;
        self.subject.remove()?;
        Ok((first, no_op))
    }
}

fn fill(count: usize) -> Res<()> {
    let facts = Kernel::open()?.facts()?;
    let device = facts.link_named("eth0").ok_or("the link is missing")?.index;
    let mut messages = Packed::default();
    for number in 0..count {
        let bits = (60 << 24) + ((number as u32) << 8);
        let route = Route {
            key: RouteKey {
                table: TABLE,
                dst: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), 24)),
                tos: 0,
                metric: Metric(0),
            },
            target: RouteTarget::Via(Via {
                gateway: Some(arena::GATEWAY4.parse()?),
                device,
                onlink: false,
            }),
            realm: Realm(0),
            options: None,
            protocol: Protocol(4),
        };
        messages.push(|buffer| route::encode(Write::Add, &route, buffer));
    }
    messages.send(&raw::socket()?)
}
