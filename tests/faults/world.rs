//! One scenario in a bare namespace: builds the earlier state, runs passes, reads the outcome.
//!
//! Everything here runs on a thread inside the namespace (`World::enter`).

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use trailblazer::apply::{Interposer, apply};
use trailblazer::config::{Config, Role, parse};
use trailblazer::firewall::{
    BackendKind, ObservedFirewall, PathTraffic, Ruleset, SavedRules, Variant,
};
use trailblazer::journal::{Journal, PassRecord};
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::nftables::Nftables;
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::kernel::lookup::{Lookup, RouteDecision, lookup};
use trailblazer::kernel::route::{Write, encode};
use trailblazer::kernel::{Kernel, ObserveError};
use trailblazer::objects::Route;
use trailblazer::observed::OwnedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::plan::{Action, Goal, Step, plan};
use trailblazer::reconcile::{Options, Outcome, Report, Watched, one_shot};
use trailblazer::state::lock;
use trailblazer::types::{Family, IfIndex};

use crate::foreign::{Foreign, Routes};
use crate::scenario::{Scenario, UPGRADE};
use lab::{Bare, Ns, scratch};

/// Addresses for partners; not from the documentation blocks, which verify itself looks up.
pub const PARTNERS: [&str; 2] = ["8.8.8.8", "2606:4700:4700::1111"];
/// Resolver, metadata and a peered network: the main table's, always.
const PRIVATE: [&str; 4] = [
    "10.0.0.2",
    "169.254.169.254",
    "192.168.7.7",
    "fd00:ec2::254",
];

/// The kernel's route decision for each address.
pub type Decisions = Vec<(IpAddr, RouteDecision)>;

/// A namespace, a scenario, and the outcome of the scenario's passes without any fault.
pub struct World {
    pub scenario: Scenario,
    pub bare: Bare,
    /// The directory for documents and state.
    pub directory: PathBuf,
    /// Our objects before the pass and after.
    pub owned: [OwnedState; 2],
    pub decisions: [Decisions; 2],
    /// Decisions before an upgrade: through nexthop objects.
    aged: Option<Decisions>,
    pub foreign: Foreign,
    foreign_firewall: String,
    /// The steps of the pass.
    pub steps: Vec<trailblazer::plan::Step>,
}

/// The settings of a stage.
pub fn config(scenario: &Scenario, directory: &Path, stage: usize) -> Config {
    let directory = directory.display();
    let role = scenario.role.as_str();
    let text = format!(
        "role = \"{role}\"\n[source]\nurl = \"{directory}/{stage}.json\"\n\
         state_dir = \"{directory}/state\"\n[vpc]\ncidrs = [\"10.0.0.0/16\"]\n\
         [guard]\nmax_loss = \"100%\"\nhold_down = \"0s\"\n{}",
        scenario.stage(stage).config
    );
    let text = if text.contains("[select]") {
        text.replace("[select]", "[select]\nregions = [\"us-east-1\"]")
    } else {
        format!("{text}\n[select]\nregions = [\"us-east-1\"]")
    };
    parse(&text, "a fault test").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn document(stage: usize, prefixes: &[&str]) -> String {
    let rows = |ipv6: bool| {
        let key = if ipv6 { "ipv6_prefix" } else { "ip_prefix" };
        let rows: Vec<String> = prefixes
            .iter()
            .filter(|prefix| prefix.contains(':') == ipv6)
            .map(|prefix| {
                format!(
                    "{{\"{key}\": \"{prefix}\", \"region\": \"us-east-1\", \"service\": \"S3\"}}"
                )
            })
            .collect();
        rows.join(",")
    };
    format!(
        "{{\"syncToken\": \"{}\", \"createDate\": \"2026-11-18-17-05-12\", \
         \"prefixes\": [{}], \"ipv6_prefixes\": [{}]}}",
        1_790_000_000 + stage,
        rows(false),
        rows(true)
    )
}

/// Runs one pass with the settings of a stage; the interposer may interfere.
pub fn run_pass(config: &Config, role: Role, interposer: Option<&mut dyn Interposer>) -> Report {
    run_pass_on(config, role, open_kernel, interposer)
}

thread_local! {
    /// Detecting iptables starts processes: once is enough.
    static IPTABLES: Rc<RefCell<IptablesBackend>> =
        Rc::new(RefCell::new(IptablesBackend::detect()));
}

/// The thread's iptables backend.
pub struct SharedIptables(Rc<RefCell<IptablesBackend>>);

impl SharedIptables {
    pub fn new() -> Self {
        SharedIptables(IPTABLES.with(Rc::clone))
    }
}

impl FirewallBackend for SharedIptables {
    fn kind(&self) -> BackendKind {
        BackendKind::Iptables
    }

    fn description(&self) -> String {
        self.0.borrow().description()
    }

    fn variant(&self) -> Variant {
        self.0.borrow().variant()
    }

    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        self.0.borrow_mut().certainly_holds_ours(found)
    }

    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        self.0.borrow_mut().observe()
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        self.0.borrow().render(ruleset)
    }

    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        self.0.borrow_mut().traffic()
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.0.borrow_mut().replace(ruleset)
    }

    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        self.0.borrow_mut().restore(snapshot)
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        self.0.borrow_mut().remove()
    }
}

pub fn open_kernel() -> Result<Kernel, ObserveError> {
    Kernel::with_backends(Box::new(Nftables::new()), Box::new(SharedIptables::new()))
}

/// The same on a kernel of the caller's making.
pub fn run_pass_on(
    config: &Config,
    role: Role,
    kernel: impl FnOnce() -> Result<Kernel, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    run_pass_with(config, role, Options::default(), kernel, interposer)
}

fn run_pass_with(
    config: &Config,
    role: Role,
    options: Options,
    kernel: impl FnOnce() -> Result<Kernel, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let options = Options {
        sync: false,
        ..options
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(one_shot(config, role, &options, kernel, interposer))
}

/// Only looks at the steps.
struct Recorder(Vec<trailblazer::plan::Step>);

impl Interposer for Recorder {
    fn before(
        &mut self,
        _index: usize,
        step: &trailblazer::plan::Step,
    ) -> Option<trailblazer::kernel::errno::KernelError> {
        self.0.push(step.clone());
        None
    }
}

/// The number of namespaces that share the steps of a scenario. More than cores, since a pass that
/// adds or removes firewall hooks mostly sleeps (the kernel waits about 30 ms for packets in
/// flight).
const SHARDS: usize = 6;

/// Calls `body` for every step of the scenario, spread over several namespaces.
pub fn at_every_step(scenario: Scenario, body: impl Fn(&World, usize) + Sync) {
    let visited = AtomicUsize::new(0);
    let steps = AtomicUsize::new(0);
    thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (body, visited, steps) = (&body, &visited, &steps);
            scope.spawn(move || {
                World::enter(scenario, |world| {
                    steps.store(world.steps.len(), Ordering::Relaxed);
                    for at in (shard..world.steps.len()).step_by(SHARDS) {
                        body(world, at);
                        visited.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
    });
    assert_eq!(
        visited.into_inner(),
        steps.into_inner(),
        "every step was visited once"
    );
}

impl World {
    /// Runs `body` on a thread inside a fresh namespace with the scenario's state before in force.
    pub fn enter<T: Send>(scenario: Scenario, body: impl FnOnce(&World) -> T + Send) -> T {
        let bare = Bare::with_links(2);
        let ns = bare.ns.clone();
        ns.in_thread(move || {
            let world = World::build(scenario, bare);
            body(&world)
        })
    }

    fn build(scenario: Scenario, bare: Bare) -> World {
        let directory = scratch().join(bare.ns.name());
        fs::create_dir_all(&directory).expect("the scratch directory is writable");
        if scenario.role == Role::Nat {
            bare.ns.sysctl(&[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
            ]);
        }
        scenario.add_foreign(&bare.ns);
        let mut world = World {
            scenario,
            foreign: Foreign::read(Routes::All),
            foreign_firewall: bare.ns.foreign_nft(),
            bare,
            directory,
            owned: Default::default(),
            decisions: Default::default(),
            aged: None,
            steps: Vec::new(),
        };
        assert!(world.foreign.len() > 10, "the foreign objects are there");
        if scenario.before.is_some() {
            world.write_document(0);
            let report = world.pass(0, None);
            assert_eq!(report.outcome, Outcome::Changed, "before: {report:?}");
        }
        world.owned[0] = world.owned_now();
        world.decisions[0] = world.decisions_now();
        copy(
            &world.directory.join("state"),
            &world.directory.join("kept"),
        );
        if scenario.name == UPGRADE {
            scenario.age(world.ns());
            world.aged = Some(world.decisions_now());
        }
        world.write_document(1);
        let mut recorder = Recorder(Vec::new());
        let report = world.pass(1, Some(&mut recorder));
        assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
        world.owned[1] = world.owned_now();
        world.decisions[1] = world.decisions_now();
        world.steps = recorder.0;
        assert!(
            world.steps.len() >= scenario.steps,
            "{}: {} steps, {} at least were expected",
            scenario.name,
            world.steps.len(),
            scenario.steps
        );
        world.assert_foreign_same("without a fault");
        world.reset();
        world
    }

    pub fn ns(&self) -> &Ns {
        &self.bare.ns
    }

    /// The other end of the links.
    pub fn far(&self) -> Ns {
        self.bare.far()
    }

    pub fn config(&self, stage: usize) -> Config {
        config(&self.scenario, &self.directory, stage)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn write_document(&self, stage: usize) {
        let text = document(stage, self.scenario.stage(stage).prefixes);
        fs::write(self.directory.join(format!("{stage}.json")), text)
            .expect("the scratch directory is writable");
    }

    /// Runs one pass to a stage.
    pub fn pass(&self, stage: usize, interposer: Option<&mut dyn Interposer>) -> Report {
        run_pass(&self.config(stage), self.scenario.role, interposer)
    }

    /// A pass of an agent, beside a watcher that hears changes.
    pub fn watched_pass(&self, stage: usize, interposer: &mut dyn Interposer) -> Report {
        self.watched_pass_with(stage, Watched::default(), interposer)
    }

    pub fn watched_pass_with(
        &self,
        stage: usize,
        watched: Watched,
        interposer: &mut dyn Interposer,
    ) -> Report {
        let options = Options {
            watched: Some(watched),
            ..Options::default()
        };
        let role = self.scenario.role;
        run_pass_with(
            &self.config(stage),
            role,
            options,
            open_kernel,
            Some(interposer),
        )
    }

    /// Restores kernel and state directory to the stage before the pass.
    pub fn reset(&self) {
        let mut kernel = open_kernel().expect("the kernel opens");
        let ownership = self.ownership();
        for _ in 0..3 {
            let observed = kernel
                .observe(&ownership, self.firewalls())
                .expect("the kernel tells all");
            let steps = plan(&Goal::earlier(self.owned[0].clone()), &observed, &ownership);
            if steps.is_empty() {
                break;
            }
            apply(&steps, &mut kernel, &ownership, None, &mut || {})
                .expect("nothing is in the way");
        }
        self.assert_owned(0, "reset");
        self.scenario.age(self.ns());
        copy(&self.directory.join("kept"), &self.directory.join("state"));
    }

    /// Changes a route as a foreign program would.
    pub fn write(&self, write: Write, route: &Route) {
        let mut kernel = open_kernel().expect("the kernel opens");
        let refused = kernel
            .socket()
            .batch("somebody else", 1, |_, buffer| encode(write, route, buffer))
            .expect("the kernel answers");
        assert!(refused.is_empty(), "{write:?} {route:?}: {refused:?}");
    }

    fn firewalls(&self) -> &'static [BackendKind] {
        if self.scenario.after.config.contains("iptables") {
            &[BackendKind::Nftables, BackendKind::Iptables]
        } else {
            &[BackendKind::Nftables]
        }
    }

    /// The numbers of both stages.
    pub fn ownership(&self) -> Ownership {
        let earlier = self.scenario.before.map(|_| Numbers::of(&self.config(0)));
        Ownership::new(Numbers::of(&self.config(1)), earlier)
    }

    /// Our objects now.
    pub fn owned_now(&self) -> OwnedState {
        let mut kernel = open_kernel().expect("the kernel opens");
        let ownership = self.ownership();
        kernel
            .observe(&ownership, self.firewalls())
            .expect("the kernel tells all")
            .owned(&ownership)
    }

    /// Panics unless the additions among these steps are in the kernel.
    #[track_caller]
    pub fn assert_carried_out(&self, steps: &[&Step], when: &str) {
        let now = self.owned_now();
        for step in steps.iter().filter(|step| step.action() != Action::Delete) {
            let there = match step {
                Step::Route { route, .. } => now.routes.contains(route),
                Step::Rule { rule, .. } => now.rules.contains(rule),
                Step::Policy { policy, .. } => now.policies.contains(policy),
                _ => true,
            };
            assert!(there, "{when}: withheld: {step}");
        }
    }

    /// Panics unless our objects are those of the stage.
    #[track_caller]
    pub fn assert_owned(&self, stage: usize, when: &str) {
        let (now, wanted) = (
            comparable(self.owned_now()),
            comparable(self.owned[stage].clone()),
        );
        assert_eq!(now.routes, wanted.routes, "{when}: routes");
        assert_eq!(now.rules, wanted.rules, "{when}: rules");
        assert_eq!(now.nexthops, wanted.nexthops, "{when}: nexthops");
        assert_eq!(now.firewalls, wanted.firewalls, "{when}: firewalls");
    }

    #[track_caller]
    pub fn assert_foreign_same(&self, when: &str) {
        self.foreign.assert_same(&Foreign::read(Routes::All), when);
    }

    #[track_caller]
    pub fn assert_foreign_firewall_same(&self, when: &str) {
        let now = self.ns().foreign_nft();
        assert_eq!(self.foreign_firewall, now, "{when}: the foreign firewall");
    }

    /// The route decisions for foreign packets and ours now.
    pub fn decisions_now(&self) -> Decisions {
        let mut kernel = open_kernel().expect("the kernel opens");
        let mut all = self.scenario.storage();
        all.extend(
            PARTNERS
                .iter()
                .chain(&PRIVATE)
                .map(|text| text.parse::<IpAddr>().expect("an address")),
        );
        all.into_iter()
            .map(|address| {
                let question = self.question(address);
                let decision = lookup(kernel.socket(), &question).expect("the kernel answers");
                (address, decision)
            })
            .collect()
    }

    /// The look-up for a destination: from the host itself, or on a NAT instance from a host
    /// behind.
    fn question(&self, destination: IpAddr) -> Lookup {
        let (source, input) = match self.scenario.role {
            Role::Host => (None, None),
            Role::Nat => {
                let source = match Family::of(destination) {
                    Family::Ipv4 => "10.0.2.50",
                    Family::Ipv6 => "2600:1f18:1000:2::50",
                };
                (
                    Some(source.parse().expect("an address")),
                    Some(IfIndex(101)),
                )
            }
        };
        Lookup {
            source,
            input,
            ..Lookup::from_socket(destination)
        }
    }

    /// Panics if a packet takes a path of neither stage. Storage traffic may take the egress path
    /// for a while, unless both stages have a bypass for it.
    #[track_caller]
    pub fn assert_allowed(&self, when: &str) {
        let [before, after] = &self.decisions;
        let partner = |decisions: &Decisions, family: Family| {
            decisions
                .iter()
                .find(|(address, _)| {
                    Family::of(*address) == family
                        && PARTNERS.contains(&address.to_string().as_str())
                })
                .map(|(_, decision)| decision.clone())
                .expect("both families have a partner")
        };
        for (at, (address, now)) in self.decisions_now().iter().enumerate() {
            let mut allowed = vec![before[at].1.clone(), after[at].1.clone()];
            allowed.extend(self.aged.iter().map(|aged| aged[at].1.clone()));
            let bypassed = |decision: &RouteDecision| self.is_bypass(decision);
            let storage = self.scenario.storage().contains(address);
            if storage && !(bypassed(&allowed[0]) && bypassed(&allowed[1])) {
                let family = Family::of(*address);
                allowed.push(partner(before, family));
                allowed.push(partner(after, family));
            }
            assert!(
                allowed.contains(now),
                "{when}: {address} goes {now:?}, but only these are right: {allowed:?}"
            );
        }
    }

    fn is_bypass(&self, decision: &RouteDecision) -> bool {
        let ownership = self.ownership();
        matches!(decision, RouteDecision::Route(route)
            if ownership.is_bypass_table(route.key.table) && ownership.owns_route(route))
    }

    /// Panics unless one further pass converges: exit 0, our objects as after a pass without
    /// faults, foreign objects unchanged, the lock released, the journal readable.
    #[track_caller]
    pub fn assert_converges(&self, expected: Outcome, when: &str) {
        let report = self.pass(1, None);
        assert_eq!(
            report.outcome, expected,
            "{when}: one further pass: {report:?}"
        );
        assert_eq!(report.outcome.exit_code(), 0, "{when}: one further pass");
        self.assert_owned(1, when);
        self.assert_foreign_same(when);
        self.assert_no_lock(when);
        assert_eq!(
            self.last_in_journal(),
            expected.as_str(),
            "{when}: the journal"
        );
    }

    #[track_caller]
    pub fn assert_no_lock(&self, when: &str) {
        let holder = lock::holder(&self.state_dir()).expect("the lock can be asked");
        assert_eq!(holder, None, "{when}: the lock is left behind");
    }

    /// The newest pass in the journal, of which nothing is damaged.
    #[track_caller]
    pub fn last_pass(&self) -> PassRecord {
        let mut history = Journal::new(&self.state_dir()).read().expect("the journal");
        assert!(history.damaged.is_empty(), "{:?}", history.damaged);
        history.passes.pop().expect("each pass leaves a line")
    }

    /// Its outcome.
    #[track_caller]
    pub fn last_in_journal(&self) -> String {
        self.last_pass().outcome
    }
}

/// Without data that only the backend understands (handles, for example).
fn comparable(mut owned: OwnedState) -> OwnedState {
    for firewall in owned.firewalls.values_mut() {
        firewall.snapshot = SavedRules::default();
    }
    owned.rules.sort();
    owned.nexthops.sort();
    owned
}

/// Makes `to` a copy of a directory of plain files, absent if `from` is absent.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("the scratch directory is writable");
    }
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    fs::create_dir_all(to).expect("the scratch directory is writable");
    for entry in entries {
        let entry = entry.expect("a directory entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a plain file");
    }
}
