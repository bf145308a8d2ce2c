//! The command line, a contract for scripts.

mod args;
mod help;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{AnyRole, Overrides, own_region};
use crate::types::{Region, SyncToken};
pub use args::{
    BlockedArgs, DrainArgs, FlowsArgs, FlushArgs, HistoryArgs, KickArgs, ProbeArgs, ShutArgs,
    StatusArgs,
};
use help::{
    DRAIN_HELP, EXAMPLES, EXIT_CODES, FLUSH_HELP, LONG_VERSION, PROBE_HELP, RECONCILE_EXAMPLES,
};
pub use values::{Destination, ProbedWay, exit_code, without_hidden_commands};
use values::{destination, port, sync_token};

/// Routes storage traffic around the NAT, and all other traffic through the NAT.
///
/// Maintains routes, policy rules and NAT rules: traffic to the selected AWS prefixes (S3 by
/// default) takes the bypass path, around the NAT; all other traffic leaves from fixed egress
/// addresses.
///
/// Terms: the document is AWS's list of prefixes, ip-ranges.json. The guard checks each new document;
/// the last known good is the newest document that the guard accepted. A pass reads the document,
/// compares it with the kernel, applies the difference and verifies the result.
#[derive(Debug, Parser)]
#[command(
    name = "trailblazer",
    version,
    arg_required_else_help = true,
    long_version = LONG_VERSION,
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Declared here for flags before the command; clap copies the values to the command's own.
    #[command(flatten)]
    pub base: BaseArgs,
    /// Log more on standard error; twice for debug messages. TRAILBLAZER_LOG sets levels by module.
    #[arg(short, long, global = true, display_order = 100, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one pass: change routes, rules and firewall to match the document and the config.
    #[command(after_help = format!("{RECONCILE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Reconcile(ReconcileArgs),
    /// Run continuously; start a pass on a timer, on drift, on a new document or on a signal.
    #[command(after_help = "\
Runs in the foreground; trailblazer.service runs the agent under systemd. SIGHUP reloads the
config (the agent refuses a bad config and keeps the old one). SIGTERM stops the agent and leaves
all routes and rules in place.

Exit codes: 0 stopped by a signal, 1 failed to start or to continue, 64 wrong usage or config text")]
    Agent(AgentArgs),
    /// Internal: one fetch in a child process of the agent, controlled over pipes.
    #[command(hide = true)]
    FetchForAgent(AgentArgs),
    /// Show the path of a destination, the reason, and the kernel's own answer.
    #[command(after_help = "\
Examples:
  trailblazer explain 52.216.1.1
  trailblazer explain 2600:1fa0:8000::1 -o json
  trailblazer explain 52.216.0.0/15             show the parts of the prefix with their paths
  trailblazer explain s3.amazonaws.com --probe  resolve the name, connect to each address

Exit codes: 0 the kernel agrees (with --probe: and each connection opened), 1 the kernel disagrees
or can't be asked, or the name has no address, 64 wrong usage or config text")]
    Explain(ExplainArgs),
    /// Print the selected prefixes in force, or, with --source, of another document.
    #[command(after_help = "\
Examples:
  trailblazer ranges
  trailblazer ranges --region eu-west-1 --service S3 --service DYNAMODB -o json")]
    Ranges(CommonArgs),
    /// Print the last passes from the journal.
    #[command(after_help = "\
Examples:
  trailblazer history
  trailblazer history --since 2h
  trailblazer history --all -o json | jq '.passes[] | select(.outcome != \"in_sync\")'")]
    History(HistoryArgs),
    /// Check the config and the host without any change.
    #[command(after_help = "\
Each line has a level (ok, warn or fail) and advice.

Exit codes: 0 no fail, 1 at least one fail, 64 wrong usage or config text")]
    Check(CommonArgs),
    /// Show the state of the running agent: objects in force, since when, and from which document.
    #[command(after_help = "\
Without a running agent, shows the state of the kernel and of the journal.

Examples:
  trailblazer status
  trailblazer status --watch
  trailblazer status -o json | jq '.document.age_s'

Exit codes: 0 in force, 1 not in force or no agent, 64 wrong usage or config text")]
    Status(StatusArgs),
    /// List the dropped packets: from and to which address, how often, since when.
    #[command(after_help = "\
Reads the list in the kernel, and needs no agent. The list has 1024 entries for each reason and
family; an entry without a packet for an hour goes. Reasons: closed (host: on neither path), outside
and sources (NAT: clients outside and inside [nat] sources, without an egress address).

Examples:
  trailblazer blocked
  trailblazer blocked --all -o json | jq '.entries[] | select(.reason == \"closed\")'

Exit codes: 0 the list was read, 1 no list or unreadable, 64 wrong usage")]
    Blocked(BlockedArgs),
    /// List open flows that keep another path than a new flow would take.
    #[command(after_help = "\
Asks conntrack and the kernel's routes; needs CAP_NET_ADMIN, and no agent. Bytes need
net.netfilter.nf_conntrack_acct = 1, ages net.netfilter.nf_conntrack_timestamp = 1.

Examples:
  trailblazer flows
  trailblazer flows --all --limit 20
  trailblazer flows -o json | jq '.flows[] | select(.why == \"gateway_left\")'

Exit codes: 0 the list was read, 1 no flow is pinned or the list is unreadable, 64 wrong usage or
config text")]
    Flows(FlowsArgs),
    /// Probe each gateway and the bypass path now, with latency and loss.
    #[command(after_help = PROBE_HELP)]
    Probe(ProbeArgs),
    /// Lead new flows around a gateway, for planned work; open flows keep it until they end.
    #[command(after_help = DRAIN_HELP)]
    Drain(DrainArgs),
    /// Make the running agent start a pass now; also ends the pause after a flush.
    #[command(after_help = "\
Examples:
  trailblazer kick
  trailblazer kick --wait

Exit codes: 0 the agent starts a pass (with --wait: the pass succeeded), 1 no pass or no agent
(with --wait: the pass failed), 64 wrong usage")]
    Kick(KickArgs),
    /// Remove all of Trailblazer's objects, rules first (kill switch).
    #[command(after_help = FLUSH_HELP)]
    Flush(FlushArgs),
    /// Shut the egress by the config alone, until the next pass; for the boot before the network.
    #[command(after_help = "\
trailblazer-shut.service runs this command before the network comes up. Connections from outside,
private networks, DNS, the metadata service, DHCP and neighbour discovery keep working. Of a broken
config file the readable part counts. `trailblazer flush` opens the egress.

Exit codes: 0 shut, or the config leaves the egress open, 1 not shut, 64 wrong usage or config text")]
    Shut(ShutArgs),
}

/// Flags of all commands that need the whole config: the file, and settings that beat the file.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub base: BaseArgs,
    /// The role of this machine; beats the config file.
    #[arg(long, value_name = "ROLE", value_enum)]
    pub role: Option<RoleArg>,
    /// The source of the document, a URL or file; repeat for several, tried in order.
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
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The directory of the last known good, the journal and the lock; beats the config file.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// The output format.
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub output: Output,
}

/// `reconcile`
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Print the plan; change no kernel object and no file.
    #[arg(long)]
    pub dry_run: bool,
    /// Fetch, check and store the document only; the kernel stays unchanged (for machine images).
    #[arg(long)]
    pub cache_only: bool,
    /// Accept the document with this sync token, although the guard holds the document back.
    #[arg(long, value_name = "TOKEN", value_parser = sync_token)]
    pub accept: Option<SyncToken>,
    /// Accept this region of the metadata service, although the instance ran in another one.
    #[arg(long, value_name = "REGION", value_parser = own_region)]
    pub accept_region: Option<Region>,
    /// Write Prometheus metrics of the pass to this file, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "cache_only"])]
    pub metrics_file: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `agent`
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The log format: text, JSON lines or journald fields. `auto` is journald if systemd connects
    /// standard error to the journal, else text.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto")]
    pub log: LogFormat,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `--log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// journald under systemd, else text.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
    /// Fields of the systemd journal.
    Journald,
}

/// `explain`
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// An address, a prefix, or a host name to resolve.
    #[arg(value_name = "ADDRESS|PREFIX|NAME", value_parser = destination)]
    pub destination: Destination,
    /// Open a TCP connection to the address or name, and show the source address.
    #[arg(
        long, value_name = "PORT", num_args = 0..=1, require_equals = true,
        default_missing_value = "443", value_parser = port
    )]
    pub probe: Option<u16>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A value of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

/// `--role`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// A server behind a NAT instance.
    Host,
    /// The NAT instance itself.
    Nat,
    /// A process anywhere that maintains a VPC's route tables.
    Vpc,
}

impl From<RoleArg> for AnyRole {
    fn from(role: RoleArg) -> AnyRole {
        match role {
            RoleArg::Host => AnyRole::Host,
            RoleArg::Nat => AnyRole::Nat,
            RoleArg::Vpc => AnyRole::Vpc,
        }
    }
}

impl CommonArgs {
    /// Settings that beat the config file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            role: self.role.map(AnyRole::from),
            source: self.source.clone(),
            regions: self.region.clone(),
            services: self.service.clone(),
            state_dir: self.base.state_dir.clone(),
        }
    }
}

impl BaseArgs {
    /// Settings that beat the config file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            state_dir: self.state_dir.clone(),
            ..Overrides::default()
        }
    }
}

impl Command {
    fn common(&self) -> Option<&CommonArgs> {
        match self {
            Command::Reconcile(args) => Some(&args.common),
            Command::Agent(args) | Command::FetchForAgent(args) => Some(&args.common),
            Command::Explain(args) => Some(&args.common),
            Command::Ranges(args) | Command::Check(args) => Some(args),
            Command::History(_) | Command::Status(_) | Command::Kick(_) => None,
            Command::Blocked(_) | Command::Flush(_) | Command::Shut(_) => None,
            Command::Flows(_) | Command::Drain(_) | Command::Probe(_) => None,
        }
    }

    /// The name of the command, for the journal and the lock.
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
            Command::Blocked(_) => "blocked",
            Command::Flows(_) => "flows",
            Command::Probe(_) => "probe",
            Command::Drain(_) => "drain",
            Command::Kick(_) => "kick",
            Command::Flush(_) => "flush",
            Command::Shut(_) => "shut",
        }
    }

    /// The common flags of every command.
    pub fn base(&self) -> &BaseArgs {
        match self {
            Command::Reconcile(args) => &args.common.base,
            Command::Agent(args) | Command::FetchForAgent(args) => &args.common.base,
            Command::Explain(args) => &args.common.base,
            Command::Ranges(args) | Command::Check(args) => &args.base,
            Command::History(args) => &args.base,
            Command::Status(args) => &args.base,
            Command::Blocked(args) => &args.base,
            Command::Flows(args) => &args.base,
            Command::Probe(args) => &args.base,
            Command::Drain(args) => &args.base,
            Command::Kick(args) => &args.base,
            Command::Flush(args) => &args.base,
            Command::Shut(args) => &args.base,
        }
    }

    /// Settings that beat the config file.
    pub fn overrides(&self) -> Overrides {
        match self.common() {
            Some(common) => common.overrides(),
            None => self.base().overrides(),
        }
    }
}

#[cfg(test)]
mod tests;
