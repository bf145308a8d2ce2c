//! The servers' load: each server reads from the customer's site and writes to S3, over connections
//! that follow one another, at the rates of the model.
//!
//! The schedule is fixed beforehand and waits for nobody: a sender that was held up catches up, so that
//! the demand is the same in every series.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Res;
use super::arena::{Arena, Meter, S3, SITE, Space, Uplink};
use super::far::{PORT, Seen};
use super::model::{CATCH_UP, Model, SEGMENT, WRITE_SEGMENTS};
use super::verdict::{LATE, REPETITIONS, Step, percentile};

/// Segments of one read, and writes of one object: some seconds for each connection.
const READ_SEGMENTS: u32 = 12;
const OBJECT_WRITES: u32 = 64;
/// A connection without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// The load runs for so long before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// The measurement lasts for so many segments of a read.
const WINDOW: u32 = 8;
/// Packets of an ended step leave the queues.
const SETTLE: Duration = Duration::from_millis(120);
/// Spreads the beginnings of the servers evenly over an interval, for any number of servers.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// A runtime on one thread.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// The figures that all servers of a step share.
#[derive(Debug, Default)]
struct Tally {
    read: AtomicU64,
    connections: AtomicU64,
    failed: AtomicU64,
    connects: Times,
    late: Times,
}

/// Milliseconds, of any number of tasks.
#[derive(Debug, Default)]
pub struct Times(Mutex<Vec<f64>>);

impl Times {
    fn push(&self, since: Instant) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(since.elapsed().as_secs_f64() * 1e3);
    }

    /// All times since the last call.
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sleeps until a time, and notes the delay. A time in the past tells nothing about the sleep.
pub async fn send_at(due: Instant, late: &Times) {
    if due > Instant::now() {
        sleep_until(due).await;
        late.push(due);
    }
}

/// Measures one number of servers. A saturated NAT that should carry them, beside a late load
/// generator, is measured again: the generator is on the same machine.
pub fn step(
    arena: &Arena,
    model: &Model,
    seen: &Arc<Seen>,
    servers: usize,
    allowed: f64,
) -> Res<Step> {
    let mut repeated = 0;
    loop {
        let mut step = once(arena, model, seen, servers)?;
        step.repeated = repeated;
        let doubtful = step.saturated() && step.late_p99 > LATE && servers as f64 <= allowed;
        if !doubtful || repeated == REPETITIONS {
            return Ok(step);
        }
        repeated += 1;
    }
}

fn once(arena: &Arena, model: &Model, seen: &Arc<Seen>, servers: usize) -> Res<Step> {
    let read_interval = Duration::from_secs_f64(model.read_interval());
    let tally = Arc::new(Tally::default());
    seen.late.take();
    let meter = Arc::new(arena.meter()?);
    let runtime = runtime()?;
    let local = tokio::task::LocalSet::new();
    let spaces = arena.servers.iter().take(servers);
    let spaces: Vec<_> = spaces.map(Space::share).collect::<Res<_>>()?;
    let measured: Res<(Uplink, u64, u64, Duration)> = local.block_on(&runtime, async {
        for (number, space) in spaces.into_iter().enumerate() {
            let phase = (0.5 + number as f64 * GOLDEN).fract();
            let server = Server {
                space,
                tally: Arc::clone(&tally),
                begins: Instant::now() + read_interval.mul_f64(phase),
                phase,
            };
            spawn_local(Arc::new(server).run(model.clone()));
        }
        sleep(WARM_UP).await;
        let count = || (tally.read.load(Relaxed), seen.written.load(Relaxed));
        let uplink = counters(&meter).await?;
        let (begun, (read, written)) = (Instant::now(), count());
        sleep_until(begun + read_interval * WINDOW).await;
        let (reads, writes) = count();
        let took = begun.elapsed();
        Ok((
            counters(&meter).await?.since(uplink),
            reads - read,
            writes - written,
            took,
        ))
    });
    drop(local);
    drop(runtime);
    std::thread::sleep(SETTLE);
    let (uplink, read, written, took) = measured?;
    let rate = |bytes: u64| bytes as f64 * 8.0 / took.as_secs_f64();
    let demand = |rate: f64| Model::content(rate) * servers as f64;
    let connects = tally.connects.take();
    let late = [tally.late.take(), seen.late.take()].map(|times| percentile(&times, 0.99));
    Ok(Step {
        servers,
        seconds: took.as_secs_f64(),
        reads_demand: demand(model.reads()),
        reads: rate(read),
        writes_demand: demand(model.writes()),
        writes: rate(written),
        uplink_packets: uplink.packets,
        uplink_bytes: uplink.bytes,
        drops: uplink.drops,
        connections: tally.connections.load(Relaxed),
        failed: tally.failed.load(Relaxed),
        connect_median: percentile(&connects, 0.5),
        connect_p99: percentile(&connects, 0.99),
        late_p99: late[0].max(late[1]),
        repeated: 0,
    })
}

/// Reads the counters on another thread: a wait for `tc` would hold up the load.
async fn counters(meter: &Arc<Meter>) -> Res<Uplink> {
    let meter = Arc::clone(meter);
    Ok(tokio::task::spawn_blocking(move || meter.read()).await??)
}

#[derive(Debug)]
struct Server {
    space: Space,
    tally: Arc<Tally>,
    begins: Instant,
    /// A share of 1, different for each server: the place in the first transfer.
    phase: f64,
}

impl Server {
    async fn run(self: Arc<Self>, model: Model) {
        let writer = Arc::clone(&self).write(Duration::from_secs_f64(model.write_interval()));
        spawn_local(writer);
        self.read(Duration::from_secs_f64(model.read_interval()))
            .await;
    }

    /// The rest of the first transfer: servers are at different places of their transfers.
    fn rest(&self, whole: u32) -> u32 {
        // Another order than the one of the beginnings.
        let place = (self.phase * 7.0).fract();
        1 + (place * f64::from(whole)) as u32
    }

    async fn connect(&self, to: Ipv4Addr) -> std::io::Result<TcpStream> {
        self.tally.connections.fetch_add(1, Relaxed);
        self.space.enter()?;
        let socket = TcpSocket::new_v4()?;
        // The end of a step closes connections with a reset: nothing of them fills the queues later.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let begun = Instant::now();
        let stream = timeout(PATIENCE, socket.connect(SocketAddr::new(to.into(), PORT))).await??;
        self.tally.connects.push(begun);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(&self, interval: Duration) {
        let mut due = self.begins;
        let mut segments = self.rest(READ_SEGMENTS);
        loop {
            if self.read_once(due, segments).await.is_err() {
                self.tally.failed.fetch_add(1, Relaxed);
                sleep(interval).await;
            }
            due += interval * segments;
            segments = READ_SEGMENTS;
        }
    }

    async fn read_once(&self, due: Instant, segments: u32) -> std::io::Result<()> {
        let mut stream = self.connect(SITE).await?;
        sleep_until(due).await;
        stream.write_u32(segments).await?;
        let mut buffer = [0; 2 * SEGMENT];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                bytes => self.tally.read.fetch_add(bytes as u64, Relaxed),
            };
        }
    }

    async fn write(self: Arc<Self>, interval: Duration) {
        let mut due = self.begins;
        let mut writes = self.rest(OBJECT_WRITES);
        loop {
            match self.write_once(due, writes, interval).await {
                Ok(stream) => {
                    spawn_local(Arc::clone(&self).answered(stream));
                }
                Err(_) => {
                    self.tally.failed.fetch_add(1, Relaxed);
                    sleep(interval).await;
                }
            }
            due += interval * writes;
            writes = OBJECT_WRITES;
        }
    }

    async fn write_once(
        &self,
        due: Instant,
        writes: u32,
        interval: Duration,
    ) -> std::io::Result<TcpStream> {
        let mut stream = self.connect(S3).await?;
        let mut earliest = due;
        for number in 0..writes {
            let due = earliest.max(due + interval * number);
            send_at(due, &self.tally.late).await;
            earliest = Instant::now() + interval.div_f64(CATCH_UP);
            stream.write_all(&[0; WRITE_SEGMENTS * SEGMENT]).await?;
        }
        stream.shutdown().await?;
        Ok(stream)
    }

    /// Waits for the answer of S3 to an object.
    async fn answered(self: Arc<Self>, mut stream: TcpStream) {
        if stream.read_u8().await.is_err() {
            self.tally.failed.fetch_add(1, Relaxed);
        }
    }
}
