//! Remarks for the operator of a command while a remote service keeps the command waiting.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The target of the remarks among the log messages. The program shows the target at level `info`
/// on standard error, beside warnings and errors.
pub const PROGRESS: &str = "progress";

/// The first remark comes after this time: most answers are quicker.
const FIRST: Duration = Duration::from_secs(1);
/// The time between further remarks.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs a future, with remarks about a long wait. `longest` is its bound.
pub async fn remarked<T>(
    what: impl Display,
    longest: Duration,
    future: impl Future<Output = T>,
) -> T {
    let started = Instant::now();
    let mut future = std::pin::pin!(future);
    if let Ok(done) = tokio::time::timeout(FIRST, &mut future).await {
        return done;
    }
    let longest = longest.as_secs().max(1);
    tracing::info!(target: PROGRESS, "waiting for {what}, at most {longest} s");
    loop {
        if let Ok(done) = tokio::time::timeout(AGAIN, &mut future).await {
            return done;
        }
        let so_far = started.elapsed().as_secs();
        tracing::info!(target: PROGRESS, "still waiting for {what}: {so_far} s of at most {longest} s");
    }
}
