//! `trailblazer ranges`: the selected prefixes that the guard accepts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{complain, origins, print, settings};
use crate::cli::CommonArgs;
use crate::config::Role;
use crate::exit;
use crate::kernel::Kernel;
use crate::ranges::{Origin, RangeSet};
use crate::reconcile::{Asking, Examined, Firewalls, PassError, examine};
use crate::types::{Family, PerFamily};
use crate::vpc::session::{region, resolved};

/// Runs `ranges` and returns the exit code.
pub async fn run(arguments: &CommonArgs) -> u8 {
    let mut loaded = match settings(&arguments.base, &arguments.overrides()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if loaded.config.vpc_role {
        // Another region than this machine's, which may be no machine of AWS at all.
        match region(&loaded.config).await {
            Ok(region) => loaded.config = resolved(&loaded.config, &region),
            Err(error) => {
                complain(&error);
                return exit::FAILED;
            }
        }
    }
    // The selection is the same for both roles, and the host role asks the metadata service for
    // the region and the VPC's CIDRs only.
    let role = Role::Host;
    let asking = if arguments.source.is_empty() {
        Asking::Nobody
    } else {
        Asking::SourceAlone
    };
    let examined = async {
        let mut kernel = Kernel::open()?;
        examine(
            &loaded.config,
            role,
            asking,
            Firewalls::Ignored,
            &mut kernel,
        )
        .await
    };
    let examined: Result<Examined, PassError> = examined.await;
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => {
            complain(&error);
            return exit::FAILED;
        }
    };
    print(
        arguments.base.output,
        || to_text(&examined),
        || to_json(&examined),
    );
    match &examined.complaint {
        Some(complaint) => {
            complain(complaint);
            exit::FAILED
        }
        None => exit::OK,
    }
}

/// Prints the prefixes in the first column, for `awk '{print $1}'` and `while read prefix rest`. All
/// other lines begin with `#`.
fn to_text(examined: &Examined) -> String {
    let ranges = &examined.judgement.ranges;
    let reasons = reasons(ranges);
    let width = Family::ALL
        .into_iter()
        .flat_map(|family| ranges.prefixes.get(family))
        .map(|prefix| prefix.to_string().len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for family in Family::ALL {
        for (prefix, why) in ranges.prefixes.get(family).iter().zip(reasons.get(family)) {
            let words: Vec<&str> = why.iter().map(String::as_str).collect();
            let prefix = prefix.to_string();
            let _ = writeln!(text, "{prefix:<width$}  {}", words.join(", "));
        }
    }
    for verdict in &examined.judgement.verdicts {
        let _ = writeln!(text, "# {verdict}");
    }
    for note in examined.notes.iter() {
        let _ = writeln!(text, "# note: {note}");
    }
    let aggregated = ranges.aggregated();
    let document = match ranges.sync_token {
        Some(token) => format!("sync token {token}, published {}", ranges.create_date),
        None => "no document in force".to_owned(),
    };
    let _ = writeln!(
        text,
        "# {document}: ipv4 {} selected, {} after aggregation; ipv6 {} selected, {} after aggregation",
        ranges.selected.ipv4, aggregated.ipv4, ranges.selected.ipv6, aggregated.ipv6
    );
    text
}

fn to_json(examined: &Examined) -> Value {
    let ranges = &examined.judgement.ranges;
    let origins: Vec<Value> = ranges
        .origins
        .iter()
        .flat_map(|(origin, prefixes)| {
            prefixes
                .iter()
                .map(move |prefix| origins::to_json(origin, prefix))
        })
        .collect();
    json!({
        "sync_token": ranges.sync_token,
        "create_date": ranges.create_date,
        "prefixes": PerFamily::from_fn(|family| texts(ranges.prefixes.get(family))),
        "selected": ranges.selected,
        "aggregated": ranges.aggregated(),
        "origins": origins,
        "exclude": texts(&ranges.exclude),
        "verdicts": examined.judgement.verdicts,
        "notes": examined.notes,
        "error": examined.complaint.as_ref().map(ToString::to_string),
    })
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

/// The reasons of each aggregated prefix, in the prefixes' order.
fn reasons(ranges: &RangeSet) -> PerFamily<Vec<BTreeSet<String>>> {
    let mut found: PerFamily<Vec<BTreeSet<String>>> =
        PerFamily::from_fn(|family| vec![BTreeSet::new(); ranges.prefixes.get(family).len()]);
    for (origin, prefixes) in &ranges.origins {
        let label = label(origin);
        for prefix in prefixes {
            let family = Family::of_net(prefix);
            let aggregated = ranges.prefixes.get(family);
            // The aggregated prefixes are sorted and disjoint. An exclusion may have split one
            // selected prefix into several.
            let first = aggregated.partition_point(|other| other.broadcast() < prefix.network());
            let touched = aggregated[first..]
                .iter()
                .take_while(|other| other.network() <= prefix.broadcast())
                .count();
            for reasons in &mut found.get_mut(family)[first..first + touched] {
                reasons.insert(label.clone());
            }
        }
    }
    found
}

/// Service, region, and the kind of origin unless selected.
fn label(origin: &Origin) -> String {
    let (name, group) = origins::parts(origin);
    match (origin, group) {
        (Origin::Selected(_), Some(group)) => format!("{} {}", group.service, group.region),
        (_, Some(group)) => format!("{} {} ({name})", group.service, group.region),
        (_, None) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ranges::Group;

    #[test]
    fn listed_reasons_survive_aggregation_and_exclusion() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let group = |service: &str| Group {
            service: service.into(),
            region: "us-east-1".into(),
            family: Family::Ipv4,
        };
        let ranges = RangeSet::build(
            None,
            String::new(),
            BTreeMap::from([
                (Origin::Selected(group("S3")), nets(&["3.5.0.0/20"])),
                (Origin::HoldDown(group("EC2")), nets(&["3.5.16.0/20"])),
                (Origin::Include, nets(&["9.0.0.0/8", "2001:db8::/32"])),
            ]),
            &nets(&["9.128.0.0/10"]),
        );
        assert_eq!(
            ranges.prefixes.ipv4,
            nets(&["3.5.0.0/19", "9.0.0.0/9", "9.192.0.0/10"])
        );
        let reasons = reasons(&ranges);
        let of = |index: usize| reasons.ipv4[index].iter().cloned().collect::<Vec<_>>();
        assert_eq!(of(0), ["EC2 us-east-1 (hold_down)", "S3 us-east-1"]);
        assert_eq!(of(1), ["include"]);
        assert_eq!(of(2), ["include"]);
        assert_eq!(reasons.ipv6.len(), 1);
    }
}
