//! The reading of the config file after SIGHUP, on a thread of its own: a disk may never answer.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

/// Longest wait for the config file. systemd waits for the end of the reload.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The readings of the config file. `T` is the result of one.
pub(super) struct ConfigReading<T> {
    read: Box<dyn Fn() -> Reader<T> + Send>,
    to_loop: UnboundedSender<T>,
    running: bool,
    /// Another SIGHUP came meanwhile: the content may be outdated.
    again: bool,
    /// Time of refusing a reload without an answer.
    by: Option<Instant>,
    /// Readings so far.
    number: u64,
}

type Reader<T> = Box<dyn FnOnce() -> T + Send>;

/// The end of a reading.
pub(super) enum ReadingEnd {
    /// The content counts, under this number.
    Counts(u64),
    /// Another reading has begun.
    Outdated,
    /// Another reading was due, and cannot begin for this reason.
    Failed(String),
}

impl<T: Send + 'static> ConfigReading<T> {
    /// No reading yet. `read` reads the file, and `to_loop` takes the results.
    pub fn new(
        read: impl Fn() -> T + Clone + Send + 'static,
        to_loop: UnboundedSender<T>,
    ) -> ConfigReading<T> {
        ConfigReading {
            read: Box::new(move || Box::new(read.clone())),
            to_loop,
            running: false,
            again: false,
            by: None,
            number: 0,
        }
    }

    /// Begins a reading, after the running one if there is one.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn request(&mut self, now: Instant) -> Result<(), String> {
        self.by = Some(now + READ_WITHIN);
        if self.running {
            self.again = true;
            return Ok(());
        }
        self.start()
    }

    fn start(&mut self) -> Result<(), String> {
        self.again = false;
        self.number += 1;
        let (read, to_loop) = ((self.read)(), self.to_loop.clone());
        let thread = std::thread::Builder::new().name("reload".to_owned());
        // A failure to send means that the loop has ended.
        match thread.spawn(move || drop(to_loop.send(read()))) {
            Ok(_) => {
                self.running = true;
                Ok(())
            }
            Err(error) => {
                self.by = None;
                Err(format!("cannot start a thread: {error}"))
            }
        }
    }

    /// The loop has received a result.
    pub fn ended(&mut self) -> ReadingEnd {
        self.running = false;
        if self.again {
            return match self.start() {
                Ok(()) => ReadingEnd::Outdated,
                Err(reason) => ReadingEnd::Failed(reason),
            };
        }
        self.by = None;
        ReadingEnd::Counts(self.number)
    }

    /// The reason to refuse the reload if the file has not been read in time.
    pub fn timed_out(&mut self, now: Instant) -> Option<String> {
        self.by.take_if(|by| now >= *by)?;
        let seconds = READ_WITHIN.as_secs();
        Some(format!("the disk gives no answer within {seconds} s"))
    }

    /// The end of the wait for the config file.
    pub fn due(&self) -> Option<Instant> {
        self.by
    }

    /// The number of the last reading.
    pub fn number(&self) -> u64 {
        self.number
    }
}
