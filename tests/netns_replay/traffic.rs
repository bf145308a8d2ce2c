//! The load of the replay: long flows, connected datagram sockets, and new connections, with the
//! faults that clients, servers and the router see.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::*;
use socket2::{Domain, Socket, Type};

/// The pause of a long flow, and of a datagram socket, between two round trips.
const PAUSE: Duration = Duration::from_millis(100);
/// The client's timeout for a connection, and again for the answer: two retransmissions of the
/// first packet, so that a busy machine fails no connection.
const PATIENT: Duration = Duration::from_secs(5);
/// A connection slower than this is shown: its first packet was lost, or the machine is busy.
const SLOW: Duration = Duration::from_millis(900);
/// New connections a second.
const NEW: u32 = 60;
/// The port of the datagram servers on addresses of storage.
const DATAGRAMS: u16 = 4433;

/// The senders and the receivers of the load.
pub struct Ends {
    /// Sources of the client, in turn; the kernel chooses where there is none.
    pub sources: Vec<Option<[IpAddr; 2]>>,
    pub storage: Vec<IpAddr>,
    pub partners: Vec<IpAddr>,
}

/// Flows to storage and to partners.
pub const TO_STORAGE: usize = 160;
const TO_PARTNERS: usize = 40;
const TALKS: usize = 20;

/// A connected datagram socket; the thread ends with the sources seen and the lost answers.
type Talk = JoinHandle<(BTreeSet<IpAddr>, usize)>;
type Connections = Arc<Mutex<Vec<Connection>>>;

/// A new connection, with its duration or its failure.
struct Connection {
    began: Instant,
    to: IpAddr,
    asked: Result<Duration, ErrorKind>,
}

/// The running load.
pub struct Load {
    flows: Vec<(IpAddr, LongFlow)>,
    talks: Vec<Talk>,
    pacing: JoinHandle<()>,
    connections: Connections,
    stopping: Arc<AtomicBool>,
    began: Instant,
    repeated: u64,
}

/// The faults that the load has met.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub flows: usize,
    pub talks: usize,
    pub connections: usize,
    /// Flows that were reset or ended.
    pub broken: usize,
    /// Flows without an answer for seconds.
    pub hung: usize,
    /// New connections without an answer in time.
    pub failed: usize,
    /// First packets that the client's kernel had to send again: dropped ones, or a busy machine.
    pub repeated: u64,
    /// Packets at a partner's wire from an address that is no egress address.
    pub wrong: u64,
    /// Packets with a private source at the outer wire.
    pub private: u64,
    /// TCP packets in the middle of no connection that the servers know: flows with another source.
    pub stray: u64,
    /// Datagram sockets whose source has changed.
    pub changed: usize,
    /// Datagrams without an answer.
    pub lost: usize,
}

impl Seen {
    /// Everything that must be zero.
    pub fn faults(&self) -> [u64; 7] {
        let counted = [self.broken, self.hung, self.failed, self.changed].map(|it| it as u64);
        let [broken, hung, failed, changed] = counted;
        let Seen {
            wrong,
            private,
            stray,
            ..
        } = *self;
        [broken, hung, failed, changed, wrong, private, stray]
    }
}

/// Counts packets of unknown flows at the servers.
pub fn watch_strays(lab: &Lab) {
    for name in ["s3", "partner"] {
        let ns = lab.ns(name);
        ns.nft(
            "table inet strays {
               counter seen { }
               chain input {
                 type filter hook input priority filter;
                 meta l4proto tcp ct state invalid counter name seen
               }
             }",
        );
        ns.sysctl(&[("net/netfilter/nf_conntrack_tcp_loose", "0")]);
    }
}

/// First packets of TCP connections that `host1` has sent again so far (`TCPSynRetrans`).
fn repeated(lab: &Lab) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let text = lab.ns("host1").in_thread(read);
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (words(lines.next().unwrap()), words(lines.next().unwrap()));
    let column = names.iter().position(|name| name == "TCPSynRetrans");
    values[column.unwrap()].parse().unwrap()
}

fn strays(lab: &Lab) -> u64 {
    let packets = |name: &str| {
        let words = ["nft", "-j", "list", "counters", "table", "inet", "strays"];
        let listing = lab.ns(name).exec(&words).ok().json();
        let objects = listing["nftables"].as_array().unwrap().iter();
        let mut packets = objects.filter_map(|object| object["counter"]["packets"].as_u64());
        packets.next().unwrap()
    };
    packets("s3") + packets("partner")
}

/// Datagram servers on some addresses of storage; the partner has its own.
fn serve_datagrams(lab: &Lab, ends: &Ends) -> Vec<SocketAddr> {
    let step = ends.storage.len().div_ceil(TALKS - 4).max(1);
    let some: Vec<IpAddr> = ends.storage.iter().copied().step_by(step).collect();
    Server::start(lab.ns("s3"), DATAGRAMS, &some);
    let partners = ends.partners.iter().cycle().take(4);
    let at = |port: u16| move |address: &IpAddr| SocketAddr::new(*address, port);
    let storage = some.iter().map(at(DATAGRAMS));
    storage.chain(partners.map(at(PORT))).collect()
}

/// A source of the family of `to`, the unspecified address for `None`.
fn source_for(sources: Option<[IpAddr; 2]>, to: IpAddr) -> IpAddr {
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    sources.unwrap_or(any)[usize::from(to.is_ipv6())]
}

fn connect(sources: Option<[IpAddr; 2]>, to: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(to, PORT)),
        Type::STREAM,
        None,
    )?;
    if sources.is_some() {
        // Without the option the kernel picks the port before the destination is known, and reuses
        // none of a closed connection.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source_for(sources, to), 0).into())?;
    }
    socket.connect_timeout(&SocketAddr::new(to, PORT).into(), PATIENT)?;
    Ok(socket.into())
}

/// A new connection with one round trip; the time that both took.
fn ask(sources: Option<[IpAddr; 2]>, to: IpAddr) -> Result<Duration, ErrorKind> {
    let began = Instant::now();
    let asked = || -> io::Result<()> {
        let mut stream = connect(sources, to)?;
        stream.set_read_timeout(Some(PATIENT))?;
        stream.write_all(b"who\n")?;
        let mut line = String::new();
        match BufReader::new(stream).read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    asked().map_err(|error| error.kind())?;
    Ok(began.elapsed())
}

/// `count` flows to the targets in turn, each with the number of its round: every target gets a flow
/// from each source.
fn rounds(targets: &[IpAddr], count: usize) -> impl Iterator<Item = (usize, IpAddr)> + '_ {
    (0..count).map(|number| (number / targets.len(), targets[number % targets.len()]))
}

impl Load {
    /// Opens all flows of `host1` and starts the new connections.
    pub fn start(lab: &Lab, ends: Ends) -> Load {
        let host1 = lab.ns("host1");
        let stopping = Arc::new(AtomicBool::new(false));
        let datagrams = serve_datagrams(lab, &ends);
        let open = |(round, to): (usize, IpAddr)| {
            let source = ends.sources[round % ends.sources.len()];
            let stream = host1.in_thread(|| connect(source, to)).unwrap();
            (to, LongFlow::over(stream, PAUSE).unwrap())
        };
        let storage = rounds(&ends.storage, TO_STORAGE);
        let partners = rounds(&ends.partners, TO_PARTNERS);
        let flows = storage.chain(partners).map(open).collect();
        let talks = datagrams.into_iter().enumerate().map(|(number, to)| {
            let sources = ends.sources[number % ends.sources.len()];
            let bind = || UdpSocket::bind((source_for(sources, to.ip()), 0)).unwrap();
            let socket = host1.in_thread(bind);
            let stopping = Arc::clone(&stopping);
            thread::spawn(move || talk(&socket, to, &stopping))
        });
        let talks = talks.collect();
        let connections = Connections::default();
        let began = Instant::now();
        let pacing = pace(host1, ends, &connections, &stopping);
        Load {
            flows,
            talks,
            pacing,
            connections,
            stopping,
            began,
            repeated: repeated(lab),
        }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the load; every flow must make further round trips first.
    pub fn stop(self, lab: &Lab) -> Seen {
        let mut seen = Seen {
            flows: self.flows.len(),
            talks: self.talks.len(),
            ..Seen::default()
        };
        for (to, failure) in still(self.flows) {
            println!("flow to {to}: {failure:?}");
            match failure {
                ErrorKind::TimedOut => seen.hung += 1,
                _ => seen.broken += 1,
            }
        }
        seen.stray = strays(lab);
        self.stopping.store(true, Ordering::Relaxed);
        self.pacing.join().unwrap();
        for (number, talk) in self.talks.into_iter().enumerate() {
            let (sources, lost) = talk.join().unwrap();
            seen.lost += lost;
            if sources.len() > 1 {
                println!("datagrams of socket {number}: {sources:?}");
                seen.changed += 1;
            }
        }
        let connections = self.connections.lock().unwrap();
        seen.connections = connections.len();
        for Connection { began, to, asked } in connections.iter() {
            match asked {
                Ok(took) if *took <= SLOW => continue,
                Ok(_) => {}
                Err(_) => seen.failed += 1,
            }
            let at = began.duration_since(self.began);
            println!("connection to {to} at {at:.2?}: {asked:?}");
        }
        seen.repeated = repeated(lab) - self.repeated;
        let leaks = lab.leaks();
        seen.wrong = leaks.partner4 + leaks.partner6;
        seen.private = leaks.unmapped;
        seen
    }
}

/// Waits for further round trips of every flow; returns the flows that failed, with the reason.
fn still(flows: Vec<(IpAddr, LongFlow)>) -> Vec<(IpAddr, ErrorKind)> {
    let before: Vec<usize> = flows.iter().map(|(_, flow)| flow.round_trips()).collect();
    let deadline = Instant::now() + PATIENT;
    let moved = |(number, (_, flow)): (usize, &(IpAddr, LongFlow))| {
        flow.round_trips() >= before[number] + 3
    };
    while !flows.iter().enumerate().all(moved) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let moved: Vec<bool> = flows.iter().enumerate().map(moved).collect();
    // All at once: the end of a flow takes a pause.
    thread::scope(|scope| {
        let ends: Vec<_> = flows
            .into_iter()
            .zip(moved)
            .map(|((to, flow), moved)| (to, moved, scope.spawn(|| flow.stop().broken)))
            .collect();
        let ended = ends.into_iter().filter_map(|(to, moved, end)| {
            let failure = end.join().unwrap();
            let failure = failure.or((!moved).then_some(ErrorKind::TimedOut));
            failure.map(|failure| (to, failure))
        });
        ended.collect()
    })
}

/// Sends datagrams until the end; the sources that the server saw, and the lost answers.
fn talk(socket: &UdpSocket, to: SocketAddr, stopping: &AtomicBool) -> (BTreeSet<IpAddr>, usize) {
    let (mut seen, mut lost) = (BTreeSet::new(), 0);
    socket.connect(to).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut buffer = [0; 128];
    while !stopping.load(Ordering::Relaxed) {
        let asked = socket.send(b"who").and_then(|_| socket.recv(&mut buffer));
        let address = asked.ok().and_then(|length| {
            let text = std::str::from_utf8(&buffer[..length]).ok()?;
            text.trim().parse().ok()
        });
        match address {
            Some(address) => drop(seen.insert(address)),
            None => lost += 1,
        }
        thread::sleep(PAUSE);
    }
    (seen, lost)
}

/// Starts the new connections, every third to a partner.
fn pace(
    host1: &Ns,
    ends: Ends,
    connections: &Connections,
    stopping: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (connections, stopping) = (Arc::clone(connections), Arc::clone(stopping));
    let ns = host1.clone();
    thread::spawn(move || {
        // A new thread inherits its creator's namespace.
        ns.enter();
        let mut clients = Vec::new();
        let mut next = Instant::now();
        for number in 0usize.. {
            if stopping.load(Ordering::Relaxed) {
                break;
            }
            let targets = if number.is_multiple_of(3) {
                &ends.partners
            } else {
                &ends.storage
            };
            let to = targets[number / 3 % targets.len()];
            let sources = ends.sources[number % ends.sources.len()];
            let connections = Arc::clone(&connections);
            clients.push(thread::spawn(move || {
                let began = Instant::now();
                let asked = ask(sources, to);
                let connection = Connection { began, to, asked };
                connections.lock().unwrap().push(connection);
            }));
            next += Duration::from_secs(1) / NEW;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        for client in clients {
            client.join().unwrap();
        }
    })
}
