//! The program: arguments, logging and the exit code.

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use trailblazer::cli::{self, Cli, Command, LogFormat};
use trailblazer::commands;
use trailblazer::printable::log::{Escaping, LogLine, LogWriter};
use trailblazer::printable::{escaped, is_active};
use trailblazer::reconcile::PROGRESS;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = cli::exit_code(&error);
            // Without standard error, no place is left for the message.
            let _ = print(error);
            return ExitCode::from(code);
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

/// Prints the message of the parser, which repeats words of the command line. A word with control
/// characters is parsed again as escaped text, so that the message repeats the escaped text.
fn print(error: clap::Error) -> std::io::Result<()> {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if !words.iter().any(|word| word.contains(is_active)) {
        return error.print();
    }
    match Cli::try_parse_from(words.iter().map(|word| escaped(word).into_owned())) {
        Err(error) => error.print(),
        // The escaped word is accepted, the word itself is not.
        Ok(_) => writeln!(std::io::stderr(), "error: {}", escaped(&error.to_string())),
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
        .unwrap_or_else(|| {
            let targets = Targets::new().with_default(default);
            targets.with_target(PROGRESS, default.max(LevelFilter::INFO))
        });
    let registry = tracing_subscriber::registry().with(filter);
    let journald = match format {
        LogFormat::Journald => true,
        // systemd sets the variable if standard error goes to the journal (systemd.exec(5)).
        LogFormat::Auto => std::env::var_os("JOURNAL_STREAM").is_some(),
        LogFormat::Text | LogFormat::Json => false,
    };
    if journald {
        match tracing_journald::layer() {
            Ok(layer) => return registry.with(Escaping(layer)).init(),
            Err(error) if format == LogFormat::Journald => {
                eprintln!("cannot open the journal: {error}; logging to standard error");
            }
            Err(_) => {}
        }
    }
    let is_coloured = format != LogFormat::Json && std::io::stderr().is_terminal();
    let line = match format {
        LogFormat::Json => LogLine::Json,
        _ => LogLine::Text,
    };
    let writer = move || LogWriter {
        to: std::io::stderr(),
        line,
        is_coloured,
    };
    match format {
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(writer))
            .init(),
        _ => registry
            .with(
                fmt::layer()
                    .with_writer(writer)
                    .with_ansi(is_coloured)
                    .with_target(false)
                    .without_time(),
            )
            .init(),
    }
}
