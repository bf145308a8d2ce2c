//! The interface between the agent's loop and those who ask it: what may be asked, what is
//! answered, and both in bytes.
//!
//! On the control socket a client writes one line of JSON, reads one line of JSON, and is done:
//!
//! ```text
//! "status"                            {"status":{…the snapshot…}}
//! "kick"                              "done"
//! {"pause":{"by":"flush, pid 17"}}    {"refused":"why"}
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub use super::client::{AskError, ask};
pub use super::http::{MetricsServer, serve_metrics};
use super::snapshot::Snapshot;
pub use super::socket::{ControlError, ControlSocket, serve_socket};

/// Longest request line, in bytes: the longest real one has a name of a few words in it.
pub(super) const MAX_REQUEST: u64 = 4096;
/// How long the servers wait for the loop. It answers between two steps of a pass, so this is
/// many passes long: who waits in vain was asking a loop that is stuck.
pub(super) const LOOP_WITHIN: Duration = Duration::from_secs(5);

/// What the loop is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// For its account of itself: [`Reply::Status`].
    Status,
    /// For a pass now; ends a pause. [`Reply::Done`] as soon as it is accepted: what comes of it
    /// is in the status.
    Kick,
    /// To begin no further pass until a kick or a restart. [`Reply::Done`] as soon as it holds:
    /// a pass that runs is waited for by whoever takes the pass lock next.
    Pause {
        /// Who asks, in words, for the status and the log.
        by: String,
    },
}

/// What the loop answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Its account of itself.
    Status(Box<Snapshot>),
    /// It is so.
    Done,
    /// It isn't, and why.
    Refused(String),
}

/// A question on its way to the loop. A loop that drops `answer` has refused.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub request: Request,
    /// Where the answer goes; whoever asked may be gone by then.
    pub answer: oneshot::Sender<Reply>,
}

/// The loop gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silent {
    #[error("the agent is stopping")]
    Stopping,
    #[error("the agent's loop gave no answer within {} s", LOOP_WITHIN.as_secs())]
    Stuck,
}

/// Puts a question to the loop.
pub(super) async fn ask_loop(
    to_loop: &mpsc::Sender<Asked>,
    request: Request,
) -> Result<Reply, Silent> {
    let asked = async {
        let (answer, reply) = oneshot::channel();
        let question = Asked { request, answer };
        to_loop.send(question).await.map_err(|_| Silent::Stopping)?;
        reply.await.map_err(|_| Silent::Stopping)
    };
    tokio::time::timeout(LOOP_WITHIN, asked)
        .await
        .unwrap_or(Err(Silent::Stuck))
}
