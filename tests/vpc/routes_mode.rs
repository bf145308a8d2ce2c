//! `mode = "routes"`: a route for each prefix.

use cloud::{Fault, Way, Wrong};
use ipnet::IpNet;
use trailblazer::reconcile::Outcome;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const MODE: &str = "mode = \"routes\"\n";

fn destinations(cloud: &cloud::Cloud, target: &str) -> std::collections::BTreeSet<IpNet> {
    let routes = cloud.routes(TABLE).into_iter();
    let routes = routes.filter(|(_, to)| to == target);
    routes
        .filter_map(|(prefix, _)| prefix.parse().ok())
        .collect()
}

#[test]
fn routes_follow_the_document_and_foreign_routes_stay() {
    let cloud = vpc();
    cloud.set_route(TABLE, "198.51.100.0/24", NAT);
    cloud.set_route(TABLE, "203.0.113.0/24", IGW);
    let mut writer = Writer::new(&cloud, MODE);
    let all = many(30, 0);
    writer.publish(&document_of(TOKEN, &all[..20]));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    cloud.clear_calls();
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::InSync, "{report:?}");
    assert_eq!((cloud.reads(), cloud.writes()), (1, 0));
    cloud.watch(TABLE, addresses(&all[10..20]), IGW);
    writer.publish(&document_of(TOKEN + 1, &all[10..]));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    assert!(cloud.strayed().is_empty(), "{:?}", cloud.strayed());
    let mut wanted: std::collections::BTreeSet<IpNet> = all[10..].iter().copied().collect();
    wanted.insert("203.0.113.0/24".parse().unwrap());
    assert_eq!(destinations(&cloud, IGW), wanted);
    let way = cloud.target_of(TABLE, "198.51.100.1".parse().unwrap());
    assert_eq!(way, Way::Target(NAT.to_owned()));
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn foreign_route_to_a_selected_prefix_is_a_conflict_and_stays() {
    let cloud = vpc();
    cloud.set_route(TABLE, "52.216.0.0/15", NAT);
    let mut writer = Writer::new(&cloud, MODE);
    writer.publish(&document(TOKEN, &["52.216.0.0/15", "54.231.0.0/16"]));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(
        report
            .error
            .unwrap()
            .contains("not ours leads 52.216.0.0/15")
    );
    let way = cloud.target_of(TABLE, "52.216.1.1".parse().unwrap());
    assert_eq!(way, Way::Target(NAT.to_owned()));
    let way = cloud.target_of(TABLE, "54.231.1.1".parse().unwrap());
    assert_eq!(way, Way::Target(IGW.to_owned()));
}

#[test]
fn lost_ledger_is_found_again_by_the_tag_or_nothing_is_deleted() {
    let all = many(30, 0);
    for edited in [false, true] {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, MODE);
        writer.publish(&document_of(TOKEN, &all[..20]));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        if edited {
            cloud.set_route(TABLE, "203.0.113.0/24", IGW);
        }
        let mut stranger = Writer::new(&cloud, MODE);
        stranger.publish(&document_of(TOKEN, &all[..20]));
        let first = run(stranger.pass());
        stranger.publish(&document_of(TOKEN + 1, &all[10..]));
        let report = run(stranger.pass());
        let gone = !destinations(&cloud, IGW).contains(&all[0]);
        assert!(destinations(&cloud, IGW).is_superset(&all[10..].iter().copied().collect()));
        if edited {
            assert_eq!(report.outcome, Outcome::Held, "{first:?} {report:?}");
            assert!(!gone && report.holds[0].contains("ledger"), "{report:?}");
        } else {
            assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
            assert!(gone, "{report:?}");
        }
    }
}

/// A writer that cannot mark its document could not be told from a slow writer of an old one.
#[test]
fn table_without_the_mark_of_the_document_gets_no_route() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    let all = many(4, 0);
    writer.publish(&document_of(TOKEN, &all));
    let deny = |denied: &[&str]| {
        let denied = denied.iter().map(|action| (*action).to_owned());
        cloud.configure(|settings| settings.denied = denied.collect());
    };
    deny(&["CreateTags"]);
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(report.error.unwrap().contains("ec2:CreateTags is missing"));
    assert!(destinations(&cloud, IGW).is_empty());
    deny(&[]);
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    assert_eq!(destinations(&cloud, IGW), all.iter().copied().collect());
    // The same for a change: neither an addition nor a deletion.
    deny(&["CreateTags"]);
    writer.publish(&document_of(TOKEN + 1, &many(6, 0)[1..]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Failed);
    assert_eq!(destinations(&cloud, IGW), all.into_iter().collect());
}

/// A supernet in place of a prefix, and a part of one: both documents have addresses by other routes.
#[test]
fn fault_at_any_call_leaves_common_addresses_on_the_bypass_path() {
    let all = many(18, 0);
    fault_at_any_call(&all[..12], &all[4..], &all[4..12]);
    let prefixes = |texts: &[&str]| -> Vec<IpNet> {
        let parsed = texts.iter().map(|it| it.parse().unwrap());
        parsed.collect()
    };
    let old = prefixes(&["54.230.0.0/16", "52.216.0.0/15", "3.5.0.0/19"]);
    let new = prefixes(&["54.230.0.0/15", "52.216.0.0/15", "3.5.0.0/20"]);
    fault_at_any_call(&old, &new, &old);
}

fn fault_at_any_call(old: &[IpNet], new: &[IpNet], common: &[IpNet]) {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    writer.publish(&document_of(TOKEN, old));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let first = cloud.next_call();
    writer.publish(&document_of(TOKEN + 1, new));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let calls = cloud.next_call() - first;
    let denied = Wrong::Code("UnauthorizedOperation".to_owned());
    for wrong in [Wrong::Dropped, Wrong::Html(502), denied] {
        for after_effect in [false, true] {
            for offset in 0..calls {
                let cloud = vpc();
                let mut writer = Writer::new(&cloud, MODE);
                writer.publish(&document_of(TOKEN, old));
                assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
                cloud.watch(TABLE, addresses(common), IGW);
                let fault = Fault {
                    after_effect,
                    wrong: wrong.clone(),
                };
                cloud.fail(cloud.next_call() + offset, fault);
                writer.publish(&document_of(TOKEN + 1, new));
                let report = run(writer.pass());
                let place = format!("{wrong:?} after {after_effect} at {offset}: {report:?}");
                assert!(cloud.strayed().is_empty(), "{place}: {:?}", cloud.strayed());
                let report = run(writer.pass());
                assert_eq!(report.exit_code(), 0, "{place}\nthen {report:?}");
                assert_eq!(
                    destinations(&cloud, IGW),
                    new.iter().copied().collect(),
                    "{place}"
                );
            }
        }
    }
}

/// A foreign route to the supernet, and our route to a part of it: the part keeps its way.
#[test]
fn route_stays_below_a_prefix_that_a_foreign_route_has_taken() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    writer.publish(&document(TOKEN, &["54.230.0.0/16", "52.216.0.0/15"]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.set_route(TABLE, "54.230.0.0/15", NAT);
    cloud.watch(TABLE, ["54.230.0.1".parse().unwrap()], IGW);
    writer.publish(&document(TOKEN + 1, &["54.230.0.0/15", "52.216.0.0/15"]));
    let report = run(writer.pass());
    assert!(report.error.unwrap().contains("54.230.0.0/15"));
    assert!(cloud.strayed().is_empty(), "{:?}", cloud.strayed());
}

/// EC2 allows 50 tags, and each document is a tag: the smaller ones go, never the largest.
#[test]
fn table_takes_more_documents_than_tags_fit() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    let all = many(62, 0);
    let mark = |number: usize| format!("trailblazer:token:{}", TOKEN + number as u64);
    for number in 0..60 {
        writer.publish(&document_of(
            TOKEN + number as u64,
            &all[number..number + 2],
        ));
        let report = run(writer.pass());
        assert_eq!(report.outcome, Outcome::Changed, "{number}: {report:?}");
        let tags = cloud.tags(TABLE);
        assert!(tags.contains_key(&mark(number)), "{number}: {tags:?}");
        assert!(tags.len() < 15, "{number}: {tags:?}");
    }
    assert_eq!(run(writer.pass()).outcome, Outcome::InSync);
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

/// Also a table that an older version has filled, and one whose writer may not remove tags.
#[test]
fn full_table_takes_the_next_document() {
    let all = many(4, 0);
    for denied in [false, true] {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, MODE);
        writer.publish(&document_of(TOKEN, &all[..2]));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        let marks = if denied { 40 } else { 50 };
        for number in 1.. {
            if cloud.tags(TABLE).len() == marks {
                break;
            }
            cloud.set_tag(TABLE, &format!("trailblazer:token:{}", TOKEN - number), "");
        }
        if denied {
            cloud.configure(|settings| settings.denied = ["DeleteTags".to_owned()].into());
        }
        writer.publish(&document_of(TOKEN + 1, &all[1..]));
        let report = run(writer.pass());
        assert_eq!(
            destinations(&cloud, IGW),
            all[1..].iter().copied().collect()
        );
        let tags = cloud.tags(TABLE);
        let (old, new) = (TOKEN, TOKEN + 1);
        assert!(tags.contains_key(&format!("trailblazer:token:{new}")));
        assert!(tags.contains_key(&format!("trailblazer:token:{old}")));
        assert_eq!(tags.len() < 15, !denied, "{tags:?}");
        assert_eq!(report.exit_code(), 0, "{report:?}");
    }
}

/// A new document and a refused mark: a route of both documents comes back, a new one waits, in each pass.
#[test]
fn refused_mark_holds_up_no_repair() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    let all = many(4, 0);
    writer.publish(&document_of(TOKEN, &all[..2]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let deny = |actions: &[&str]| {
        let denied = actions.iter().map(|action| (*action).to_owned());
        cloud.configure(|settings| settings.denied = denied.collect());
    };
    deny(&["CreateTags"]);
    writer.publish(&document_of(TOKEN + 1, &all[1..]));
    for _ in 0..3 {
        cloud.drop_route(TABLE, &all[1].to_string());
        let report = run(writer.pass());
        assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
        assert_eq!(report.drift.len(), 1, "{report:?}");
        let now: Vec<IpNet> = destinations(&cloud, IGW).into_iter().collect();
        assert_eq!(now, all[..2], "{report:?}");
    }
    deny(&[]);
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    assert_eq!(
        destinations(&cloud, IGW),
        all[1..].iter().copied().collect()
    );
}

/// A document without changes needs no mark, and a repair changes nothing of the document.
#[test]
fn repair_under_an_equal_document_is_the_only_call() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    let all = many(3, 0);
    writer.publish(&document_of(TOKEN, &all));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.drop_route(TABLE, &all[1].to_string());
    cloud.configure(|settings| settings.denied = ["CreateTags".to_owned()].into());
    writer.publish(&document_of(TOKEN + 1, &all));
    let report = run(writer.pass());
    assert_eq!((report.outcome, report.steps.len()), (Outcome::Changed, 1));
    assert_eq!(destinations(&cloud, IGW), all.iter().copied().collect());
}
