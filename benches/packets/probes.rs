//! The measured operations. Each returns nanoseconds of the thread's CPU time for one operation.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Res;
use super::scene::{DROPPED, DROPPED_PORT, PARTNER, STORAGE, Scene};

/// A destination of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Partner4,
    Storage4,
    Partner6,
    Storage6,
}

impl Target {
    /// All destinations.
    pub const ALL: [Target; 4] = [
        Target::Partner4,
        Target::Storage4,
        Target::Partner6,
        Target::Storage6,
    ];

    /// The destinations for the prices of the parts.
    pub const OF_PARTS: [Target; 2] = [Target::Partner4, Target::Partner6];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Target::Partner4 => "partner IPv4",
            Target::Storage4 => "storage IPv4",
            Target::Partner6 => "partner IPv6",
            Target::Storage6 => "storage IPv6",
        }
    }

    /// True for destinations of IPv6.
    pub fn is_ipv6(self) -> bool {
        matches!(self, Target::Partner6 | Target::Storage6)
    }

    /// True for destinations with a bypass path.
    pub fn is_storage(self) -> bool {
        matches!(self, Target::Storage4 | Target::Storage6)
    }

    fn at(self, port: u16) -> Res<SocketAddr> {
        let address: IpAddr = match self {
            Target::Partner4 => PARTNER[0],
            Target::Partner6 => PARTNER[1],
            Target::Storage4 => STORAGE[0],
            Target::Storage6 => STORAGE[1],
        }
        .parse()?;
        Ok(SocketAddr::new(address, port))
    }

    fn any(self) -> IpAddr {
        match self {
            Target::Partner4 | Target::Storage4 => Ipv4Addr::UNSPECIFIED.into(),
            Target::Partner6 | Target::Storage6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// A measured operation.
pub type Probe = fn(&Scene, Target) -> Res<f64>;

/// Datagrams of an open flow.
pub const ESTABLISHED: &str = "UDP packet";
/// Round trips of one byte on an open connection.
pub const ROUND_TRIP: &str = "TCP round trip";
/// Datagrams that open a flow each.
pub const OPENING: &str = "opening packet";
/// Connections, opened and closed.
pub const CONNECTION: &str = "TCP connection";

/// The names of the operations.
pub const NAMES: [&str; 4] = [ESTABLISHED, ROUND_TRIP, OPENING, CONNECTION];
/// The operations, as in [`NAMES`].
pub const PROBES: [Probe; 4] = [established, round_trips, opening, connections];

/// Operations that are not measured, for neighbours and for the caches of routes.
const WARM: usize = 50;

const LISTENING_PORT: u16 = 9000;

/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// CPU nanoseconds of `operation`, on average of `count` calls, or of fewer on a slow path.
fn price(scene: &Scene, count: usize, mut operation: impl FnMut(usize) -> Res<()>) -> Res<f64> {
    let count = (count / scene.slowness).max(WARM);
    for number in 0..WARM {
        operation(number)?;
    }
    let begun = cpu_time();
    for number in WARM..WARM + count {
        operation(number)?;
    }
    Ok((cpu_time() - begun) * 1e9 / count as f64)
}

/// The CPU time of this thread in seconds, softirqs inside of its system calls included.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Refuses kernels that leave softirqs out of the time of a thread.
pub fn softirqs_count() -> Res<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let settings = std::fs::read_to_string(format!("/boot/config-{}", release.trim()));
    if settings.is_ok_and(|text| text.contains("CONFIG_IRQ_TIME_ACCOUNTING=y")) {
        return Err(
            "this kernel has CONFIG_IRQ_TIME_ACCOUNTING: forwarding would cost nothing".into(),
        );
    }
    Ok(())
}

/// The flow has an answer, as most open flows have.
fn established(scene: &Scene, target: Target) -> Res<f64> {
    scene.at_far_end()?;
    let there = UdpSocket::bind(target.at(DROPPED_PORT)?)?;
    scene.at_sender()?;
    let socket = UdpSocket::bind((target.any(), 0))?;
    socket.connect(target.at(DROPPED_PORT)?)?;
    answered(&socket, &there)?;
    price(scene, 6000, |_| Ok(socket.send(DROPPED).map(drop)?))
}

/// Sends a datagram and its answer. The machine drops packets of all namespaces where too many wait.
fn answered(here: &UdpSocket, there: &UdpSocket) -> Res<()> {
    for end in [here, there] {
        end.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    let mut received = [0; 64];
    for _ in 0..20 {
        here.send(b"longer than dropped ones")?;
        if let Ok((_, sender)) = there.recv_from(&mut received) {
            there.send_to(b"answer", sender)?;
            if here.recv(&mut received).is_ok() {
                return Ok(());
            }
        }
    }
    Err("no answer to a datagram".into())
}

/// Each destination port is a flow of its own.
fn opening(scene: &Scene, target: Target) -> Res<f64> {
    scene.at_sender()?;
    let socket = UdpSocket::bind((target.any(), 0))?;
    let mut to = target.at(DROPPED_PORT)?;
    price(scene, 2000, |number| {
        to.set_port(DROPPED_PORT + number as u16);
        Ok(socket.send_to(DROPPED, to).map(drop)?)
    })
}

fn round_trips(scene: &Scene, target: Target) -> Res<f64> {
    let listener = listen(scene, target)?;
    let (mut here, mut there) = connect(&listener, target)?;
    let mut octet = [0];
    price(scene, 1500, |_| {
        here.write_all(b"1")?;
        there.read_exact(&mut octet)?;
        there.write_all(b"2")?;
        Ok(here.read_exact(&mut octet)?)
    })
}

fn connections(scene: &Scene, target: Target) -> Res<f64> {
    let listener = listen(scene, target)?;
    price(scene, 250, |_| connect(&listener, target).map(drop))
}

/// A listener at the far end; the thread is at the sender then.
fn listen(scene: &Scene, target: Target) -> Res<TcpListener> {
    scene.at_far_end()?;
    let listener = TcpListener::bind((target.any(), LISTENING_PORT))?;
    scene.at_sender()?;
    Ok(listener)
}

/// A connection: the sender's end, which closes first, and the other end.
fn connect(listener: &TcpListener, target: Target) -> Res<(TcpStream, TcpStream)> {
    let here = TcpStream::connect_timeout(&target.at(LISTENING_PORT)?, PATIENCE)?;
    let (there, _) = listener.accept()?;
    for end in [&here, &there] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((here, there))
}
