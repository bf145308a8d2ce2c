//! `trailblazer fetch-for-agent`: the agent's fetch child, see [`crate::source::child`].

use std::io;
use std::os::fd::AsFd;

use clap::ValueEnum as _;
use tokio::net::unix::pipe;

use super::complain;
use crate::cli::LogFormat;
use crate::exit;
use crate::source::child::{Asker, serve};
use crate::source::sandbox;

/// The fetch child of an agent with these log settings.
pub fn asker(log: LogFormat, verbose: u8) -> Asker {
    let mut arguments = vec!["fetch-for-agent".to_owned()];
    if let Some(format) = log.to_possible_value() {
        arguments.extend(["--log".to_owned(), format.get_name().to_owned()]);
    }
    arguments.extend((0..verbose).map(|_| "--verbose".to_owned()));
    Asker::Child { arguments }
}

/// Serves one request over standard input and output.
pub async fn run() -> u8 {
    let served = async {
        let from = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        let to = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
        serve(from, to, |settings| sandbox::enter(settings.mark)).await
    };
    match served.await {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format!(
                "only the agent runs fetch-for-agent, with pipes as standard input and output: {error}"
            ));
            exit::FAILED
        }
    }
}
