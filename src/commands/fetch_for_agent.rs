//! `trailblazer fetch-for-agent`: the child that fetches for the agent, see [`crate::source::child`].

use std::io;
use std::os::fd::AsFd;

use clap::ValueEnum as _;
use tokio::net::unix::pipe;

use super::complain;
use crate::cli::LogFormat;
use crate::exit;
use crate::source::child::{Asker, serve};

/// Who fetches for an agent that logs like this.
pub fn asker(log: LogFormat, verbose: u8) -> Asker {
    let mut arguments = vec!["fetch-for-agent".to_owned()];
    if let Some(format) = log.to_possible_value() {
        arguments.extend(["--log".to_owned(), format.get_name().to_owned()]);
    }
    arguments.extend((0..verbose).map(|_| "--verbose".to_owned()));
    Asker::Child { arguments }
}

/// One request, one answer.
pub async fn run() -> u8 {
    let served = async {
        let from = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        let to = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
        serve(from, to).await
    };
    match served.await {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format!(
                "fetch-for-agent is the agent's own, which talks to it over pipes: {error}"
            ));
            exit::FAILED
        }
    }
}
