//! Long texts of the help.

/// The version, with the commit and its date in builds by `make build` and in packages
/// (packaging/version.sh).
pub(super) const LONG_VERSION: &str = match option_env!("TRAILBLAZER_COMMIT") {
    Some(text) => text,
    None => env!("CARGO_PKG_VERSION"),
};

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  in sync, or changed and verified
   1  failed on the host or at run time (privileges, lock, gateway, verify)
   2  changes pending (dry run)
   3  the guard holds the document back: the last known good, if any, stays in force
  64  wrong usage or config text";

pub(super) const EXAMPLES: &str = "\
Examples:
  trailblazer reconcile --dry-run         print the plan, change nothing
  trailblazer reconcile                   apply the plan, verify the kernel, write the journal
  trailblazer explain 52.216.1.1          show the path of a packet, with the reason
  trailblazer check                       test config and host, list obstacles
  trailblazer status                      show the state of the agent and of all objects
  trailblazer flush                       remove all of Trailblazer's objects

Without a config file, on any Linux machine:
  trailblazer reconcile --dry-run --role host --region us-east-1";

pub(super) const RECONCILE_EXAMPLES: &str = "\
Examples:
  trailblazer reconcile --dry-run                        print the plan
  trailblazer reconcile                                  apply the plan
  trailblazer reconcile --dry-run -o json | jq .steps    print the plan as JSON
  trailblazer reconcile --accept 1710355389              accept a document held by the guard
  trailblazer reconcile --dry-run --role host --region us-east-1 --source ip-ranges.json";

pub(super) const PROBE_HELP: &str = "\
Opens TCP connections to the servers of [probe] targets through each gateway, and to the S3 endpoints
of the selected regions through the bypass path, each led by the policy rules of pinned flows. A
refused connection is an answer too. Needs root and the rules in force, and no agent.

Examples:
  trailblazer probe
  trailblazer probe 10.0.1.10 -n 20
  trailblazer probe bypass --target s3.eu-west-1.amazonaws.com:443
  trailblazer probe -o json | jq '.ways[] | {gateway, loss_percent}'

Exit codes: 0 through each probed way at least half of the servers answer, 1 a way fails, or nothing
can be probed, 64 wrong usage or config text";

pub(super) const DRAIN_HELP: &str = "\
Asks the running agent, which remembers the drain in the state directory: a restart and one-shot
passes keep it. While every other gateway of the family is down, new flows take a drained one.
`trailblazer status` counts the flows that are left, `trailblazer flows --all` lists them. The last
gateway of a family that takes new flows cannot be drained.

Examples:
  trailblazer drain 10.0.1.10
  trailblazer drain 10.0.1.10 --undo

Exit codes: 0 new flows take other gateways (with --undo: may take the gateway again), 1 refused, no
agent, or the pass failed, 64 wrong usage or config text";

pub(super) const FLUSH_HELP: &str = "\
Works without a config: the table numbers come from -c, else from the state dir, else from the
defaults. Trailblazer never changes the main table, so the host is as before its installation.
A running agent pauses first, until `trailblazer kick` or a restart.

With --drain, open flows keep their path: the tables and marks of pinned flows stay, and on a NAT
instance the translation of open flows. Each further call removes the objects of ended flows.

Examples:
  trailblazer flush --dry-run             print the objects that a flush removes
  trailblazer flush
  trailblazer flush --drain               remove all that open flows don't need
  trailblazer flush --drain --wait=2h     and the rest when they have ended

Exit codes: 0 removed or nothing found, or flows are left (--drain), 1 some objects are left,
2 objects found (dry run), or flows are left after the time of --wait, 64 wrong usage or config text";
