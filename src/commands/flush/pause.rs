//! The pause of running agents before a flush.

use std::path::Path;

use super::super::agents;
use super::outcome::Flushed;
use crate::kernel::firewall::nftables::Protection;
use crate::status::control::{AskError, Reply, Request, ask};

const PAUSED: &str = "paused: it restores nothing until `trailblazer kick` or a restart";

/// Pauses a running agent. Without a pause the flush continues but fails in the end, since the agent
/// may restore the removed objects at once.
pub(super) fn agent(socket: &Path, flushed: &mut Flushed) {
    let why = match pause(socket) {
        Ok(Reply::Done) => {
            flushed.agent = Some("paused");
            flushed.notes.push(format!("the agent is {PAUSED}"));
            return;
        }
        Err(AskError::NoAgent { .. }) => {
            flushed.agent = Some("not_running");
            return;
        }
        Ok(reply) => refusal(reply),
        Err(error) => error.to_string(),
    };
    flushed.agent = Some("unreachable");
    flushed.errors.push(format!(
        "the agent is not paused and may restore the removed objects: {why}"
    ));
}

/// Pauses the agent that has our table for itself (`[kernel] protect_table`). `asked` is the socket
/// of [`agent`]: the flush may have another config than the agent.
pub(super) fn owner_of_table(asked: &Path) -> Protection {
    let asked = asked.to_owned();
    Protection::asking(move || {
        let mut others = agents::sockets();
        others.retain(|socket| *socket != asked);
        if others.is_empty() {
            return Err(format!(
                "no other agent than that at {} was found",
                asked.display()
            ));
        }
        for socket in others {
            match pause(&socket) {
                Ok(Reply::Done) => {
                    tracing::warn!("the agent at {} is {PAUSED}", socket.display());
                }
                Ok(reply) => return Err(refusal(reply)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    })
}

fn pause(socket: &Path) -> Result<Reply, AskError> {
    let by = format!("flush, pid {}", std::process::id());
    ask(socket, Request::Pause { by })
}

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::Refused(why) => format!("pause refused: {why}"),
        Reply::Done | Reply::Status(_) | Reply::Settings(_) => "unexpected reply".to_owned(),
    }
}
