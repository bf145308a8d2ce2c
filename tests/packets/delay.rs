//! A NAT whose packets leave late: a queue of the kernel (NFQUEUE), read by a thread. Some
//! kernels lack `sch_netem`.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::*;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

const DELAY: Duration = Duration::from_secs(2);
const QUEUE: u16 = 7;

// linux/netfilter/nfnetlink_queue.h: the subsystem 3 with its messages, commands and attributes.
const MSG_PACKET: u16 = 3 << 8;
const MSG_VERDICT: u16 = 3 << 8 | 1;
const MSG_CONFIG: u16 = 3 << 8 | 2;
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const BIND: u8 = 1;
const COPY_META: u8 = 1;
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const ACCEPT: u32 = 1;
/// `NLM_F_REQUEST` (linux/netlink.h).
const REQUEST: u16 = 1;

/// The two header lengths: `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// The packets that a NAT sends to the internet.
const TO_INTERNET: &str = "-o pub";

/// Delays packets until dropped.
pub struct Delay {
    ns: Ns,
    /// The forwarded packets of each family.
    packets: [String; 2],
    released: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Delays what the NAT sends to the internet by two seconds; `None` if the kernel has no such queues.
    pub fn start(nat: &Ns) -> Option<Delay> {
        Delay::by(nat, [TO_INTERNET; 2].map(str::to_owned), DELAY)
    }

    /// Holds what the NAT sends to the internet until [`Delay::release`].
    pub fn hold(nat: &Ns) -> Option<Delay> {
        Delay::hold_forwarded(nat, [TO_INTERNET; 2].map(str::to_owned))
    }

    /// Holds the forwarded packets of each family that iptables matches so.
    pub fn hold_forwarded(ns: &Ns, packets: [String; 2]) -> Option<Delay> {
        Delay::by(ns, packets, Duration::MAX)
    }

    fn by(ns: &Ns, packets: [String; 2], delay: Duration) -> Option<Delay> {
        let socket = ns.in_thread(open)?;
        let (stopping, released) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (stop, free) = (Arc::clone(&stopping), Arc::clone(&released));
        let thread = thread::spawn(move || serve(&socket, delay, &free, &stop));
        let delay = Delay {
            ns: ns.clone(),
            packets,
            released,
            stopping,
            thread: Some(thread),
        };
        delay.rules("-A");
        Some(delay)
    }

    fn rules(&self, action: &str) {
        for (program, packets) in ["iptables", "ip6tables"].iter().zip(&self.packets) {
            let rule = format!("{program} -w -t mangle {action} FORWARD {packets} -j NFQUEUE");
            let words: Vec<&str> = rule.split(' ').collect();
            let queue = QUEUE.to_string();
            self.ns
                .run(&[&words[..], &["--queue-num", &queue]].concat());
        }
    }

    /// Lets all packets go, from now on at once.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.rules("-D");
        // The packets in the queue leave first.
        thread::sleep(DELAY);
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket with the queue.
fn open() -> Option<OwnedFd> {
    let kind = Some(netlink::NETFILTER);
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, kind).ok()?;
    bind(&socket, &SocketAddrNetlink::new(0, 0)).ok()?;
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_millis(10)),
    )
    .ok()?;
    let mut params = 0u32.to_be_bytes().to_vec();
    params.push(COPY_META);
    for (kind, payload) in [(CFG_CMD, vec![BIND, 0, 0, 0]), (CFG_PARAMS, params)] {
        send(
            &socket,
            &message(MSG_CONFIG, kind, &payload),
            SendFlags::empty(),
        )
        .ok()?;
    }
    // A refusal is an answer; the acceptance of a request without `NLM_F_ACK` is none.
    let mut buffer = [0; 256];
    recv(&socket, &mut buffer, RecvFlags::empty())
        .is_err()
        .then_some(socket)
}

fn message(kind: u16, attribute: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(QUEUE.to_be_bytes());
    body.extend((payload.len() as u16 + 4).to_ne_bytes());
    body.extend(attribute.to_ne_bytes());
    body.extend(payload);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut whole = (body.len() as u32 + 16).to_ne_bytes().to_vec();
    whole.extend(kind.to_ne_bytes());
    whole.extend(REQUEST.to_ne_bytes());
    whole.extend([0; 8]);
    whole.extend(body);
    whole
}

fn serve(socket: &OwnedFd, delay: Duration, released: &AtomicBool, stopping: &AtomicBool) {
    let mut waiting: VecDeque<(Instant, u32)> = VecDeque::new();
    let mut buffer = vec![0; 1 << 16];
    while !stopping.load(Ordering::Relaxed) {
        if let Ok((length, _)) = recv(socket, &mut buffer[..], RecvFlags::empty()) {
            let now = Instant::now();
            waiting.extend(packets(&buffer[..length]).map(|id| (now, id)));
        }
        while let Some((since, id)) = waiting.front().copied()
            && (since.elapsed() >= delay || released.load(Ordering::Relaxed))
        {
            waiting.pop_front();
            let verdict = [ACCEPT.to_be_bytes(), id.to_be_bytes()].concat();
            let accept = message(MSG_VERDICT, VERDICT_HDR, &verdict);
            let _ = send(socket, &accept, SendFlags::empty());
        }
    }
}

/// The numbers of the packets in a datagram of the kernel.
fn packets(datagram: &[u8]) -> impl Iterator<Item = u32> {
    let mut rest = datagram;
    let messages = std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    });
    messages.filter_map(|message| {
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        let attribute = message.get(HEADERS..HEADERS + 8)?;
        let first = u16::from_ne_bytes(attribute[2..4].try_into().ok()?);
        (kind == MSG_PACKET && first == PACKET_HDR)
            .then(|| u32::from_be_bytes([attribute[4], attribute[5], attribute[6], attribute[7]]))
    })
}
