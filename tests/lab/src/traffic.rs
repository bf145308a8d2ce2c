//! Clients: a single question, a steady stream of new connections, a long-lived connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::server::lock;
use super::{Ns, PORT, wait_until};

/// The client's timeout for the connection, and again for the answer. Inside one machine a round
/// trip takes well under a millisecond; the rest is a reserve for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(2);

impl Ns {
    /// Connects to the line server of `address` by TCP and returns our source address seen there.
    ///
    /// # Errors
    /// The kind of the failure: `ConnectionReset` when the server refuses the source address,
    /// `HostUnreachable`, `NetworkUnreachable`, `TimedOut` and so on when the path does.
    pub fn who(&self, address: IpAddr) -> Result<IpAddr, ErrorKind> {
        self.who_at(SocketAddr::new(address, PORT))
    }

    /// Like `who`, with a port.
    pub fn who_at(&self, address: SocketAddr) -> Result<IpAddr, ErrorKind> {
        self.in_thread(|| ask(address)).map_err(kind)
    }

    /// Like `who`, with the client's socket bound to one of the host's own addresses.
    pub fn who_from(&self, source: IpAddr, address: IpAddr) -> Result<IpAddr, ErrorKind> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
        let asked = self.in_thread(|| {
            let family = match address {
                IpAddr::V4(_) => AddressFamily::INET,
                IpAddr::V6(_) => AddressFamily::INET6,
            };
            let socket = socket(family, SocketType::STREAM, None)?;
            // The send timeout bounds connect as well (socket(7)).
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
            bind(&socket, &SocketAddr::new(source, 0))?;
            match connect(&socket, &SocketAddr::new(address, PORT)) {
                Err(rustix::io::Errno::INPROGRESS) => return Err(ErrorKind::TimedOut.into()),
                other => other?,
            }
            question(&TcpStream::from(socket))
        });
        asked.map_err(kind)
    }

    /// Connects to the line server of `address` by TCP, sends `up` bytes and receives `down` bytes.
    ///
    /// # Errors
    /// As `who`.
    pub fn transfer(&self, address: IpAddr, up: usize, down: usize) -> Result<(), ErrorKind> {
        let moved = self.in_thread(|| {
            let address = SocketAddr::new(address, PORT);
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut reader = BufReader::new(&stream);
            let mut ask = |question: String| -> io::Result<usize> {
                (&stream).write_all(question.as_bytes())?;
                let mut line = String::new();
                reader.read_line(&mut line)
            };
            if up > 0 {
                ask(format!("keep {}\n", "x".repeat(up)))?;
            }
            if down > 0 && ask(format!("give {down}\n"))? != down + 1 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Ok(())
        });
        moved.map_err(kind)
    }

    /// Sends one datagram to a UDP echo and returns our source address seen there.
    ///
    /// # Errors
    /// As `who`; a lost answer is `TimedOut`.
    pub fn who_udp(&self, address: SocketAddr) -> Result<IpAddr, ErrorKind> {
        let asked = self.in_thread(|| {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                SocketAddr::V6(_) => ([0u16; 8], 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"who")?;
            let mut buffer = [0; 128];
            let length = socket.recv(&mut buffer)?;
            parse(&String::from_utf8_lossy(&buffer[..length]))
        });
        asked.map_err(kind)
    }
}

/// A read timeout is reported as `WouldBlock`, a write after a reset as `BrokenPipe`: the two names
/// of each failure depend on timing alone.
fn kind(error: io::Error) -> ErrorKind {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut,
        ErrorKind::BrokenPipe => ErrorKind::ConnectionReset,
        kind => kind,
    }
}

fn ask(address: SocketAddr) -> io::Result<IpAddr> {
    question(&TcpStream::connect_timeout(&address, PATIENCE)?)
}

fn question(stream: &TcpStream) -> io::Result<IpAddr> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream;
    writer.write_all(b"who\n")?;
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    parse(&line)
}

fn parse(line: &str) -> io::Result<IpAddr> {
    line.trim()
        .parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, line.to_owned()))
}

/// One connection of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub at: Instant,
    pub target: IpAddr,
    /// The source address seen by the server, or the failure.
    pub seen: Result<IpAddr, ErrorKind>,
}

/// A steady stream of new connections in the background.
#[derive(Debug)]
pub struct Stream {
    stopping: Arc<AtomicBool>,
    observations: Arc<Mutex<Vec<Observation>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Starts `per_second` new connections a second to each target, in a thread each: a hanging
    /// connection delays no other.
    pub fn start(from: &Ns, targets: &[IpAddr], per_second: u32) -> Stream {
        let stopping = Arc::new(AtomicBool::new(false));
        let observations: Arc<Mutex<Vec<Observation>>> = Arc::default();
        let interval = Duration::from_secs(1) / per_second;
        let pace = |target: IpAddr| {
            let (ns, stopping) = (from.clone(), Arc::clone(&stopping));
            let observations = Arc::clone(&observations);
            thread::spawn(move || {
                ns.enter();
                let mut clients = Vec::new();
                let mut next = Instant::now();
                while !stopping.load(Ordering::Relaxed) {
                    let observations = Arc::clone(&observations);
                    // A new thread inherits its creator's namespace.
                    clients.push(thread::spawn(move || {
                        let at = Instant::now();
                        let seen = ask(SocketAddr::new(target, PORT)).map_err(kind);
                        lock(&observations).push(Observation { at, target, seen });
                    }));
                    next += interval;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                for client in clients {
                    client
                        .join()
                        .expect("a client reports its failures as values");
                }
            })
        };
        let threads = targets.iter().copied().map(pace).collect();
        Stream {
            stopping,
            observations,
            threads,
        }
    }

    /// The number of completed connections.
    pub fn count(&self) -> usize {
        lock(&self.observations).len()
    }

    /// Waits for `more` further completed connections to all targets together.
    ///
    /// # Panics
    /// After twenty seconds.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let goal = self.count() + more;
        wait_until(
            Duration::from_secs(20),
            Duration::from_millis(5),
            || (self.count() >= goal).then_some(()),
            || format!("{goal} connections of the stream, but {}", self.count()),
        );
    }

    /// Ends the stream and waits for the last answers.
    pub fn stop(self) -> StreamReport {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the pacing thread doesn't panic");
        }
        let mut observations = lock(&self.observations).clone();
        observations.sort_by_key(|observation| observation.at);
        StreamReport { observations }
    }
}

/// All connections of a stream in order of time.
#[derive(Debug, Clone)]
pub struct StreamReport {
    pub observations: Vec<Observation>,
}

impl StreamReport {
    /// The number of each answer from one target.
    pub fn of(&self, target: IpAddr) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for observation in self.observations.iter().filter(|one| one.target == target) {
            let seen = match &observation.seen {
                Ok(address) => address.to_string(),
                Err(kind) => format!("{kind:?}"),
            };
            *counts.entry(seen).or_default() += 1;
        }
        counts
    }

    /// Panics if a connection to `target` was seen from another address than one of `allowed`, or if
    /// none was seen. On a busy machine connections may time out.
    #[track_caller]
    pub fn assert_seen_only(&self, target: IpAddr, allowed: &[IpAddr]) {
        let mut counts = self.of(target);
        counts.remove("TimedOut");
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        assert!(
            !counts.is_empty() && counts.keys().all(|seen| allowed.contains(seen)),
            "connections to {target} must be seen from {allowed:?}, but: {counts:?}"
        );
    }

    /// Panics unless all connections to `target` were seen from one of `allowed`, and at least one
    /// connection was made.
    #[track_caller]
    pub fn assert_only(&self, target: IpAddr, allowed: &[IpAddr]) {
        let counts = self.of(target);
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        assert!(!counts.is_empty(), "no connection to {target} was made");
        assert!(
            counts.keys().all(|seen| allowed.contains(seen)),
            "connections to {target} must be seen from {allowed:?} only, but: {counts:?}"
        );
    }
}

/// A long-lived connection with a round trip every ten milliseconds, or at a pace of its own.
#[derive(Debug)]
pub struct LongFlow {
    stopping: Arc<AtomicBool>,
    round_trips: Arc<AtomicUsize>,
    thread: JoinHandle<LongFlowReport>,
}

/// The result of a long flow.
#[derive(Debug, Clone)]
pub struct LongFlowReport {
    /// The source address seen by the server at the start.
    pub seen: IpAddr,
    /// Completed round trips.
    pub round_trips: usize,
    /// The longest round trip.
    pub slowest: Duration,
    /// The failure of a broken connection.
    pub broken: Option<ErrorKind>,
}

impl LongFlow {
    /// Opens the connection.
    ///
    /// # Errors
    /// As `Ns::who`.
    pub fn open(from: &Ns, to: IpAddr) -> Result<LongFlow, ErrorKind> {
        LongFlow::paced(from, to, Duration::from_millis(10))
    }

    /// Opens the connection, with a pause between two round trips.
    ///
    /// # Errors
    /// As `Ns::who`.
    pub fn paced(from: &Ns, to: IpAddr, pause: Duration) -> Result<LongFlow, ErrorKind> {
        let to = SocketAddr::new(to, PORT);
        let opened = from.in_thread(|| TcpStream::connect_timeout(&to, PATIENCE));
        LongFlow::over(opened.map_err(kind)?, pause)
    }

    /// Goes on over an open connection to a line server.
    ///
    /// # Errors
    /// As `Ns::who`.
    pub fn over(stream: TcpStream, pause: Duration) -> Result<LongFlow, ErrorKind> {
        let seen = question(&stream).map_err(kind)?;
        // After a gap of the path a retransmission takes a second or two.
        let patient = stream.set_read_timeout(Some(Duration::from_secs(5)));
        patient
            .and_then(|()| stream.set_nodelay(true))
            .map_err(kind)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let round_trips = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&round_trips));
        let thread = thread::spawn(move || {
            let mut report = LongFlowReport {
                seen,
                round_trips: 0,
                slowest: Duration::ZERO,
                broken: None,
            };
            let mut reader = BufReader::new(&stream);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                if let Err(error) = round_trip(&stream, &mut reader, report.round_trips) {
                    report.broken = Some(kind(error));
                    break;
                }
                report.slowest = report.slowest.max(started.elapsed());
                report.round_trips += 1;
                count.store(report.round_trips, Ordering::Relaxed);
                thread::sleep(pause);
            }
            report
        });
        Ok(LongFlow {
            stopping,
            round_trips,
            thread,
        })
    }

    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// True once the connection broke.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Closes the connection.
    pub fn stop(self) -> LongFlowReport {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("a flow reports its failures as values")
    }

    /// Closes the connection; panics if the connection broke or makes no further round trip.
    #[track_caller]
    pub fn assert_alive(self) -> LongFlowReport {
        let before = self.round_trips();
        let started = Instant::now();
        while self.round_trips() < before + 2 && started.elapsed() < Duration::from_secs(6) {
            thread::sleep(Duration::from_millis(5));
        }
        let report = self.stop();
        assert!(
            report.broken.is_none() && report.round_trips >= before + 2,
            "the open connection broke: {report:?}"
        );
        report
    }
}

fn round_trip(
    mut stream: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    number: usize,
) -> io::Result<()> {
    stream.write_all(format!("echo {number}\n").as_bytes())?;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if line.trim_end() != format!("echo {number}") {
        return Err(io::Error::new(ErrorKind::InvalidData, line));
    }
    Ok(())
}
