//! Open flows keep the path of their first packet, and new flows take the new path at once. Each scene
//! breaks the same flows without pins.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod alone;
mod drain;
mod history;
mod iptables;
#[path = "../killer/process.rs"]
mod killed;
#[path = "../killer/mod.rs"]
mod killer;
mod listing;
mod more;
mod nat;
#[path = "../no_nf_tables/mod.rs"]
mod no_nf_tables;
mod numbers;
#[path = "../packets/mod.rs"]
mod packets;
mod scenes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use lab::*;

const ONE: &str = "gateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]";
const OTHER: &str = "gateways = [\"10.0.1.20\", \"2600:1f18:1000:1::20\"]";
const TWO: &str =
    "gateways = [\"10.0.1.10\", \"10.0.1.20\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]";

const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];
/// Flows to each target.
const FLOWS: usize = 5;

/// The settings with these gateways.
fn settings(gateways: &str, pin: bool) -> String {
    format!("[egress]\nenforce = true\npin = {pin}\n{gateways}\n")
}

/// Both NATs, which drop packets of connections that they don't know.
fn lab_with_nats() -> Lab {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    lab.guarded_nat("nat2");
    lab
}

/// Open connections of `host1` to all targets.
struct Flows(Vec<(IpAddr, LongFlow)>);

impl Flows {
    fn open(lab: &Lab, targets: &[IpAddr]) -> Flows {
        Flows::from(lab.ns("host1"), targets)
    }

    fn from(ns: &Ns, targets: &[IpAddr]) -> Flows {
        let mut flows = Vec::new();
        for target in targets.iter().copied() {
            for _ in 0..FLOWS {
                flows.push((target, LongFlow::open(ns, target).unwrap()));
            }
        }
        Flows(flows)
    }

    /// One more flow to each target.
    fn add(&mut self, lab: &Lab, targets: &[IpAddr]) {
        let more = targets.iter().map(|to| (*to, lab.long_flow("host1", *to)));
        self.0.extend(more);
    }

    /// Every flow makes further round trips.
    #[track_caller]
    fn assert_moving(&self) {
        for (target, flow) in &self.0 {
            let before = flow.round_trips();
            eventually(&format!("further round trips to {target}"), || {
                flow.round_trips() >= before + 3
            });
        }
    }

    /// The number of broken and hung flows.
    fn broken(self) -> usize {
        let alive = |(target, flow): (IpAddr, LongFlow)| {
            let before = flow.round_trips();
            let moved = || flow.round_trips() >= before + 3;
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(4);
            while !moved() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let moved = moved();
            let report = flow.stop();
            if !moved || report.broken.is_some() {
                println!("flow to {target}: {report:?}");
            }
            moved && report.broken.is_none()
        };
        // All at once: a hung flow takes its time.
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .0
                .into_iter()
                .map(|flow| scope.spawn(|| alive(flow)))
                .collect();
            let alive = asked.into_iter().map(|it| it.join().unwrap());
            alive.filter(|alive| !alive).count()
        })
    }
}

fn who(lab: &Lab, target: IpAddr) -> Option<IpAddr> {
    lab.who("host1", target).ok()
}

/// A connected UDP socket of `host1`.
struct Datagrams(UdpSocket);

impl Datagrams {
    fn open(lab: &Lab, target: IpAddr) -> Datagrams {
        let any: IpAddr = if target.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = lab
            .ns("host1")
            .in_thread(|| UdpSocket::bind((any, 0)).unwrap());
        socket.connect((target, PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Datagrams(socket)
    }

    /// The source that the server sees; `None` for a lost answer.
    fn seen(&self) -> Option<IpAddr> {
        let mut buffer = [0; 128];
        self.0.send(b"who").ok()?;
        let length = self.0.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        text.trim().parse().ok()
    }
}
