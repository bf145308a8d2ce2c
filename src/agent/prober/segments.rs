//! The segments of this host, read at the pace of the counters while a gateway carries packets.

use std::io;
use std::time::Duration;

use super::Probing;
use crate::health::Segments;
use crate::kernel::segments;

/// A difference to an older reading says nothing about the present.
const FRESH: Duration = Duration::from_secs(1);

/// The last reading of the segments.
#[derive(Debug, Default)]
pub(super) struct Sent {
    last: Option<(Duration, Segments)>,
    said: bool,
}

impl Sent {
    /// The segments since the last reading, if both are close enough.
    fn take(&mut self, read: io::Result<Segments>, now: Duration) -> Option<Segments> {
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(
                        "no sign of repeated segments, so that a gateway that loses packets is found later: {error}"
                    );
                }
                return None;
            }
        };
        let (at, last) = self.last.replace((now, read))?;
        let fresh = now.saturating_sub(at) <= FRESH;
        let segments = Segments {
            sent: read.sent.checked_sub(last.sent)?,
            repeated: read.repeated.checked_sub(last.repeated)?,
        };
        fresh.then_some(segments)
    }
}

impl Probing<'_> {
    /// Reads the segments after a reading of the counters. Those of forwarded flows belong to other hosts.
    pub(super) fn count_segments(&mut self, now: Duration) {
        if self.ways.forwards || !self.watch.wants_segments(now) {
            return;
        }
        if let Some(segments) = self.sent.take(segments::read(), now) {
            self.watch.segments(segments, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sent: u64, repeated: u64) -> io::Result<Segments> {
        Ok(Segments { sent, repeated })
    }

    #[test]
    fn segments_are_those_since_a_fresh_reading() {
        let mut segments = Sent::default();
        let millis = Duration::from_millis;
        assert_eq!(segments.take(read(100, 3), millis(0)), None, "the first");
        let more = Segments {
            sent: 7,
            repeated: 1,
        };
        assert_eq!(segments.take(read(107, 4), millis(250)), Some(more));
        assert_eq!(segments.take(read(900, 9), millis(2_000)), None, "a rest");
        assert_eq!(
            segments.take(read(4, 0), millis(2_250)),
            None,
            "other counters"
        );
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(segments.take(Err(refused), millis(2_500)), None);
        assert!(segments.said);
        assert_eq!(segments.take(read(11, 1), millis(2_750)), Some(more));
    }
}
