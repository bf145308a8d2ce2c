//! The plan's steps as JSON. The fields are a contract: fields are added, never changed.

use serde_json::{Map, Value, json};

use super::{Devices, Step};
use crate::objects::{
    MetricValue, NexthopKind, Route, RouteOptions, RouteTarget, Rule, RuleAction, Via,
};

/// The first steps as objects, at most `most`.
pub fn values(steps: &[Step], most: usize, devices: &Devices) -> Vec<Value> {
    let first = steps.iter().take(most);
    first.map(|step| value_of(step, devices)).collect()
}

/// One step: `action`, `object`, and the fields of the object.
fn value_of(step: &Step, devices: &Devices) -> Value {
    let mut fields = Map::new();
    fields.insert("action".into(), json!(step.action().as_str()));
    fields.insert("object".into(), json!(step.object()));
    match step {
        Step::Sysctl(setting) => {
            fields.insert("path".into(), json!(setting.path));
            fields.insert("from".into(), json!(setting.from));
            fields.insert("to".into(), json!(setting.to));
        }
        Step::Firewall {
            backend,
            before,
            after_text,
            ..
        } => {
            fields.insert("backend".into(), json!(backend.as_str()));
            fields.insert("rules".into(), json!(after_text));
            fields.insert("rules_before".into(), json!(before));
        }
        Step::Nexthop(nexthop) => {
            fields.insert("id".into(), json!(nexthop.id));
            fields.insert("family".into(), json!(nexthop.family));
            match &nexthop.kind {
                NexthopKind::Single(via) => put_via(&mut fields, via, devices),
                NexthopKind::Group(members) => {
                    let ids = members.iter().map(|member| json!(member.id));
                    fields.insert("members".into(), ids.collect());
                }
                NexthopKind::Other => {}
            }
        }
        Step::Route { route, .. } => put_route(&mut fields, route, devices),
        Step::Rule { rule, .. } => put_rule(&mut fields, rule),
        Step::Policy { policy, .. } => {
            fields.insert("family".into(), json!(policy.family()));
            fields.insert("src".into(), json!(policy.source.to_string()));
            fields.insert("dst".into(), json!(policy.destination.to_string()));
            fields.insert("type".into(), json!(policy.action.as_str()));
            fields.insert("priority".into(), json!(policy.action.priority()));
        }
    }
    Value::Object(fields)
}

fn put_route(fields: &mut Map<String, Value>, route: &Route, devices: &Devices) {
    fields.insert("family".into(), json!(route.key.family()));
    fields.insert("dst".into(), json!(route.key.dst.to_string()));
    fields.insert("table".into(), json!(route.key.table));
    fields.insert("metric".into(), json!(route.key.metric));
    let kind = match &route.target {
        RouteTarget::Via(via) => {
            put_via(fields, via, devices);
            "unicast"
        }
        RouteTarget::Multipath(legs) => {
            let legs = legs.iter().map(|leg| {
                let mut fields = Map::new();
                put_via(&mut fields, &leg.via, devices);
                fields.insert("weight".into(), json!(leg.weight));
                if leg.realm.0 != 0 {
                    fields.insert("realm".into(), json!(leg.realm));
                }
                Value::Object(fields)
            });
            fields.insert("nexthops".into(), legs.collect());
            "unicast"
        }
        RouteTarget::Nexthop(id) => {
            fields.insert("nexthop".into(), json!(id));
            "unicast"
        }
        RouteTarget::Unreachable => "unreachable",
        RouteTarget::Throw => "throw",
        RouteTarget::Other(_) => "other",
    };
    fields.insert("type".into(), json!(kind));
    if route.realm.0 != 0 {
        fields.insert("realm".into(), json!(route.realm));
    }
    if let Some(options) = &route.options {
        put_options(fields, options);
    }
}

/// `source` and `metrics`, each left out without a value.
fn put_options(fields: &mut Map<String, Value>, options: &RouteOptions) {
    if let Some(source) = options.source {
        fields.insert("source".into(), json!(source));
    }
    if options.metrics.is_empty() {
        return;
    }
    let metrics = options.metrics.iter().map(|metric| {
        let value = match &metric.value {
            MetricValue::Number(number) => json!(number),
            MetricValue::Name(name) => json!(name),
        };
        (metric.kind.to_string(), value)
    });
    fields.insert("metrics".into(), Value::Object(metrics.collect()));
}

fn put_rule(fields: &mut Map<String, Value>, rule: &Rule) {
    fields.insert("family".into(), json!(rule.family));
    fields.insert("priority".into(), json!(rule.priority));
    fields.insert("iif".into(), json!(rule.iif));
    let mark = rule.mark.map(|mark| mark.to_string());
    fields.insert("fwmark".into(), json!(mark));
    let kind = match rule.action {
        RuleAction::Lookup {
            table,
            suppress_prefixlength,
        } => {
            fields.insert("table".into(), json!(table));
            fields.insert("suppress_prefixlength".into(), json!(suppress_prefixlength));
            "lookup"
        }
        RuleAction::Goto(target) => {
            fields.insert("goto".into(), json!(target));
            "goto"
        }
        RuleAction::Nop => "nop",
        RuleAction::Other(_) => "other",
    };
    fields.insert("type".into(), json!(kind));
}

fn put_via(fields: &mut Map<String, Value>, via: &Via, devices: &Devices) {
    fields.insert("gateway".into(), json!(via.gateway));
    fields.insert("device".into(), json!(devices.name(via.device)));
}
