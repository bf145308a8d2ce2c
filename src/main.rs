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
use trailblazer::printable::shortened;
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

/// The longest word of the command line in a message, in characters.
const LONGEST_WORD: usize = 300;

/// Prints the message of the parser, which repeats words of the command line. Words with control
/// characters, and words of any length, are parsed again as they are shown.
fn print(error: clap::Error) -> std::io::Result<()> {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown: Vec<String> = words
        .iter()
        .map(|word| shortened(word, LONGEST_WORD))
        .collect();
    if shown == words {
        cli::without_hidden_commands(error).print()?;
    } else {
        match Cli::try_parse_from(shown) {
            Err(error) => cli::without_hidden_commands(error).print()?,
            // The word is refused, and the shown form would be accepted.
            Ok(_) => {
                let message = shortened(&error.to_string(), LONGEST_WORD * 2);
                writeln!(std::io::stderr(), "{message}")?;
            }
        }
    }
    let typographic = |word: &String| word.starts_with(['\u{2013}', '\u{2014}', '\u{2212}']);
    if words.iter().any(typographic) {
        let tip =
            "a word begins with a typographic dash, perhaps from a web page: write -- in its place";
        writeln!(std::io::stderr(), "\n  tip: {tip}")?;
    }
    Ok(())
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
