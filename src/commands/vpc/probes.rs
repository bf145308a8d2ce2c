//! The permissions of a pass over a VPC, proven by dry runs of EC2.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::commands::check::report::CheckReport;
use crate::config::{Config, PlaneMode};
use crate::ranges::RangeSet;
use crate::types::{Family, SyncToken};
use crate::vpc::calls::Call;
use crate::vpc::ec2::Ec2;
use crate::vpc::goal::{PlaneGoal, target_of};
use crate::vpc::objects::{PrefixList, RouteDestination, Tags};
use crate::vpc::observed::{Found, ObservedPlane, list_name};
use crate::vpc::tags;

/// Proves each permission by a dry run of its call.
pub(super) async fn permissions(
    ec2: &Ec2,
    config: &Config,
    (observed, ranges): (&ObservedPlane, &RangeSet),
    report: &mut CheckReport,
) {
    let mut proven = BTreeSet::new();
    let mut failed = false;
    let calls = match config.vpc_plane.mode {
        PlaneMode::PrefixList => of_lists(config, observed),
        PlaneMode::Routes => of_routes(config, observed, ranges),
    };
    for call in calls {
        match ec2.try_run(&call).await {
            Ok(()) => drop(proven.insert(call.action())),
            Err(error) => {
                failed = true;
                report.fail("permission", error.to_string(), "see above");
            }
        }
    }
    if !failed && !proven.is_empty() {
        let names: Vec<&str> = proven.into_iter().collect();
        report.ok(
            "permission",
            format!("dry runs allowed: {}", names.join(", ")),
        );
    }
}

/// One call of each action that a pass with lists may need now.
fn of_lists(config: &Config, observed: &ObservedPlane) -> Vec<Call> {
    let plane = &config.vpc_plane;
    let mut calls = Vec::new();
    for family in plane.families() {
        let ours = observed.lists.get(family).ours();
        match (observed.lists.get(family), ours) {
            (Found::Absent, _) => calls.push(Call::CreateList {
                name: list_name(&plane.name, family),
                family,
                max_entries: 1,
                entries: Vec::new(),
                tags: Tags::from([(tags::OWNER.to_owned(), plane.name.clone())]),
                client_token: "trailblazer-check".to_owned(),
            }),
            (_, Some(ours)) => calls.extend(of_list(&ours.list)),
            _ => {}
        }
        if let (Some(ours), Some(target)) = (ours, target_of(plane, family)) {
            for table in &observed.tables {
                let destination = RouteDestination::List(ours.list.id.clone());
                let table_id = table.id.clone();
                calls.push(match table.route_to(&destination) {
                    Some(_) => Call::ReplaceRoute {
                        table: table_id,
                        destination,
                        target: target.clone(),
                    },
                    None => Call::CreateRoute {
                        table: table_id,
                        destination,
                        target: target.clone(),
                    },
                });
            }
        }
    }
    calls
}

fn of_list(list: &PrefixList) -> Vec<Call> {
    let resize = Call::ResizeList {
        list: list.id.clone(),
        name: list.name.clone(),
        max_entries: list.max_entries.unwrap_or(1),
    };
    let mark = of_mark(&list.id.0).into_iter();
    [resize].into_iter().chain(mark).collect()
}

/// A new mark, and the removal of an old one.
fn of_mark(resource: &str) -> [Call; 2] {
    let mark = no_document();
    let keys = mark.keys().cloned().collect();
    let resource = resource.to_owned();
    [
        Call::Tag {
            resource: resource.clone(),
            tags: mark,
        },
        Call::Untag { resource, keys },
    ]
}

/// The mark of no document: without effect even where a dry run is carried out, since the largest token
/// counts.
fn no_document() -> Tags {
    let mut mark = tags::of_token(SyncToken(0));
    mark.remove(tags::TOKEN);
    mark
}

/// The calls that a pass with single routes may need, for each table. Even where a dry run is carried
/// out, each but the creation of a missing route is without effect.
fn of_routes(config: &Config, observed: &ObservedPlane, ranges: &RangeSet) -> Vec<Call> {
    let plane = &config.vpc_plane;
    let goal = PlaneGoal::new(plane, ranges);
    let mut calls = Vec::new();
    for table in &observed.tables {
        for family in plane.families() {
            let Some(target) = target_of(plane, family) else {
                continue;
            };
            let goal = goal.as_ref();
            let wanted = goal.and_then(|goal| goal.families.get(family).as_ref());
            let entries = wanted.map_or(&[][..], |wanted| &wanted.entries);
            let prefixes = || entries.iter().map(|entry| entry.cidr);
            let route_to = |it: &IpNet| table.route_to(&RouteDestination::Prefix(*it));
            let is_led = |it: &IpNet| route_to(it).is_some_and(|it| it.leads_to(&target));
            let nowhere = Some(documentation(family)).filter(|it| route_to(it).is_none());
            let missing = prefixes().find(|it| route_to(it).is_none());
            let led = prefixes().find(is_led);
            if let Some(prefix) = missing.or(led) {
                calls.push(Call::CreateRoute {
                    table: table.id.clone(),
                    destination: RouteDestination::Prefix(prefix),
                    target: target.clone(),
                });
            }
            if let Some(prefix) = led.or(nowhere) {
                calls.push(Call::ReplaceRoute {
                    table: table.id.clone(),
                    destination: RouteDestination::Prefix(prefix),
                    target: target.clone(),
                });
            }
            if let Some(prefix) = nowhere {
                calls.push(Call::DeleteRoute {
                    table: table.id.clone(),
                    destination: RouteDestination::Prefix(prefix),
                });
            }
        }
        calls.extend(of_mark(&table.id.0));
    }
    calls
}

/// A network for examples (RFC 5737, RFC 3849), which no table has a route to.
fn documentation(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24).into(),
        Family::Ipv6 => {
            Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32).into()
        }
    }
}
