//! Clients with more patience than any fail-over: open flows, and new connections all the time.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::*;

/// Longer than any fail-over: the product ends a flow, and never this limit.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct State {
    last_answer: Instant,
    /// The end of the connection, with the client's error.
    ended: Option<(Instant, ErrorKind)>,
}

/// An open connection with a round trip every 100 ms.
pub struct Flow {
    /// The source that the server sees.
    pub seen: IpAddr,
    state: Arc<Mutex<State>>,
    stream: TcpStream,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Opens the connection; `None` if the path fails.
    pub fn open(from: &Ns, to: IpAddr) -> Option<Flow> {
        let to = SocketAddr::new(to, PORT);
        let stream = from
            .in_thread(|| TcpStream::connect_timeout(&to, PATIENCE))
            .ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let seen = question(&stream, &mut reader, "who")
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let state = Arc::new(Mutex::new(State {
            last_answer: Instant::now(),
            ended: None,
        }));
        let stopping = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&state), Arc::clone(&stopping));
        let writer = stream.try_clone().ok()?;
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = question(&writer, &mut reader, "echo");
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match answer {
                    Ok(_) => state.last_answer = Instant::now(),
                    Err(error) => {
                        state.ended = Some((Instant::now(), error.kind()));
                        return;
                    }
                }
                drop(state);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Some(Flow {
            seen,
            state,
            stream,
            stopping,
            thread: Some(thread),
        })
    }

    /// The client's port.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the connection after this moment, with the client's error.
    pub fn ended(&self, since: Instant) -> Option<(Duration, ErrorKind)> {
        let (at, kind) = self.state().ended?;
        Some((at.saturating_duration_since(since), kind))
    }

    /// True if the server answers: an answer came within the last two seconds.
    pub fn is_alive(&self) -> bool {
        let state = self.state();
        state.ended.is_none() && state.last_answer.elapsed() < Duration::from_secs(2)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The connection may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn question(
    mut stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
    text: &str,
) -> std::io::Result<String> {
    stream.write_all(format!("{text}\n").as_bytes())?;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

/// A new connection: its begin, and the time until the server's answer.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub begun: Instant,
    pub took: Duration,
    pub seen: Result<IpAddr, ErrorKind>,
}

/// New connections all the time, five a second to each target.
pub struct Newcomers {
    stopping: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    thread: JoinHandle<()>,
}

impl Newcomers {
    pub fn start(from: &Ns, targets: &[IpAddr]) -> Newcomers {
        let stopping = Arc::new(AtomicBool::new(false));
        let attempts: Arc<Mutex<Vec<Attempt>>> = Arc::default();
        let (stop, all) = (Arc::clone(&stopping), Arc::clone(&attempts));
        let (ns, targets) = (from.clone(), targets.to_vec());
        let thread = thread::spawn(move || {
            ns.enter();
            let mut clients = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for target in targets.iter().copied() {
                    let all = Arc::clone(&all);
                    clients.push(thread::spawn(move || {
                        let attempt = attempt(target);
                        all.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(attempt);
                    }));
                }
                thread::sleep(Duration::from_millis(200));
            }
            for client in clients {
                client
                    .join()
                    .expect("a client reports its failures as values");
            }
        });
        Newcomers {
            stopping,
            attempts,
            thread,
        }
    }

    /// Ends the stream, and returns the connections in the order of their begin.
    pub fn stop(self) -> Vec<Attempt> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().expect("the pacing thread doesn't panic");
        let mut attempts = self
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        attempts.sort_by_key(|attempt| attempt.begun);
        attempts
    }
}

/// Opens a connection, and waits for the server's answer.
pub fn attempt(target: IpAddr) -> Attempt {
    let begun = Instant::now();
    let ask = || {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(target, PORT), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let line = question(&stream, &mut reader, "who")?;
        let seen = line.trim().parse();
        seen.map_err(|_| std::io::Error::from(ErrorKind::InvalidData))
    };
    let seen = ask().map_err(|error: std::io::Error| error.kind());
    Attempt {
        begun,
        took: begun.elapsed(),
        seen,
    }
}
