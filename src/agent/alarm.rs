//! A timer that wakes its thread once.
//!
//! Tokio's own timers wake a thread twice: a sleep of more than 64 ms is sorted into finer slots before its
//! end. A thread that sleeps all day for some milliseconds of work a minute pays for each wake-up.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel; `None` where the kernel refuses one. Tokio has no safe type for any file that
/// is read like a pipe but that of a pipe.
#[derive(Debug)]
pub(super) struct Alarm(Option<Receiver>);

impl Alarm {
    /// A timer for the current runtime.
    pub fn new() -> Alarm {
        let timer = timer();
        if let Err(error) = &timer {
            tracing::debug!("no timer of the kernel: {error}");
        }
        Alarm(timer.ok())
    }

    /// Waits until a time. A caller that drops the future loses nothing.
    pub async fn at(&self, time: Instant) {
        let set = self.0.as_ref().filter(|timer| set(timer, time).is_ok());
        let rung = match set {
            Some(timer) => ring(timer).await,
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        if rung.is_err() {
            tokio::time::sleep_until(time.into()).await;
        }
    }
}

fn timer() -> io::Result<Receiver> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    Receiver::from_file_unchecked(File::from(timer))
}

/// Waits for the timer. Tokio keeps the readiness of an earlier time until a reading finds nothing.
async fn ring(timer: &Receiver) -> io::Result<()> {
    let mut rung = [0; 8];
    loop {
        timer.readable().await?;
        match timer.try_read(&mut rung) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.map(|_bytes| ()),
        }
    }
}

/// Sets the timer anew, which also forgets that an earlier time has come.
fn set(timer: &Receiver, time: Instant) -> io::Result<()> {
    let left = time.saturating_duration_since(Instant::now());
    // A time of zero would switch the timer off.
    let left = left.max(Duration::from_nanos(1));
    let left = Timespec::try_from(left).map_err(|_range| io::ErrorKind::InvalidInput)?;
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: left,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_rings_at_its_time_each_time_it_is_set_and_at_once_for_a_time_that_is_past() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new();
            assert!(alarm.0.is_some());
            for wait in [30, 0, 20] {
                let time = Instant::now() + Duration::from_millis(wait);
                alarm.at(time).await;
                assert!(Instant::now() >= time);
            }
            let hour = Instant::now() + Duration::from_secs(3600);
            let soon = Duration::from_millis(20);
            // The alarm has rung before, and must not ring for that again.
            tokio::time::timeout(soon, alarm.at(hour))
                .await
                .unwrap_err();
            alarm.at(Instant::now()).await;
        });
    }
}
