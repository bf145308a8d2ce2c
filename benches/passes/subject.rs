//! Trailblazer: the library's pass in this process, and the binary in a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use trailblazer::apply::apply;
use trailblazer::config::{Config, Role, parse};
use trailblazer::firewall::{BackendKind, ObservedFirewall, SavedRules};
use trailblazer::kernel::Kernel;
use trailblazer::objects::Route;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::plan::{Goal, Plan, Step, plan};
use trailblazer::ranges::Document;
use trailblazer::reconcile::{Options, Outcome, Report, one_shot};
use trailblazer::state::store::{Slot, Store};
use trailblazer::types::Family;

use super::samples::{Rows, milliseconds, timed};
use super::{Res, arena, documents, raw};

/// The binary under test, of the benchmark's own profile.
pub const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");

/// Published in 2023: not in the future of any clock.
const TOKEN: u64 = 1_700_000_000;

/// A host with a document of so many prefixes.
#[derive(Debug)]
pub struct Subject {
    size: usize,
    directory: PathBuf,
    config: Config,
    runtime: tokio::runtime::Runtime,
    before: String,
    after: String,
    template: Option<Route>,
    rules: SavedRules,
    ruleset: String,
}

impl Subject {
    /// Writes config and documents.
    pub fn new(name: &str, size: usize) -> Res<Subject> {
        let prefixes = documents::prefixes(size);
        let mut more = prefixes.clone();
        more.push(documents::another(size));
        Subject::with_documents(
            name,
            size,
            documents::document(TOKEN, &prefixes),
            documents::document(TOKEN + 1, &more),
        )
    }

    /// With a given document, and a second one with one prefix more.
    pub fn with_documents(name: &str, size: usize, before: String, after: String) -> Res<Subject> {
        let directory = PathBuf::from(arena::DIRECTORY).join(name);
        std::fs::create_dir_all(&directory)?;
        let text = format!(
            "role = \"host\"\n\
             [source]\nurl = \"{directory}/ip-ranges.json\"\nstate_dir = \"{directory}/state\"\n\
             max_bytes = \"256MiB\"\n\
             [select]\nregions = [\"{region}\"]\nservices = [\"{service}\"]\n\
             [guard]\nmax_loss = \"100%\"\nmax_prefixes = 2000000\nhold_down = \"0s\"\n\
             [egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n\
             [vpc]\ncidrs = [\"10.0.0.0/16\", \"2600:1f18:1000::/48\"]\n",
            directory = directory.display(),
            region = documents::REGION,
            service = documents::SERVICE,
        );
        let config = parse(&text, "the benchmark's config")?;
        std::fs::write(directory.join("trailblazer.toml"), text)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Subject {
            size,
            directory,
            config,
            runtime,
            before,
            after,
            template: None,
            rules: SavedRules::default(),
            ruleset: String::new(),
        })
    }

    /// How many prefixes, and so routes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The bypass table.
    pub fn table(&self) -> u32 {
        self.config.bypass.table.0
    }

    /// The directory of config and documents.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// The route of the second document's additional prefix.
    #[allow(clippy::expect_used)]
    pub fn another_route(&self) -> Route {
        let mut route = self
            .template
            .clone()
            .expect("a first installation went before");
        route.key.dst = documents::another(self.size);
        route
    }

    /// The record of the firewall after the last first installation.
    pub fn rules(&self) -> &SavedRules {
        &self.rules
    }

    /// The same as a file for `nft -f` that replaces our table.
    pub fn ruleset(&self) -> &str {
        &self.ruleset
    }

    /// Forgets every pass, and publishes the first document.
    pub fn forget(&self) -> Res<()> {
        let state = self.directory.join("state");
        if state.exists() {
            std::fs::remove_dir_all(state)?;
        }
        self.publish(&self.before)
    }

    /// Publishes the second document.
    pub fn publish_another(&self) -> Res<()> {
        self.publish(&self.after)
    }

    fn publish(&self, document: &str) -> Res<()> {
        Ok(std::fs::write(
            self.directory.join("ip-ranges.json"),
            document,
        )?)
    }

    /// Runs one pass that must end with `outcome`; returns also the milliseconds.
    pub fn pass(&self, outcome: Outcome) -> Res<(Report, f64)> {
        let options = Options {
            sync: false,
            ..Options::default()
        };
        let future = one_shot(&self.config, Role::Host, &options, Kernel::open, None);
        let (report, took) = timed(|| self.runtime.block_on(future));
        if report.outcome != outcome {
            return Err(format!("a pass ended as {}: {report:?}", report.outcome.as_str()).into());
        }
        Ok((report, took))
    }

    /// Removes all our objects, as `flush` does; returns the plan.
    pub fn remove(&self) -> Res<Plan> {
        let ownership = Ownership::new(Numbers::of(&self.config), []);
        let mut kernel = Kernel::open()?;
        let kinds = [BackendKind::Nftables];
        let observed = kernel.observe(&ownership, &kinds)?;
        let steps = plan(&Goal::nothing(), &observed, &ownership);
        apply(&steps, &mut kernel, &ownership, None, &mut || {})?;
        let observed = kernel.observe(&ownership, &kinds)?;
        if observed.owned(&ownership).is_empty() {
            Ok(steps)
        } else {
            Err("something of ours is left after the removal".into())
        }
    }

    /// The whole life, once in this process and once by the binary. Adds to `messages` the number
    /// of netlink notifications for the change of one prefix, with the number of steps.
    pub fn live(&mut self, rows: &mut Rows, messages: &mut Vec<(usize, usize)>) -> Res<Plan> {
        const NAME: &str = "trailblazer";
        self.forget()?;
        let (first, took) = self.pass(Outcome::Changed)?;
        rows.push(NAME, "first", took);
        self.template = first.plan.steps.iter().find_map(|step| match step {
            Step::Route { route, .. }
                if route.target.forwards()
                    && route.key.table.0 == self.table()
                    && route.key.family() == Family::Ipv4 =>
            {
                Some(route.clone())
            }
            _ => None,
        });
        for (stage, spent) in &first.stages {
            rows.push("first", stage, milliseconds(*spent));
        }
        self.rules = present_rules()?;
        let table = arena::programs::output("nft", &["list", "table", "inet", "trailblazer"])?;
        self.ruleset = format!("table inet trailblazer\ndelete table inet trailblazer\n{table}");
        let routes = first.aggregated.ipv4 + first.aggregated.ipv6;
        if routes != self.size {
            return Err(format!("{} prefixes became {routes} routes", self.size).into());
        }
        // Short measurements are disturbed more: several a round.
        let repeated = if self.size > 11_000 { 1 } else { 5 };
        for _ in 0..repeated {
            self.no_op(rows)?;
        }
        self.publish_another()?;
        let watcher = Watcher::open()?;
        let (change, took) = self.pass(Outcome::Changed)?;
        messages.push((change.plan.steps.len(), watcher.count()?));
        rows.push(NAME, "one more", took);
        for (stage, spent) in &change.stages {
            rows.push("one more", stage, milliseconds(*spent));
        }
        let (removed, took) = timed(|| self.remove());
        removed?;
        rows.push(NAME, "removal", took);
        arena::settle(self.size);

        self.forget()?;
        rows.push("process", "first", self.run_binary()?);
        rows.push("process", "no-op", self.run_binary()?);
        self.publish_another()?;
        rows.push("process", "one more", self.run_binary()?);
        self.remove()?;
        Ok(first.plan)
    }

    /// A pass without changes, together with its indispensable parts: reading the routes from the
    /// kernel, and the stored document.
    pub fn no_op(&self, rows: &mut Rows) -> Res<()> {
        let (report, took) = self.pass(Outcome::InSync)?;
        rows.push("trailblazer", "no-op", took);
        for (stage, spent) in &report.stages {
            rows.push("no-op", stage, milliseconds(*spent));
        }
        let socket = raw::socket()?;
        let (count, took) = timed(|| raw::dump(&socket, self.table()));
        if count? != self.size {
            return Err("the kernel holds another number of routes".into());
        }
        rows.push("needed", "dump", took);
        let (loaded, took) = timed(|| self.load());
        loaded?;
        rows.push("needed", "load", took);
        Ok(())
    }

    fn load(&self) -> Res<usize> {
        let stored = Store::open(&self.config.source.state_dir).read(Slot::LastKnownGood)?;
        Ok(Document::parse(stored.body())?.rows.len())
    }

    /// The command line that runs a pass.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["reconcile", "-c"])
            .arg(self.directory.join("trailblazer.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Milliseconds from fork to exit.
    pub fn run_binary(&self) -> Res<f64> {
        let (status, took) = timed(|| self.command().status());
        let status = status?;
        if status.success() {
            Ok(took)
        } else {
            Err(format!("the binary ended with {status}").into())
        }
    }
}

/// The rules of our table as they are in the kernel.
fn present_rules() -> Res<SavedRules> {
    match Kernel::open()?.firewall(BackendKind::Nftables).observe()? {
        ObservedFirewall::Owned(owned) => Ok(owned.snapshot),
        other => Err(format!("no rules of ours: {other:?}").into()),
    }
}

/// Receives every notification in this network namespace.
struct Watcher(Socket);

impl Watcher {
    /// Begins to listen. Group numbers of linux/rtnetlink.h: link, addresses, routes, rules,
    /// next hops.
    fn open() -> Res<Watcher> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [1, 5, 7, 8, 9, 11, 19, 32] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Watcher(socket))
    }

    /// How many messages there were.
    fn count(self) -> Res<usize> {
        let mut received = Vec::with_capacity(64 << 10);
        let mut count = 0;
        loop {
            received.clear();
            match self.0.recv_from(&mut received, 0) {
                // One notification a datagram.
                Ok(_) => count += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
