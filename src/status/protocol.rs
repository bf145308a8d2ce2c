//! Questions to the agent's loop, replies, and the encoding of both.
//!
//! On the control socket a client writes one line of JSON and reads one line of JSON; then the
//! connection ends:
//!
//! ```text
//! "status"                            {"status":{…the snapshot…}}
//! "kick"                              "done"
//! "settings"                          {"settings":{…}}
//! "documents"                         "done"
//! {"release":{"by":"reconcile"}}      "done"
//! {"pause":{"by":"flush, pid 17"}}    {"refused":"why"}
//! {"drain":{"gateway":"10.0.1.10","by":"drain, pid 17"}}    "done"
//! {"undrain":{"gateway":"10.0.1.10"}} "done"
//! ```

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::snapshot::Snapshot;
use crate::config::Overrides;

/// Longest request line, in bytes. The longest real request holds a name of a few words.
pub(super) const MAX_REQUEST: u64 = 4096;
/// How long the servers wait for the loop. The loop answers between two steps of a pass, so only
/// a stuck loop needs longer.
pub(super) const LOOP_WITHIN: Duration = Duration::from_secs(5);

/// A question to the agent's loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Asks for the snapshot: [`Reply::Status`].
    Status,
    /// Starts a pass and ends a pause. The loop replies [`Reply::Done`] on acceptance; the status
    /// shows the result later.
    Kick,
    /// Asks for the settings in force, as text: [`Reply::Settings`]. For commands beside a config
    /// file that is broken by now.
    Settings,
    /// Reports that another process has changed the documents in the state dir, with the operator's
    /// word for a held document. The loop replies [`Reply::Done`] and starts a pass on them; a
    /// pause goes on.
    Documents,
    /// Opens the firewall's table to the asking program until the next pass, which the loop starts:
    /// see `[kernel] protect_table`. The program holds the pass lock, and the loop replies
    /// [`Reply::Done`].
    Release {
        /// The asking program, for the log.
        by: String,
    },
    /// Leads new flows around an egress gateway, also after a restart. Open flows keep the gateway. The
    /// loop replies [`Reply::Done`] once the request is on disk, and starts a pass; it refuses to drain
    /// the last gateway of a family that takes new flows.
    Drain {
        gateway: IpAddr,
        /// The asking program, for the status and the journal.
        by: String,
    },
    /// Ends a drain. The loop replies [`Reply::Done`] and starts a pass, for a gateway that is not
    /// drained too.
    Undrain { gateway: IpAddr },
    /// Starts no further pass until a kick or a restart. The loop replies [`Reply::Done`] as soon
    /// as the pause is in effect; a pass may still be running and holds the pass lock until its
    /// end.
    Pause {
        /// The asking program, for the status and the log.
        by: String,
    },
}

/// The settings in force, as the agent read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsInForce {
    /// The absolute path.
    pub file: String,
    /// `None` if the file didn't exist and the defaults are in force.
    pub text: Option<String>,
    /// The flags of the agent, which beat the file.
    pub flags: Overrides,
}

/// The loop's reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(Box<Snapshot>),
    Settings(Box<SettingsInForce>),
    Done,
    /// The request has no effect; the text says why.
    Refused(String),
}

/// A question on the way to the loop. A loop that drops `answer` has refused.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    /// The way back. The client may have closed the connection meanwhile.
    pub answer: oneshot::Sender<Reply>,
}

/// The loop gave no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silent {
    #[error("the agent is stopping")]
    Stopping,
    #[error("the agent's loop did not answer within {} s", LOOP_WITHIN.as_secs())]
    Stuck,
}

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
