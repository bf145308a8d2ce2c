//! Man pages: section 8 from the clap types, section 5 from `docs/configuration.md`.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use trailblazer::cli::Cli;

use crate::{Failure, markdown};

const MANUAL: &str = "Trailblazer";

const FILES: &str = "\
.SH FILES
.TP
.I /etc/trailblazer/trailblazer.toml
The config, see
.BR trailblazer.toml (5).
The service doesn't start before it is there;
.I trailblazer.toml.example
beside it is a beginning.
.TP
.I /var/lib/trailblazer
The last known good, what the guard holds, the journal and the lock.
.TP
.I /run/trailblazer/control.sock
Where the agent is asked: status, kick, drain, and the pause of flush.
.TP
.I /usr/share/doc/trailblazer
What each verdict means and what to do, every metric, alerts, and the drop-ins for hosts whose
config needs more than the unit grants.
";

/// `trailblazer.8` and one page for each command.
pub fn commands(directory: &Path, date: &str) -> Result<(), Failure> {
    let mut root = Cli::command();
    root.build();
    // Hidden commands (only the agent runs them, such as fetch-for-agent) and `help` get no page.
    let shown: Vec<&Command> = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .collect();
    let names: Vec<String> = shown.iter().map(|command| full_name(command)).collect();
    for command in shown {
        let name = full_name(command);
        let text = page(command, date, &[], &["trailblazer".to_owned()])?;
        fs::write(directory.join(format!("{name}.8")), text)?;
    }
    let text = page(&root, date, &names, &names)?;
    fs::write(directory.join("trailblazer.8"), text)?;
    Ok(())
}

fn full_name(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

fn page(
    command: &Command,
    date: &str,
    commands: &[String],
    see_also: &[String],
) -> Result<String, Failure> {
    let man = Man::new(command.clone())
        .section("8")
        .date(date)
        .source(concat!("trailblazer ", env!("CARGO_PKG_VERSION")))
        .manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut page = String::from_utf8(page)?;
    // What clap prints below the options is split into the sections that man pages have for it;
    // what stands before the first heading belongs to the description.
    let after = command.get_after_help().map(ToString::to_string);
    let parts = after.as_deref().map(parts).unwrap_or_default();
    page.push_str(".PP\n");
    page.push_str(&verbatim(&parts.before));

    let mut rest = Vec::new();
    man.render_options_section(&mut rest)?;
    if !commands.is_empty() {
        man.render_subcommands_section(&mut rest)?;
    }
    page.push_str(&String::from_utf8(rest)?.replace(".SH SUBCOMMANDS", ".SH COMMANDS"));
    if !parts.exit.is_empty() {
        page.push_str(".SH \"EXIT STATUS\"\n");
        page.push_str(&verbatim(&parts.exit));
    }
    page.push_str(".SH ENVIRONMENT\n.TP\n.B TRAILBLAZER_LOG\nHow much is logged: ");
    page.push_str("error, warn, info, debug or trace, alone or by target.\n");
    page.push_str(FILES);
    if !parts.examples.is_empty() {
        page.push_str(".SH EXAMPLES\n");
        page.push_str(&verbatim(&parts.examples));
    }
    page.push_str(".SH \"SEE ALSO\"\n");
    for name in see_also {
        page.push_str(&format!(".BR {} (8),\n", markdown::escape(name, true)));
    }
    page.push_str(".BR trailblazer.toml (5)\n");
    Ok(page)
}

#[derive(Default)]
struct Parts {
    before: Vec<String>,
    examples: Vec<String>,
    exit: Vec<String>,
}

fn parts(text: &str) -> Parts {
    let mut parts = Parts::default();
    let mut current = &mut parts.before;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Exit codes:") {
            current = &mut parts.exit;
            // One line in the short commands' help, one for each code in the others'.
            current.extend(
                rest.split(", ")
                    .map(|code| code.trim().to_owned())
                    .filter(|code| !code.is_empty()),
            );
        } else if let Some(rest) = line.strip_suffix(':')
            && (rest == "Examples" || rest.starts_with("Without a config"))
        {
            current = &mut parts.examples;
            if rest != "Examples" {
                current.push(line.to_owned());
            }
        } else {
            current.push(line.to_owned());
        }
    }
    parts
}

/// Lines that keep their breaks.
fn verbatim(lines: &[String]) -> String {
    let text = lines.join("\n");
    if text.trim().is_empty() {
        return String::new();
    }
    let lines = text.trim_matches('\n').lines();
    let lines: Vec<String> = lines.map(|line| markdown::escape(line, true)).collect();
    format!(".nf\n{}\n.fi\n", lines.join("\n"))
}

/// `trailblazer.toml.5` from the page on the configuration.
pub fn config(page: &str, date: &str) -> Result<String, Failure> {
    let (_title, body) = page
        .split_once("\n\n")
        .ok_or("docs/configuration.md has no text")?;
    let title = format!(
        ".TH trailblazer.toml 5 {date} \"trailblazer {}\" {MANUAL}\n",
        env!("CARGO_PKG_VERSION")
    );
    Ok(title
        + ".SH NAME\ntrailblazer.toml \\- the config of trailblazer(8)\n"
        + ".SH SYNOPSIS\n.I /etc/trailblazer/trailblazer.toml\n.SH DESCRIPTION\n"
        + &markdown::to_man(body)
        + ".SH \"SEE ALSO\"\n.BR trailblazer (8),\n.BR trailblazer\\-check (8)\n")
}
