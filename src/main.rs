//! The program: arguments, logging and the exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use trailblazer::cli::{self, Cli, Command, LogFormat};
use trailblazer::commands;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Without standard error, no place is left for the message.
            let _ = error.print();
            return ExitCode::from(cli::exit_code(&error));
        }
    };
    start_logging(&cli);
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(commands::run(cli));
            // A name lookup after its timeout still blocks a thread; don't wait for the thread.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!("cannot start: {error}");
            ExitCode::from(trailblazer::exit::FAILED)
        }
    }
}

fn start_logging(cli: &Cli) {
    let (quiet, format) = match &cli.command {
        // The agent logs each change.
        Command::Agent(arguments) | Command::FetchForAgent(arguments) => {
            (LevelFilter::INFO, arguments.log)
        }
        _ => (LevelFilter::WARN, LogFormat::Text),
    };
    let default = match cli.verbose {
        0 => quiet,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // Targets and levels are enough; filters on spans would add a regex engine to the binary.
    let filter: Targets = std::env::var("TRAILBLAZER_LOG")
        .ok()
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(default));
    let registry = tracing_subscriber::registry().with(filter);
    let journald = match format {
        LogFormat::Journald => true,
        // systemd sets the variable if standard error goes to the journal (systemd.exec(5)).
        LogFormat::Auto => std::env::var_os("JOURNAL_STREAM").is_some(),
        LogFormat::Text | LogFormat::Json => false,
    };
    if journald {
        match tracing_journald::layer() {
            Ok(layer) => return registry.with(layer).init(),
            Err(error) if format == LogFormat::Journald => {
                eprintln!("cannot open the journal: {error}; logging to standard error");
            }
            Err(_) => {}
        }
    }
    match format {
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .init(),
        _ => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false)
                    .without_time(),
            )
            .init(),
    }
}
