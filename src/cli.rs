//! The command line: what users script against.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{Overrides, Role};
use crate::exit;
use crate::types::SyncToken;

const EXIT_CODES: &str = "\
Exit codes:
   0  in sync, or changed and verified
   1  failed on the host or at run time (privileges, lock, gateway, verify)
   2  changes pending (dry run)
   3  held by the guard: the last known good stays in force
  64  wrong usage or config text";

const EXAMPLES: &str = "\
Examples:
  trailblazer reconcile --dry-run         what would change, and nothing more
  trailblazer reconcile                   change it, read it back, write it down
  trailblazer explain 52.216.1.1          which path a packet takes, and why
  trailblazer check                       can this host do it, and what is in the way
  trailblazer status                      what the agent is doing, and whether all is in force
  trailblazer flush                       take everything of ours away again

Without a config file, on any Linux machine:
  trailblazer reconcile --dry-run --role host --region us-east-1";

const RECONCILE_EXAMPLES: &str = "\
Examples:
  trailblazer reconcile --dry-run                        read the plan first
  trailblazer reconcile                                  carry it out
  trailblazer reconcile --dry-run -o json | jq .steps    the same plan for programs
  trailblazer reconcile --accept 1710355389              end the guard's hold on that document
  trailblazer reconcile --dry-run --role host --region us-east-1 --source ip-ranges.json";

/// Storage traffic around the NAT, everything else through it.
///
/// Keeps routes, policy rules and NAT rules such that traffic to the selected AWS prefixes (S3
/// by default) takes the bypass path, and everything else is seen from fixed egress addresses.
#[derive(Debug, Parser)]
#[command(
    name = "trailblazer",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on standard error; twice for debugging. TRAILBLAZER_LOG sets it finer.
    #[arg(short, long, global = true, display_order = 100, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the kernel in line with the document and the config: one pass.
    #[command(after_help = format!("{RECONCILE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Reconcile(ReconcileArgs),
    /// Keep it so: a pass for each cause (timer, drift, new document, signal), until told to stop.
    #[command(after_help = "\
Runs in the foreground; trailblazer.service runs it under systemd. SIGHUP reads the config again
(a bad one is refused and the old one stays), SIGTERM ends it and leaves everything in place.

Exit codes: 0 told to stop, 1 can't start or go on, 64 wrong usage or config text")]
    Agent(AgentArgs),
    /// The agent's own: one fetch in a process of its own, asked for and answered over pipes.
    #[command(hide = true)]
    FetchForAgent(AgentArgs),
    /// Say which path a destination takes, why, and whether the kernel agrees.
    #[command(after_help = "\
Examples:
  trailblazer explain 52.216.1.1
  trailblazer explain 2600:1fa0:8000::1 -o json

Exit codes: 0 the kernel agrees, 1 it doesn't or can't be asked, 64 wrong usage or config text")]
    Explain(ExplainArgs),
    /// Print the selected prefixes: those in force, or with --source those of that document.
    #[command(after_help = "\
Examples:
  trailblazer ranges
  trailblazer ranges --region eu-west-1 --service S3 --service DYNAMODB -o json")]
    Ranges(CommonArgs),
    /// Print the last passes from the journal.
    #[command(after_help = "\
Examples:
  trailblazer history
  trailblazer history --last 100 -o json | jq '.passes[] | select(.outcome != \"in_sync\")'")]
    History(HistoryArgs),
    /// Check the config and the host without touching anything.
    #[command(after_help = "\
Each line says ok, warn or fail, and what to do.

Exit codes: 0 no fail, 1 at least one, 64 wrong usage or config text")]
    Check(CommonArgs),
    /// Say what the running agent is doing: whether all is in force, since when, and from what.
    #[command(after_help = "\
Without a running agent it says what the kernel and the journal tell.

Examples:
  trailblazer status
  trailblazer status --watch
  trailblazer status -o json | jq '.document.age_s'

Exit codes: 0 in force, 1 not in force or no agent, 64 wrong usage or config text")]
    Status(StatusArgs),
    /// Ask the running agent for a pass now; ends the pause that flush began.
    #[command(after_help = "\
Exit codes: 0 the agent begins a pass, 1 it doesn't or can't be asked, 64 wrong usage or config text")]
    Kick(BaseArgs),
    /// Remove everything of ours: rules first, then the rest. The kill switch.
    #[command(after_help = "\
Works without a config: the numbers come from -c, else from the state dir, else the defaults.
The main table was never changed, so the host is then as it was before.
A running agent is told to pause first: until `trailblazer kick` or a restart.

Exit codes: 0 removed or nothing there, 1 something is left, 64 wrong usage or config text")]
    Flush(FlushArgs),
}

/// Flags of commands that look at the whole: the config and what may be put over it.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The settings' file and the output.
    #[command(flatten)]
    pub base: BaseArgs,
    /// What this machine is; beats the config file.
    #[arg(long, value_name = "ROLE", value_enum)]
    pub role: Option<RoleArg>,
    /// Where the document comes from: a URL or file; repeat for a list to try in order.
    #[arg(long, value_name = "URL|FILE")]
    pub source: Vec<String>,
    /// A region to select, or `auto`; repeat for several.
    #[arg(long, value_name = "REGION")]
    pub region: Vec<String>,
    /// A service to select, as AWS writes it; repeat for several.
    #[arg(long, value_name = "SERVICE")]
    pub service: Vec<String>,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct BaseArgs {
    /// The config file [default: /etc/trailblazer/trailblazer.toml if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the last known good, the journal and the lock lie; beats the config file.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// For people or for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// `reconcile`
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Print what would change; write nothing anywhere.
    #[arg(long)]
    pub dry_run: bool,
    /// Fetch, judge and store the document alone; the kernel stays as it is (to bake an image).
    #[arg(long)]
    pub cache_only: bool,
    /// End the guard's hold on the document of this sync token.
    #[arg(long, value_name = "TOKEN", value_parser = sync_token)]
    pub accept: Option<SyncToken>,
    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `agent`
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// How to log: for people, as JSON lines, or as journald fields. `auto` takes journald where
    /// systemd connects us to it.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto")]
    pub log: LogFormat,
    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `--log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// journald under systemd, else text.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Fields of the systemd journal.
    Journald,
}

/// `explain`
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The destination, IPv4 or IPv6.
    #[arg(value_parser = address)]
    pub address: IpAddr,
    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `history`
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// How many passes, the newest last.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// The settings' file and the output.
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Look again every 2 seconds, until Ctrl-C.
    #[arg(short, long)]
    pub watch: bool,
    /// The settings' file and the output.
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `flush`
#[derive(Debug, Clone, Args)]
pub struct FlushArgs {
    /// The settings' file and the output.
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `-o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--role`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// A server that leaves through a NAT instance.
    Host,
    /// The NAT instance itself.
    Nat,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Host => Role::Host,
            RoleArg::Nat => Role::Nat,
        }
    }
}

impl CommonArgs {
    /// What goes over the config file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            role: self.role.map(Role::from),
            source: self.source.clone(),
            regions: self.region.clone(),
            services: self.service.clone(),
            state_dir: self.base.state_dir.clone(),
        }
    }
}

impl BaseArgs {
    /// What goes over the config file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            state_dir: self.state_dir.clone(),
            ..Overrides::default()
        }
    }
}

impl Command {
    /// The name as it is typed, for the journal and the lock.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Reconcile(_) => "reconcile",
            Command::Agent(_) => "agent",
            Command::FetchForAgent(_) => "fetch-for-agent",
            Command::Explain(_) => "explain",
            Command::Ranges(_) => "ranges",
            Command::History(_) => "history",
            Command::Check(_) => "check",
            Command::Status(_) => "status",
            Command::Kick(_) => "kick",
            Command::Flush(_) => "flush",
        }
    }

    /// The flags that every command has.
    pub fn base(&self) -> &BaseArgs {
        match self {
            Command::Reconcile(args) => &args.common.base,
            Command::Agent(args) | Command::FetchForAgent(args) => &args.common.base,
            Command::Explain(args) => &args.common.base,
            Command::Ranges(args) | Command::Check(args) => &args.base,
            Command::History(args) => &args.base,
            Command::Status(args) => &args.base,
            Command::Kick(args) => args,
            Command::Flush(args) => &args.base,
        }
    }

    /// What goes over the config file.
    pub fn overrides(&self) -> Overrides {
        match self {
            Command::Reconcile(args) => args.common.overrides(),
            Command::Agent(args) | Command::FetchForAgent(args) => args.common.overrides(),
            Command::Explain(args) => args.common.overrides(),
            Command::Ranges(args) | Command::Check(args) => args.overrides(),
            Command::History(args) => args.base.overrides(),
            Command::Status(args) => args.base.overrides(),
            Command::Kick(args) => args.overrides(),
            Command::Flush(args) => args.base.overrides(),
        }
    }
}

/// The exit code of clap's own answer: its default for wrong usage is 2, which here means
/// "changes pending".
pub fn exit_code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
        _ => exit::USAGE,
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        "not an IP address; names are not resolved: ask for one address that the name has \
         (`getent ahosts NAME`)"
            .to_owned()
    })?;
    // Programs that speak to IPv4 through IPv6 sockets log ::ffff:192.0.2.1; its packets are IPv4.
    match address.to_canonical() {
        address if address.is_unspecified() => {
            Err("no packet goes there: it stands for no address".to_owned())
        }
        address => Ok(address),
    }
}

fn sync_token(text: &str) -> Result<SyncToken, String> {
    text.parse().map(SyncToken).map_err(|_| {
        "a sync token is the number that the hold's message and `syncToken` in the document show, \
         such as 1710355389"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn explain_takes_what_a_packet_can_go_to() {
        for (text, address) in [
            ("52.216.1.1", "52.216.1.1"),
            ("::ffff:52.216.1.1", "52.216.1.1"),
        ] {
            let cli = parsed(&format!("trailblazer explain {text}")).expect("an address");
            let Command::Explain(arguments) = cli.command else {
                panic!("explain");
            };
            assert_eq!(arguments.address.to_string(), address);
        }
        for refused in ["0.0.0.0", "::", "52.216.0.0/15", "s3.amazonaws.com"] {
            assert!(parsed(&format!("trailblazer explain {refused}")).is_err());
        }
    }

    #[test]
    fn the_contract_of_reconcile() {
        let cli = parsed(
            "trailblazer reconcile --dry-run --cache-only --accept 17 -c a.toml --role nat \
             --source u --source v --region us-east-1 --region eu-west-1 --service S3 \
             --state-dir /s -o json -vv",
        )
        .expect("the contract");
        assert_eq!(cli.verbose, 2);
        assert_eq!(cli.command.name(), "reconcile");
        let overrides = cli.command.overrides();
        assert_eq!(overrides.role, Some(Role::Nat));
        assert_eq!(overrides.source, ["u", "v"]);
        assert_eq!(overrides.regions, ["us-east-1", "eu-west-1"]);
        assert_eq!(overrides.services, ["S3"]);
        assert_eq!(overrides.state_dir, Some(PathBuf::from("/s")));
        let Command::Reconcile(args) = cli.command else {
            panic!("another command");
        };
        assert!(args.dry_run && args.cache_only);
        assert_eq!(args.accept, Some(SyncToken(17)));
        assert_eq!(args.common.base.config, Some(PathBuf::from("a.toml")));
        assert_eq!(args.common.base.output, Output::Json);
    }

    #[test]
    fn every_command_takes_config_and_output() {
        for command in [
            "reconcile",
            "agent",
            "explain ::1",
            "ranges",
            "history",
            "check",
            "status",
            "kick",
            "flush",
        ] {
            let cli = parsed(&format!("trailblazer {command} -c f -o json --state-dir d"));
            let cli = cli.unwrap_or_else(|error| panic!("{command}: {error}"));
            assert_eq!(
                cli.command.base().config,
                Some(PathBuf::from("f")),
                "{command}"
            );
            assert_eq!(cli.command.base().output, Output::Json, "{command}");
            assert_eq!(
                cli.command.overrides().state_dir,
                Some(PathBuf::from("d")),
                "{command}"
            );
            let help = parsed(&format!(
                "trailblazer {} --help",
                command.replace(" ::1", "")
            ));
            assert_eq!(exit_code(&help.expect_err("help")), exit::OK, "{command}");
        }
    }

    #[test]
    fn wrong_usage_is_64_and_help_is_0() {
        for (line, code) in [
            ("trailblazer", exit::USAGE),
            ("trailblazer reconcil", exit::USAGE),
            ("trailblazer reconcile --accept soon", exit::USAGE),
            ("trailblazer reconcile --role router", exit::USAGE),
            ("trailblazer reconcile -o yaml", exit::USAGE),
            ("trailblazer explain", exit::USAGE),
            ("trailblazer explain s3.amazonaws.com", exit::USAGE),
            ("trailblazer history -n -1", exit::USAGE),
            ("trailblazer flush --role host", exit::USAGE),
            ("trailblazer kick --watch", exit::USAGE),
            ("trailblazer --version", exit::OK),
            ("trailblazer --help", exit::OK),
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!(exit_code(&error), code, "{line}: {error}");
        }
    }

    #[test]
    fn help_teaches() {
        let help = Cli::command().render_long_help().to_string();
        for part in [
            "reconcile --dry-run",
            "Exit codes:",
            "64  wrong usage",
            "TRAILBLAZER_LOG",
        ] {
            assert!(help.contains(part), "{help}\nlacks {part}");
        }
    }
}
