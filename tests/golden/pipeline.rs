//! The pass without the kernel: document → ranges → guard → desired → plan → text.

use trailblazer::columns::Style;
use trailblazer::config::{AutoOr, Config};
use trailblazer::desired::{DesiredState, Inputs, desired};
use trailblazer::firewall::{BackendKind, ObservedFirewall, Ruleset, Variant};
use trailblazer::guard::{self, Environment, Fetch, GuardState, LastGood, judge};
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::{self, FirewallBackend};
use trailblazer::objects::RuleAction;
use trailblazer::observed::ObservedState;
use trailblazer::ownership::Ownership;
use trailblazer::plan::{Goal, plan};
use trailblazer::ranges::{Document, Selector};
use trailblazer::reconcile::{BackendChoice, Mode, PassError, Report, instance};
use trailblazer::types::{Family, PerFamily};

use crate::case::Case;

/// The outcome of a case.
pub struct Outcome {
    pub desired: DesiredState,
    pub backend: BackendKind,
    pub report: Report,
    /// The text of the dry run, and the error as printed by the command line.
    pub text: String,
}

/// The start of the note about a failed source, left out of comparisons.
pub const SOURCE_NOTE: &str = "note      source:";

/// A backend's own text of a policy.
pub fn render(backend: BackendKind, ruleset: &Ruleset) -> Vec<String> {
    text(&*firewall::backend(backend), backend, ruleset)
}

fn text(firewall: &dyn FirewallBackend, backend: BackendKind, ruleset: &Ruleset) -> Vec<String> {
    let rendered = firewall.render(ruleset);
    rendered.unwrap_or_else(|error| panic!("{backend} renders what desired builds: {error}"))
}

/// As a pass chooses (reconcile/look.rs).
pub fn choose(config: &Config, state: &ObservedState) -> (BackendKind, String) {
    let absent = match state.firewalls.get(&BackendKind::Nftables) {
        Some(ObservedFirewall::Unavailable(why)) => Some(why),
        _ => None,
    };
    match (&config.nat.backend, absent) {
        (AutoOr::Set(kind), _) => (*kind, "as configured".to_owned()),
        (AutoOr::Auto, None) => (
            BackendKind::Nftables,
            "auto: the kernel has nf_tables".to_owned(),
        ),
        (AutoOr::Auto, Some(why)) => (BackendKind::Iptables, format!("auto: {why}")),
    }
}

fn has_nf_tables(state: &ObservedState) -> bool {
    let nftables = state.firewalls.get(&BackendKind::Nftables);
    !matches!(nftables, Some(ObservedFirewall::Unavailable(_)))
}

pub fn run(case: &Case) -> Outcome {
    let config = &case.config;
    let role = case.role();
    let facts = case.facts();
    let state = case.state();
    let ownership = case.ownership();
    let vpc_cidrs = instance::vpc_cidrs(config, facts.instance.as_ref());
    let (backend, reason) = choose(config, &state);
    let mut report = Report::new(role, Mode::DryRun);
    report.backend = Some(BackendChoice {
        kind: backend,
        variant: Variant::Nft,
        // The version of iptables is the machine's.
        reason: match backend {
            BackendKind::Nftables => reason,
            BackendKind::Iptables => format!("{reason}; iptables"),
        },
    });
    report.devices = facts
        .links
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect();

    let bytes = |case: &Case| case.document.as_ref().map(|(_, bytes)| bytes.clone());
    let fetched = bytes(case);
    let last = case.before.as_deref().and_then(bytes);
    let parse = |bytes: &'static [u8]| Document::parse(bytes).expect("a case's document is good");
    // A test: leaking a few kilobytes is simpler than carrying the lifetimes.
    let fetched = fetched.map(|bytes| parse(Vec::leak(bytes)));
    let last = last.map(|bytes| parse(Vec::leak(bytes)));
    let ours = |family: Family| {
        state
            .routes
            .iter()
            .filter(|route| {
                route.key.family() == family
                    && ownership.is_bypass_table(route.key.table)
                    && ownership.owns_route(route)
            })
            .map(|route| route.key.dst)
            .collect()
    };
    let mut gateways: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| facts.defaults(family))
        .filter_map(|route| route.gateway)
        .chain(config.egress.addresses())
        .collect();
    for family in Family::ALL {
        gateways.extend(config.bypass.gateway.get(family).set());
    }
    let selector = Selector {
        services: config.select.services.clone(),
        regions: instance::regions(config, facts.instance.as_ref())
            .expect("a case knows its region"),
        families: config.select.families.clone(),
    };
    let judgement = judge(&guard::GuardInputs {
        source: None,
        fetch: match &fetched {
            Some(document) => Fetch::Document(document),
            None => Fetch::Failed("no document".to_owned()),
        },
        held: None,
        last_good: match &last {
            Some(document) => LastGood::Document(document),
            None => LastGood::Absent,
        },
        state: &GuardState::default(),
        state_unreadable: false,
        // Long after every document of a case, and no verdict of a case says when.
        now: 1_800_000_000,
        config: &config.guard,
        selector: &selector,
        include: &config.select.include,
        exclude: &config.select.exclude,
        environment: &Environment {
            sources: Vec::new(),
            vpc_cidrs: vpc_cidrs.clone(),
            own_addresses: facts.addresses.iter().map(|own| own.net.addr()).collect(),
            gateways,
            name_servers: facts.name_servers.clone(),
            metadata: Vec::new(),
        },
        accept: None,
        kernel_prefixes: &PerFamily::from_fn(ours),
    })
    .expect("nobody accepts anything");
    report.take_judgement(&judgement);
    let prefixes = (!judgement.nothing_in_force).then_some(&judgement.ranges.prefixes);

    let wanted = desired(&Inputs {
        config,
        role,
        prefixes,
        facts: &facts,
        vpc_cidrs: &vpc_cidrs,
        backend,
        nf_tables_beside: has_nf_tables(&state),
        last_bypass: state.last_bypass(&ownership),
        slots: trailblazer::desired::KnownSlots {
            gateways: state.slots(&ownership),
            ..Default::default()
        },
        health: trailblazer::health::Health::default(),
        unfiltered: PerFamily::default(),
        no_switch: PerFamily::default(),
        shares: &trailblazer::desired::shares::Shares::default(),
        available: PerFamily {
            ipv4: true,
            ipv6: true,
        },
    });
    report.notes.extend(wanted.messages().cloned());
    report.degrade(&wanted.degraded);
    let text = wanted
        .firewall
        .as_ref()
        .map(|ruleset| {
            if has_nf_tables(&state) {
                render(backend, ruleset)
            } else {
                text(&IptablesBackend::detect(), backend, ruleset)
            }
        })
        .unwrap_or_default();
    let goal = Goal::of(wanted.clone(), backend, text);
    let steps = plan(&goal, &state, &ownership);
    report.notes.extend(steps.notes.iter().cloned());
    report.take_plan(steps.clone());
    if !steps.conflicts.is_empty() {
        let messages = steps.conflicts.iter().map(|c| c.message.clone()).collect();
        report.fail(&PassError::Conflict(messages));
    } else if judgement.nothing_in_force {
        report.fail(&PassError::NoDocument(
            "the source doesn't answer".to_owned(),
        ));
    }
    report.settle();
    let current = trailblazer::ownership::Ownership::new(ownership.current, []);
    let mut text: String = report
        .to_text(&current, Style::Plain)
        .lines()
        .filter(|line| !line.starts_with(SOURCE_NOTE))
        .flat_map(|line| [line, "\n"])
        .collect();
    if let Some(error) = &report.error
        && !judgement.nothing_in_force
    {
        text.push_str(&format!("error: {error}\n"));
    }
    Outcome {
        desired: without_conflicts(wanted, &state, &ownership, backend),
        backend,
        text,
        report,
    }
}

/// The objects that go in beside foreign ones in the place of ours.
fn without_conflicts(
    mut desired: DesiredState,
    state: &ObservedState,
    ownership: &Ownership,
    backend: BackendKind,
) -> DesiredState {
    let bypass = ownership.current.bypass_table;
    for foreign in state.routes.iter().filter(|r| !ownership.owns_route(r)) {
        let (key, family) = (foreign.key, foreign.key.family());
        desired.routes.retain(|route| route.key != key);
        if key.table == bypass && key.dst.prefix_len() == 0 {
            desired.rules.retain(|rule| {
                rule.family != family
                    || !matches!(rule.action, RuleAction::Lookup { table, .. } if table == bypass)
            });
        }
    }
    if let Some(ObservedFirewall::Foreign(_)) = state.firewalls.get(&backend) {
        desired.firewall = None;
    }
    desired
}
