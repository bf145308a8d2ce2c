//! The plan as text: an aligned `+`/`-`/`~` diff in groups, with totals.

use std::fmt::Write;

use super::rule_text::rule_text;
use super::{Action, Devices, Plan, Step};
use crate::columns::{Colour, Style};
use crate::firewall::BackendKind;
use crate::objects::{Leg, NexthopKind, Route, RouteTarget, Via};
use crate::ownership::Ownership;
use crate::printable::{escaped, indented};
use crate::types::{Family, TableId};

fn paint(style: Style, action: Action, line: &str) -> String {
    style.paint(
        match action {
            Action::Add => Colour::Green,
            Action::Replace => Colour::Yellow,
            Action::Delete => Colour::Red,
        },
        line,
    )
}

struct Context<'a> {
    devices: &'a Devices,
    style: Style,
}

fn sign(action: Action) -> char {
    match action {
        Action::Add => '+',
        Action::Replace => '~',
        Action::Delete => '-',
    }
}

/// The steps and the conflicts, then an empty line; nothing without any. `ownership` tells the
/// bypass table from the egress table.
pub fn render(plan: &Plan, devices: &Devices, ownership: &Ownership, style: Style) -> String {
    let context = &Context { devices, style };
    let mut text = String::new();
    let mut group = None;
    let width = plan
        .steps
        .iter()
        .map(|step| subject(step).len())
        .max()
        .unwrap_or(0);
    for step in &plan.steps {
        let this = group_of(step);
        if group != Some(this) {
            let heading = heading(step, ownership);
            let _ = writeln!(text, "{}", context.style.heading(&heading));
            group = Some(this);
        }
        for line in lines(step, width, context) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    for conflict in &plan.conflicts {
        let _ = writeln!(text, "! conflict: {}", indented(&conflict.message, 2));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// `12 to add, 1 to replace, 0 to delete (11 routes, 1 rule, …)`.
pub fn totals(plan: &Plan) -> String {
    counts(plan, ["to add", "to replace", "to delete"])
}

/// `12 added, 1 replaced, 0 deleted (11 routes, 1 rule, …)`, for steps that were executed.
pub fn done(plan: &Plan) -> String {
    counts(plan, ["added", "replaced", "deleted"])
}

fn counts(plan: &Plan, [add, replace, delete]: [&str; 3]) -> String {
    let totals = plan.totals();
    let of = |action| totals.get(&action).copied().unwrap_or(0);
    let mut text = format!(
        "{} {add}, {} {replace}, {} {delete}",
        of(Action::Add),
        of(Action::Replace),
        of(Action::Delete)
    );
    let mut objects: Vec<String> = Vec::new();
    for (object, name) in [
        ("route", "route"),
        ("rule", "rule"),
        ("nexthop", "nexthop"),
        ("nat", "firewall"),
        ("xfrm_policy", "xfrm policy"),
        ("sysctl", "sysctl"),
    ] {
        match plan
            .steps
            .iter()
            .filter(|step| step.object() == object)
            .count()
        {
            0 => {}
            1 => objects.push(format!("1 {name}")),
            count => objects.push(format!("{count} {}", plural(name))),
        }
    }
    if !objects.is_empty() {
        let _ = write!(text, " ({})", objects.join(", "));
    }
    text
}

fn plural(name: &str) -> String {
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{name}s"),
    }
}

/// Consecutive steps of one group share a heading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StepGroup {
    Sysctls,
    Firewall(BackendKind),
    Nexthops,
    Routes(Family, TableId),
    Rules,
    Policies,
}

fn group_of(step: &Step) -> StepGroup {
    match step {
        Step::Sysctl(_) => StepGroup::Sysctls,
        Step::Firewall { backend, .. } => StepGroup::Firewall(*backend),
        Step::Nexthop(_) => StepGroup::Nexthops,
        Step::Route { route, .. } => StepGroup::Routes(route.key.family(), route.key.table),
        Step::Rule { .. } => StepGroup::Rules,
        Step::Policy { .. } => StepGroup::Policies,
    }
}

fn heading(step: &Step, ownership: &Ownership) -> String {
    match step {
        Step::Sysctl(_) => "sysctls".to_owned(),
        Step::Firewall { backend, .. } => format!("firewall ({backend})"),
        Step::Nexthop(_) => "nexthops".to_owned(),
        Step::Route { route, .. } => {
            let family = route.key.family();
            format!(
                "{family} routes, {}",
                table_name(route.key.table, ownership)
            )
        }
        Step::Rule { .. } => "rules".to_owned(),
        Step::Policy { .. } => "xfrm policies, forwarded packets without a mark".to_owned(),
    }
}

/// `table 1083 (bypass)`.
fn table_name(table: TableId, ownership: &Ownership) -> String {
    if ownership.is_bypass_table(table) {
        format!("table {table} (bypass)")
    } else if ownership.is_pin_table(table) {
        format!("table {table} (pinned flows)")
    } else if ownership.tables().contains(&table) {
        format!("table {table} (egress)")
    } else {
        format!("table {table} (of earlier settings)")
    }
}

fn subject(step: &Step) -> String {
    match step {
        Step::Sysctl(setting) => setting.path.replace('/', "."),
        Step::Firewall { .. } => String::new(),
        Step::Nexthop(nexthop) => format!("id {}", nexthop.id),
        Step::Route { route, .. } => destination(route),
        Step::Rule { rule, .. } => rule.priority.to_string(),
        Step::Policy { policy, .. } => policy.action.to_string(),
    }
}

fn destination(route: &Route) -> String {
    if route.key.dst.prefix_len() == 0 {
        "default".to_owned()
    } else {
        route.key.dst.to_string()
    }
}

fn lines(step: &Step, width: usize, context: &Context) -> Vec<String> {
    let action = step.action();
    let line = |detail: String| {
        let plain = format!("  {} {:<width$}  {detail}", sign(action), subject(step));
        paint(context.style, action, plain.trim_end())
    };
    match step {
        Step::Sysctl(setting) => vec![line(format!("{} -> {}", setting.from, setting.to))],
        Step::Firewall {
            before, after_text, ..
        } => firewall_lines(before, after_text, context.style),
        Step::Nexthop(nexthop) => vec![line(match &nexthop.kind {
            NexthopKind::Single(via) => via_text(via, context),
            NexthopKind::Group(members) => {
                let ids: Vec<String> = members.iter().map(|member| member.id.to_string()).collect();
                format!("group {}", ids.join("/"))
            }
            NexthopKind::Other => "other".to_owned(),
        })],
        Step::Route { route, before, .. } => {
            let mut detail = route_text(route, context);
            if let Some(before) = before {
                let _ = write!(detail, "  (was: {})", route_text(before, context));
            }
            vec![line(detail)]
        }
        Step::Rule { rule, .. } => vec![line(format!("{}  {}", rule.family, rule_text(rule)))],
        Step::Policy { policy, .. } => vec![line(policy.to_string())],
    }
}

/// The lines of `text` beyond those of `other`; a repeated line counts as often as it occurs.
fn difference<'a>(text: &'a [String], other: &'a [String]) -> impl Iterator<Item = &'a String> {
    let mut rest: Vec<&String> = other.iter().collect();
    text.iter().filter(move |line| {
        let found = rest.iter().position(|other| other == line);
        found.map(|place| rest.remove(place)).is_none()
    })
}

/// The deleted lines of the old text, then the added lines of the new text. Unchanged lines are not
/// shown.
fn firewall_lines(before: &[String], after: &[String], style: Style) -> Vec<String> {
    let deleted = difference(before, after);
    let deleted =
        deleted.map(|line| paint(style, Action::Delete, &format!("  - {}", escaped(line))));
    let added = difference(after, before);
    let added = added.map(|line| paint(style, Action::Add, &format!("  + {}", escaped(line))));
    let mut lines: Vec<String> = deleted.chain(added).collect();
    if lines.is_empty() {
        lines.push(paint(
            style,
            Action::Replace,
            "  ~ the same rules in another order",
        ));
    }
    lines
}

fn via_text(via: &Via, context: &Context) -> String {
    let device = context.devices.name(via.device);
    let onlink = if via.onlink { " onlink" } else { "" };
    match via.gateway {
        Some(gateway) => format!("via {gateway} dev {device}{onlink}"),
        None => format!("dev {device}"),
    }
}

fn leg_text(leg: &Leg, context: &Context) -> String {
    let mut text = format!("nexthop {}", via_text(&leg.via, context));
    if leg.weight != 1 {
        let _ = write!(text, " weight {}", leg.weight);
    }
    if leg.realm.0 != 0 {
        let _ = write!(text, " realm {}", leg.realm);
    }
    text
}

/// The route's target in the words of `ip route`.
fn route_text(route: &Route, context: &Context) -> String {
    let mut text = match &route.target {
        RouteTarget::Via(via) => via_text(via, context),
        RouteTarget::Nexthop(id) => format!("nhid {id}"),
        RouteTarget::Multipath(legs) => {
            let legs: Vec<String> = legs.iter().map(|leg| leg_text(leg, context)).collect();
            legs.join(" ")
        }
        RouteTarget::Unreachable => "unreachable".to_owned(),
        RouteTarget::Throw => "throw (back to the main table)".to_owned(),
        RouteTarget::Other(kind) => format!("type {kind}"),
    };
    // The kernel's default metric is not worth a column.
    let usual = if route.key.family() == Family::Ipv6 {
        1024
    } else {
        0
    };
    if route.key.metric.0 != usual {
        let _ = write!(text, " metric {}", route.key.metric);
    }
    if route.realm.0 != 0 {
        let _ = write!(text, " realm {}", route.realm);
    }
    if let Some(options) = &route.options {
        let _ = write!(text, " {options}");
    }
    text
}
