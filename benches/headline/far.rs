//! The far ends: a customer's site that sends paced data, and S3 that receives.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use super::arena::{Arena, S3, SITE, Space};
use super::model::SEGMENT;
use super::{Res, load};

/// The port of both services.
pub const PORT: u16 = 443;

/// The longest queue of connections that wait for the service.
const BACKLOG: u32 = 4096;

/// The traffic at the site and at S3.
#[derive(Debug, Default)]
pub struct Seen {
    /// Bytes that S3 has received.
    pub written: AtomicU64,
    /// Delays of the site's segments.
    pub late: load::Times,
    sources: Mutex<[BTreeSet<Ipv4Addr>; 2]>,
}

impl Seen {
    fn source(&self, service: usize, from: SocketAddr) {
        if let IpAddr::V4(address) = from.ip() {
            let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources[service].insert(address);
        }
    }

    /// The source addresses at the site and at S3 since the last call.
    pub fn take_sources(&self) -> [BTreeSet<Ipv4Addr>; 2] {
        std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts both services, each on a thread of its own, for the rest of the process.
pub fn start(arena: &Arena, read_interval: Duration) -> Res<Arc<Seen>> {
    let seen = Arc::new(Seen::default());
    let site = listener(&arena.site, SITE)?;
    let s3 = listener(&arena.s3, S3)?;
    let (to_site, to_s3) = (Arc::clone(&seen), Arc::clone(&seen));
    serve(site, move |stream, from| {
        to_site.source(0, from);
        send_paced(stream, read_interval, Arc::clone(&to_site))
    })?;
    serve(s3, move |stream, from| {
        to_s3.source(1, from);
        receive(stream, Arc::clone(&to_s3))
    })?;
    Ok(seen)
}

fn listener(space: &Space, address: Ipv4Addr) -> Res<std::net::TcpListener> {
    space.enter()?;
    let runtime = load::runtime()?;
    let _entered = runtime.enter();
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address.into(), PORT))?;
    Ok(socket.listen(BACKLOG)?.into_std()?)
}

fn serve<F, Task>(listener: std::net::TcpListener, answer: F) -> Res<()>
where
    F: Fn(TcpStream, SocketAddr) -> Task + Send + 'static,
    Task: Future<Output = std::io::Result<()>> + 'static,
{
    let (ready, started) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = match load::runtime() {
            Ok(runtime) => runtime,
            Err(error) => return ready.send(Err(error)).unwrap_or(()),
        };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return ready.send(Err(error)).unwrap_or(()),
            };
            // The receiver lives until this message.
            let _ = ready.send(Ok(()));
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        tokio::task::spawn_local(answer(stream, from));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
    });
    Ok(started.recv()??)
}

/// Reads the number of segments, and sends as many, one in each interval.
async fn send_paced(
    mut stream: TcpStream,
    interval: Duration,
    seen: Arc<Seen>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let segments = stream.read_u32().await?;
    let begun = Instant::now();
    for number in 0..segments {
        load::send_at(begun + interval * number, &seen.late).await;
        stream.write_all(&[0; SEGMENT]).await?;
    }
    stream.shutdown().await
}

/// Receives an object to its end, and answers with one byte.
async fn receive(mut stream: TcpStream, seen: Arc<Seen>) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            bytes => seen.written.fetch_add(bytes as u64, Relaxed),
        };
    }
    stream.write_u8(1).await?;
    stream.shutdown().await
}
