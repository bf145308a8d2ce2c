//! Writes what the packages hold beside the binary and the files that lie here as they are: man
//! pages, shell completions, and the licences of everything that is linked in.
//!
//! ```text
//! cargo run --example package_files -- DIRECTORY TARGET SECONDS
//! ```
//!
//! TARGET is the triple that the binary was built for, SECONDS the date that the pages bear
//! (`SOURCE_DATE_EPOCH`). An example, so that the binary itself carries none of this.

mod copyright;
mod crates;
mod man;
mod markdown;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use trailblazer::cli::Cli;

/// Anything that ends the program with its message.
type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, target, seconds] = arguments.as_slice() else {
        eprintln!("usage: package_files DIRECTORY TARGET SECONDS");
        return ExitCode::from(64);
    };
    match write_all(Path::new(directory), target, seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("package_files: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path, target: &str, seconds: &str) -> Result<(), Failure> {
    let date = jiff::Timestamp::from_second(seconds.parse()?)?.strftime("%Y-%m-%d");
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    man::commands(&pages, &date.to_string())?;
    let page = fs::read_to_string("docs/configuration.md")
        .map_err(|error| format!("docs/configuration.md: {error}; run this where it lies"))?;
    fs::write(
        pages.join("trailblazer.toml.5"),
        man::config(&page, &date.to_string())?,
    )?;

    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "trailblazer", &completions)?;
    }

    let crates = crates::linked(target)?;
    let licences = copyright::Licences::read(&crates)?;
    fs::write(directory.join("copyright"), licences.debian(&crates)?)?;
    fs::write(
        directory.join("LICENSE.dependencies"),
        licences.plain(&crates),
    )?;
    fs::write(directory.join("licence-tag"), licences.tag(&crates))?;
    Ok(())
}
