//! Continuous packets from `host1` to the partner and to storage, and the verdict on their sources.
//!
//! Each packet is a datagram from a new port: a new flow with a routing decision and a translation
//! of its own. The servers record the source of each, and the internet gateway counts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::packets::count_from_now;
use lab::*;

/// The pause after one packet to each target.
const PAUSE: Duration = Duration::from_millis(8);
/// Packets to each target in a window of sampling.
const WINDOW: usize = 15;

pub const TARGETS: [IpAddr; 4] = [S3, S3_6, PARTNER, PARTNER6];

/// The expected sources at the servers, IPv4 and IPv6.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    pub bypass: [IpAddr; 2],
    pub egress: [IpAddr; 2],
    /// The addresses of a second NAT.
    pub more: [IpAddr; 2],
}

/// The sender, from the creation until the drop.
pub struct Probe<'a> {
    lab: &'a Lab,
    pub sources: Sources,
    stopping: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Probe<'a> {
    /// Forgets earlier observations, and starts to send.
    pub fn start(lab: &'a Lab, sources: Sources) -> Probe<'a> {
        count_from_now(lab);
        let stopping = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (stop, count, ns) = (
            Arc::clone(&stopping),
            Arc::clone(&rounds),
            lab.ns("host1").clone(),
        );
        let thread = std::thread::spawn(move || {
            ns.enter();
            while !stop.load(Ordering::Relaxed) {
                for target in TARGETS {
                    // Without a path to the target the kernel refuses, which is no leak.
                    let _refused = send(target);
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
        });
        Probe {
            lab,
            sources,
            stopping,
            rounds,
            thread: Some(thread),
        }
    }

    /// Waits for a window of sampling, from now on.
    pub fn window(&self) {
        let until = self.rounds.load(Ordering::Relaxed) + WINDOW;
        eventually("packets are sent", || {
            self.rounds.load(Ordering::Relaxed) >= until
        });
    }

    /// The sources that a server has seen in a family since the start.
    fn seen(server: &Server, family: usize) -> BTreeSet<IpAddr> {
        let mut peers = server.peers();
        peers.retain(|peer| usize::from(peer.is_ipv6()) == family);
        peers
    }

    /// The sources that the partner has seen.
    pub fn at_partner(&self) -> BTreeSet<IpAddr> {
        self.lab.partner.peers()
    }

    /// Waits for a new packet with the expected source at storage or at the partner.
    #[track_caller]
    pub fn arrives(&self, row: &str, storage: [bool; 2], partner: [bool; 2]) {
        self.assert_no_leak(row);
        self.lab.partner.clear();
        self.lab.s3.clear();
        let wanted = [
            ("storage", &self.lab.s3, self.sources.bypass, storage),
            (
                "the partner",
                &self.lab.partner,
                self.sources.egress,
                partner,
            ),
        ];
        for (name, server, sources, wanted) in wanted {
            for family in [0, 1].into_iter().filter(|family| wanted[*family]) {
                wait_until(
                    SOON,
                    Duration::from_millis(5),
                    || {
                        Probe::seen(server, family)
                            .contains(&sources[family])
                            .then_some(())
                    },
                    || {
                        let seen = Probe::seen(server, family);
                        format!("{row}: {} at {name}, but {seen:?}", sources[family])
                    },
                );
            }
        }
    }

    /// No packet since the start left with a wrong address: neither at the gateway, nor at a server.
    /// Storage by the egress path costs money and shows no wrong address.
    #[track_caller]
    pub fn assert_no_leak(&self, row: &str) {
        let wrong = self.wrong();
        assert!(wrong.is_empty(), "{row}: {wrong:?}");
    }

    /// The wrong sources seen since the start.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let leaks = Leaks {
            s3_egress4: 0,
            s3_egress6: 0,
            ..self.lab.leaks()
        };
        if leaks != Leaks::default() {
            wrong.push(format!("{leaks:?}"));
        }
        for family in [0, 1] {
            let egress = self.sources.egress[family];
            let bypass = self.sources.bypass[family];
            let more = self.sources.more[family];
            let allowed = [
                ("partner", &self.lab.partner, vec![egress, more]),
                ("storage", &self.lab.s3, vec![egress, more, bypass]),
            ];
            for (name, server, allowed) in allowed {
                let seen = Probe::seen(server, family);
                let others = seen.iter().filter(|peer| !allowed.contains(peer));
                wrong.extend(others.map(|peer| format!("{peer} at {name}")));
            }
        }
        wrong
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported already.
            let _panicked = thread.join();
        }
    }
}

fn send(target: IpAddr) -> std::io::Result<()> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.send_to(b"who", SocketAddr::new(target, PORT))?;
    Ok(())
}
