//! `trailblazer status`: the agent's state; without an agent, the state of the kernel and the
//! journal.

mod absent;
mod absent_vpc;
mod in_kernel;
mod timer;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::boot::AtBoot;
use super::broken_config::{self, Shown};
use super::{complain, stamped, style};
use crate::cli::{Output, StatusArgs};
use crate::columns::Style;
use crate::exit;
use crate::printable;
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::snapshot::{Snapshot, State};
use crate::status::text::to_text;
use absent::Absent;
use absent_vpc::AbsentVpc;

/// The interval of `--watch`.
const TICK: Duration = Duration::from_secs(2);
/// Moves the cursor to the corner and clears the screen (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[2J";

enum StatusView {
    Running(Box<Snapshot>),
    Absent(Box<Absent>),
    AbsentVpc(Box<AbsentVpc>),
}

/// Runs `status` and returns the exit code; with `--watch`, of the last page.
pub async fn run(arguments: &StatusArgs) -> u8 {
    let base = &arguments.base;
    let shown = match broken_config::settings(base, &base.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let redraw = arguments.watch && base.output == Output::Text && io::stdout().is_terminal();
    loop {
        let seen = look(&shown).await;
        let page = seen.page(base.output, style());
        let page = match base.output {
            Output::Text => printable::page(&page),
            Output::Json => printable::json(page.trim_end()) + "\n",
        };
        let page = if redraw {
            format!("{REDRAW}{page}\nevery {} s; Ctrl-C ends\n", TICK.as_secs())
        } else {
            page.into_owned()
        };
        let written = write(&page);
        if !arguments.watch {
            seen.complain();
        }
        // A reader ends `--watch` by closing the pipe (`| head`).
        if !arguments.watch || written.is_err() {
            return seen.exit_code();
        }
        tokio::time::sleep(TICK).await;
    }
}

fn write(page: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(page.as_bytes())?;
    out.flush()
}

async fn look(shown: &Shown) -> StatusView {
    let path = &shown.loaded.config.agent.socket;
    let error = match ask(path, Request::Status) {
        Ok(Reply::Status(mut snapshot)) => {
            snapshot.notes.extend(shown.fault.clone());
            snapshot
                .notes
                .extend(AtBoot::look(Path::new("/")).warning());
            return StatusView::Running(snapshot);
        }
        Ok(Reply::Refused(why)) => unexpected(path, format!("status refused: {why}")),
        Ok(Reply::Done | Reply::Settings(_)) => {
            unexpected(path, "no status in the reply".to_owned())
        }
        Err(error) => error,
    };
    if shown.loaded.config.vpc_role {
        let mut absent = absent_vpc::look(&shown.loaded.config, error).await;
        absent.notes.extend(shown.fault.clone());
        return StatusView::AbsentVpc(Box::new(absent));
    }
    let mut absent = absent::look(&shown.loaded, error).await;
    absent.notes.extend(shown.fault.clone());
    absent.notes.extend(AtBoot::look(Path::new("/")).warning());
    StatusView::Absent(Box::new(absent))
}

fn unexpected(path: &Path, reason: String) -> AskError {
    AskError::UnexpectedReply {
        path: path.to_owned(),
        reason,
    }
}

impl StatusView {
    fn page(&self, output: Output, style: Style) -> String {
        match (self, output) {
            (StatusView::Running(snapshot), Output::Text) => {
                to_text(snapshot, Timestamp::now().as_second(), style)
            }
            (StatusView::Running(snapshot), Output::Json) => {
                format!("{}\n", stamped(running_json(snapshot)))
            }
            (StatusView::Absent(absent), Output::Text) => absent.to_text(style),
            (StatusView::Absent(absent), Output::Json) => {
                format!("{}\n", stamped(absent.to_json()))
            }
            (StatusView::AbsentVpc(absent), Output::Text) => absent.to_text(style),
            (StatusView::AbsentVpc(absent), Output::Json) => {
                format!("{}\n", stamped(absent.to_json()))
            }
        }
    }

    /// Reports an unreachable agent as an error. A missing agent only shows on the page.
    fn complain(&self) {
        match self {
            StatusView::Absent(absent) if !absent.certainly() => complain(&absent.error),
            StatusView::AbsentVpc(absent) if !absent.certainly() => complain(&absent.error),
            _ => {}
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            StatusView::Running(snapshot) if snapshot.state == State::InForce => exit::OK,
            StatusView::Absent(absent) if absent.is_kept_by_timer() => exit::OK,
            StatusView::AbsentVpc(absent) if absent.is_kept_by_timer() => exit::OK,
            _ => exit::FAILED,
        }
    }
}

/// The snapshot with the field `agent`.
fn running_json(snapshot: &Snapshot) -> Value {
    let mut value = json!(snapshot);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("agent".to_owned(), json!("running"));
    }
    value
}
