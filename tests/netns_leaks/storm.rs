//! Packets of every kind to the partner and to storage, again and again, from one namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::packet::{self, ACK, FIN, RST, SYN};
use lab::*;

/// The pause after one packet of each kind to each target.
const PAUSE: Duration = Duration::from_millis(10);
/// The destination port of the first kind; the others follow.
const FIRST_PORT: u16 = 20_000;
/// A port of `ip_local_port_range`. A lone ACK from another port counts as the answer of a server to a
/// client outside whose flow conntrack has forgotten, and passes.
const CLIENT_PORT: u16 = 45_000;
/// `linux/in.h`: a socket whose packets have their own header.
const IPPROTO_RAW: i32 = 255;
/// More than two packets of the usual size.
const BIG: usize = 4000;

/// The addresses of a sender.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    pub device: &'static str,
    pub own: [IpAddr; 2],
    /// Addresses of another interface of the sender.
    pub second: [IpAddr; 2],
    /// Addresses of another machine.
    pub foreign: [IpAddr; 2],
}

/// One packet of a kind to a target's port.
pub struct Shot {
    sender: Sender,
    to: SocketAddr,
}

impl Shot {
    fn family(&self) -> usize {
        usize::from(self.to.is_ipv6())
    }

    fn domain(&self) -> Domain {
        Domain::for_address(self.to)
    }

    fn any(&self) -> IpAddr {
        if self.to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        }
    }

    fn socket(&self, kind: Type, device: bool, source: Option<IpAddr>) -> io::Result<Socket> {
        let socket = Socket::new(self.domain(), kind, None)?;
        socket.set_nonblocking(true)?;
        if device {
            socket.bind_device(Some(self.sender.device.as_bytes()))?;
        }
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }

    fn datagram(&self, device: bool, source: Option<IpAddr>) -> io::Result<()> {
        let socket = self.socket(Type::DGRAM, device, source)?;
        socket.send_to(b"who", &self.to.into()).map(drop)
    }

    fn connect(&self, device: bool, source: Option<IpAddr>) -> io::Result<()> {
        self.socket(Type::STREAM, device, source)?
            .connect(&self.to.into())
    }

    fn own(&self) -> IpAddr {
        self.sender.own[self.family()]
    }

    fn echo(&self, device: bool) -> io::Result<()> {
        let ipv6 = self.to.is_ipv6();
        let protocol = Protocol::from(i32::from(packet::icmp(ipv6)));
        let socket = Socket::new(self.domain(), Type::RAW, Some(protocol))?;
        if device {
            socket.bind_device(Some(self.sender.device.as_bytes()))?;
        }
        let to: SockAddr = SocketAddr::new(self.to.ip(), 0).into();
        socket.send_to(&packet::echo(ipv6), &to).map(drop)
    }

    fn raw(&self, bytes: &[u8], device: bool) -> io::Result<()> {
        let raw = Some(Protocol::from(IPPROTO_RAW));
        let socket = Socket::new(self.domain(), Type::RAW, raw)?;
        if device {
            socket.bind_device(Some(self.sender.device.as_bytes()))?;
        }
        let to: SockAddr = SocketAddr::new(self.to.ip(), 0).into();
        socket.send_to(bytes, &to).map(drop)
    }

    fn stray(&self, flags: u8, device: bool) -> io::Result<()> {
        let to = (self.to.ip(), self.to.port());
        self.raw(&packet::tcp((self.own(), CLIENT_PORT), to, flags), device)
    }

    fn forged(&self, from: IpAddr, device: bool) -> io::Result<()> {
        let to = (self.to.ip(), self.to.port());
        self.raw(&packet::udp((from, CLIENT_PORT), to), device)
    }
}

type Send = fn(&Shot) -> io::Result<()>;

/// Each kind of packet. ICMP has no port.
pub const KINDS: &[(&str, Send)] = &[
    ("datagram", |it| it.datagram(false, None)),
    ("datagram, device", |it| it.datagram(true, None)),
    ("datagram, source", |it| it.datagram(false, Some(it.own()))),
    ("datagram, device and source", |it| {
        it.datagram(true, Some(it.own()))
    }),
    ("datagram, address of a second interface", |it| {
        it.datagram(false, Some(it.sender.second[it.family()]))
    }),
    ("fragments", |it| {
        let socket = it.socket(Type::DGRAM, false, Some(it.any()))?;
        socket.send_to(&[b'x'; BIG], &it.to.into()).map(drop)
    }),
    ("fragments, device", |it| {
        let socket = it.socket(Type::DGRAM, true, None)?;
        socket.send_to(&[b'x'; BIG], &it.to.into()).map(drop)
    }),
    ("connection", |it| it.connect(false, None)),
    ("connection, device", |it| it.connect(true, None)),
    ("connection, source", |it| it.connect(false, Some(it.own()))),
    ("raw datagram", |it| it.forged(it.own(), false)),
    ("raw datagram, device", |it| it.forged(it.own(), true)),
    ("raw datagram, foreign source", |it| {
        it.forged(it.sender.foreign[it.family()], false)
    }),
    ("raw datagram, foreign source, device", |it| {
        it.forged(it.sender.foreign[it.family()], true)
    }),
    ("stray RST", |it| it.stray(RST, false)),
    ("stray FIN", |it| it.stray(FIN | ACK, false)),
    ("stray SYN+ACK", |it| it.stray(SYN | ACK, false)),
    ("stray ACK", |it| it.stray(ACK, false)),
    ("stray ACK, device", |it| it.stray(ACK, true)),
];

/// The kinds without a port.
const ECHOES: &[(&str, Send)] = &[
    ("echo", |it| it.echo(false)),
    ("echo, device", |it| it.echo(true)),
];

/// The kind of packets that the wire has counted under a protocol and a port.
pub fn kind_of(protocol: &str, port: &str) -> String {
    let index = port.parse::<usize>().ok();
    let index = index.and_then(|port| port.checked_sub(usize::from(FIRST_PORT)));
    match index.and_then(|index| KINDS.get(index)) {
        Some((name, _)) => (*name).to_owned(),
        None if port == "0" => "echo".to_owned(),
        None if protocol == "6" => "open connection".to_owned(),
        None => "open datagrams".to_owned(),
    }
}

/// A socket that stays open over rounds.
struct Lasting {
    target: IpAddr,
    udp: Option<Socket>,
    tcp: Option<Socket>,
}

impl Lasting {
    fn send(&mut self, sender: Sender) {
        let shot = Shot {
            sender,
            to: SocketAddr::new(self.target, PORT),
        };
        if self.udp.is_none() {
            let socket = shot.socket(Type::DGRAM, false, None);
            self.udp = socket.ok().filter(|it| it.connect(&shot.to.into()).is_ok());
        }
        let sent = self.udp.as_ref().map(|socket| socket.send(b"who"));
        if sent.is_some_and(|it| it.is_err()) {
            self.udp = None;
        }
        if self.tcp.is_none() {
            let socket = shot.socket(Type::STREAM, false, None).ok();
            if let Some(socket) = &socket {
                // A closed connection would repeat its FIN for minutes, after the product has gone too.
                let _linger = socket.set_linger(Some(Duration::ZERO));
                let _in_progress = socket.connect(&shot.to.into());
            }
            self.tcp = socket;
        }
        let sent = self.tcp.as_ref().map(|socket| socket.send(b"keep x\n"));
        let broken = |it: io::Result<usize>| {
            it.is_err_and(|error| {
                let kind = error.kind();
                kind != io::ErrorKind::WouldBlock && kind != io::ErrorKind::NotConnected
            })
        };
        if sent.is_some_and(broken) {
            self.tcp = None;
        }
    }
}

/// The sender, from the creation until the drop. It waits until `resume`.
pub struct Storm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    paused: AtomicBool,
    rounds: AtomicUsize,
    /// All sockets are closed.
    idle: AtomicBool,
    /// Held during a round.
    round: Mutex<()>,
}

impl Storm {
    pub fn new(ns: &Ns, sender: Sender) -> Storm {
        let shared = Arc::new(Shared::default());
        shared.paused.store(true, Ordering::SeqCst);
        let (ns, ours) = (ns.clone(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            ns.enter();
            run(&ours, sender);
        });
        Storm {
            shared,
            thread: Some(thread),
        }
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// Ends the round, and closes all sockets.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
        let rounds = &self.shared.round;
        drop(rounds.lock().unwrap_or_else(PoisonError::into_inner));
        eventually("the sockets are closed", || {
            self.shared.idle.load(Ordering::SeqCst)
        });
    }

    /// Waits for whole rounds from now on.
    #[track_caller]
    pub fn window(&self, rounds: usize) {
        let until = self.shared.rounds.load(Ordering::SeqCst) + rounds + 1;
        eventually("packets are sent", || {
            self.shared.rounds.load(Ordering::SeqCst) >= until
        });
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported already.
            let _panicked = thread.join();
        }
    }
}

fn run(shared: &Shared, sender: Sender) {
    let fresh = || {
        [PARTNER, PARTNER6].map(|target| Lasting {
            target,
            udp: None,
            tcp: None,
        })
    };
    let mut lasting = fresh();
    while !shared.stopping.load(Ordering::SeqCst) {
        let round = shared.round.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.paused.load(Ordering::SeqCst) {
            lasting = fresh();
            shared.idle.store(true, Ordering::SeqCst);
            drop(round);
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        shared.idle.store(false, Ordering::SeqCst);
        lasting.iter_mut().for_each(|it| it.send(sender));
        for (target, kinds) in [
            (PARTNER, KINDS),
            (PARTNER6, KINDS),
            (S3, &KINDS[..1]),
            (S3_6, &KINDS[..1]),
        ] {
            for (port, (_, send)) in (FIRST_PORT..).zip(kinds) {
                let to = SocketAddr::new(target, port);
                // Without a path to the target the kernel refuses, which is no leak.
                let _refused = send(&Shot { sender, to });
            }
        }
        for target in [PARTNER, PARTNER6] {
            for (_, send) in ECHOES {
                let to = SocketAddr::new(target, 0);
                let _refused = send(&Shot { sender, to });
            }
        }
        drop(round);
        shared.rounds.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
}
