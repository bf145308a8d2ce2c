//! The flags of commands that need no whole config.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::BaseArgs;
use super::values::{ProbedWay, count, flow_count, gateway, moment, probed_way};
use crate::config::{Target, duration, probe_target};

/// `history`
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The number of passes to print, the newest last.
    #[arg(short = 'n', long, value_name = "N", default_value = "20", value_parser = count)]
    pub last: usize,
    /// Print every pass in the journal.
    #[arg(long, conflicts_with = "last")]
    pub all: bool,
    /// Print the passes since this time: a span before now (90min, 2h, 3d) or an RFC 3339 time.
    #[arg(long, value_name = "SPAN|TIME", value_parser = moment, conflicts_with_all = ["all", "last"])]
    pub since: Option<Timestamp>,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Repeat every 2 seconds, until Ctrl-C.
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `blocked`
#[derive(Debug, Clone, Args)]
pub struct BlockedArgs {
    /// The number of entries to print, those with most packets first.
    #[arg(short = 'n', long, value_name = "N", default_value = "20", value_parser = count)]
    pub first: usize,
    /// Print every entry of the list.
    #[arg(long, conflicts_with = "first")]
    pub all: bool,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `flows`
#[derive(Debug, Clone, Args)]
pub struct FlowsArgs {
    /// List every pinned flow.
    #[arg(long)]
    pub all: bool,
    /// List only flows whose path differs from that of a new flow (the default).
    #[arg(long, conflicts_with = "all")]
    pub displaced: bool,
    /// The largest number of flows to list; the others are counted.
    #[arg(short = 'n', long, value_name = "N", default_value = "1000", value_parser = flow_count)]
    pub limit: usize,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `probe`
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// The address of a gateway, or `bypass`; without it, every way is probed.
    #[arg(value_name = "GATEWAY|bypass", value_parser = probed_way)]
    pub way: Option<ProbedWay>,
    /// The number of probes of each server through each way.
    #[arg(short = 'n', long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// A TCP server in place of `[probe] targets` and the S3 endpoints; repeat for several.
    #[arg(long, value_name = "HOST:PORT", value_parser = probe_target)]
    pub target: Vec<Target>,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `drain`
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The address of the gateway, as in `[egress] gateways`.
    #[arg(value_name = "GATEWAY", value_parser = gateway)]
    pub gateway: IpAddr,
    /// Let new flows take the gateway again.
    #[arg(long)]
    pub undo: bool,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `kick`
#[derive(Debug, Clone, Args)]
pub struct KickArgs {
    /// Wait for the end of the pass and print the outcome.
    #[arg(short, long)]
    pub wait: bool,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `flush`
#[derive(Debug, Clone, Args)]
pub struct FlushArgs {
    /// Print the objects to remove; change nothing and leave the agent running.
    #[arg(long)]
    pub dry_run: bool,
    /// Keep the paths of open flows until the flows end, and print how many are left. New flows take
    /// the path without Trailblazer at once.
    #[arg(long)]
    pub drain: bool,
    /// With --drain: wait for the end of the open flows, for this time (30s, 10m, 2h) at most.
    #[arg(
        long, value_name = "TIME", num_args = 0..=1, require_equals = true, requires = "drain",
        conflicts_with = "dry_run", value_parser = duration
    )]
    pub wait: Option<Option<Duration>>,
    #[command(flatten)]
    pub base: BaseArgs,
}

/// `shut`
#[derive(Debug, Clone, Args)]
pub struct ShutArgs {
    #[command(flatten)]
    pub base: BaseArgs,
}
