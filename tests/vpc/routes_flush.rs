//! `flush` in `mode = "routes"`: each route that is ours goes, or the flush says that some may be left.

use std::collections::BTreeSet;
use std::path::PathBuf;

use trailblazer::reconcile::Outcome;
use trailblazer::vpc::flush::{Flushed, flush};

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const MODE: &str = "mode = \"routes\"\n";
const FIRST: [&str; 2] = ["52.216.0.0/15", "54.230.0.0/16"];
const SECOND: [&str; 3] = ["52.216.0.0/15", "54.230.0.0/16", "3.5.0.0/19"];
const FOREIGN: &str = "203.0.113.0/24";

fn ledger(writer: &Writer) -> PathBuf {
    writer.directory.path().join("state/vpc-routes.json")
}

fn flushed(writer: &Writer) -> Flushed {
    run(flush(&writer.ec2(), &writer.config, false))
}

fn led(cloud: &cloud::Cloud) -> BTreeSet<String> {
    let routes = cloud.routes(TABLE).into_iter();
    let to_target = routes.filter(|(_, target)| target == IGW);
    to_target.map(|(prefix, _)| prefix).collect()
}

fn set(prefixes: &[&str]) -> BTreeSet<String> {
    prefixes.iter().map(|it| (*it).to_owned()).collect()
}

/// A writer whose ledger is that of its first document, below the tag of the second.
fn with_old_ledger(cloud: &cloud::Cloud) -> Writer {
    let mut writer = Writer::new(cloud, MODE);
    writer.publish(&document(TOKEN, &FIRST));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let old = std::fs::read(ledger(&writer)).unwrap();
    writer.publish(&document(TOKEN + 60, &SECOND));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    std::fs::write(ledger(&writer), old).unwrap();
    writer
}

#[test]
fn routes_of_a_ledger_older_than_the_tag_are_found_by_the_tag() {
    let cloud = vpc();
    let writer = with_old_ledger(&cloud);
    let flushed = flushed(&writer);
    assert_eq!(led(&cloud), set(&[]), "{flushed:?}");
    assert_eq!((flushed.done, flushed.incomplete), (3, false));
}

#[test]
fn routes_that_neither_ledger_nor_tag_explains_are_named() {
    let cloud = vpc();
    let writer = with_old_ledger(&cloud);
    cloud.set_route(TABLE, FOREIGN, IGW);
    let result = flushed(&writer);
    assert_eq!(led(&cloud), set(&["3.5.0.0/19", FOREIGN]));
    assert!(result.incomplete, "{result:?}");
    let named = ["3.5.0.0/19", FOREIGN, "by hand"];
    assert!(
        named.iter().all(|it| result.left[0].contains(it)),
        "{result:?}"
    );
    // No ledger at all.
    let cloud = vpc();
    let writer = with_old_ledger(&cloud);
    cloud.set_route(TABLE, FOREIGN, IGW);
    std::fs::remove_file(ledger(&writer)).unwrap();
    let result = flushed(&writer);
    assert!(result.incomplete && result.steps.is_empty(), "{result:?}");
    assert_eq!(led(&cloud).len(), 4);
}

#[test]
fn foreign_routes_beside_a_whole_ledger_are_not_named() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    cloud.set_route(TABLE, FOREIGN, IGW);
    writer.publish(&document(TOKEN, &FIRST));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let result = flushed(&writer);
    assert_eq!(led(&cloud), set(&[FOREIGN]));
    assert!(result.left.is_empty() && !result.incomplete, "{result:?}");
}

#[test]
fn unreadable_ledger_is_named_and_no_empty_one() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODE);
    writer.publish(&document(TOKEN, &FIRST));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    std::fs::remove_file(ledger(&writer)).unwrap();
    std::fs::create_dir(ledger(&writer)).unwrap();
    let result = flushed(&writer);
    assert_eq!(led(&cloud), set(&[]), "{result:?}");
    assert!(result.incomplete, "{result:?}");
    assert!(result.left[0].contains("vpc-routes.json"), "{result:?}");
}

/// The steps before a failure are told, in both modes.
#[test]
fn flush_that_fails_half_way_tells_its_steps() {
    for (mode, denied) in [("", "DeleteManagedPrefixList"), (MODE, "DeleteRoute")] {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, mode);
        writer.publish(&document(TOKEN, &FIRST));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        let next = cloud.next_call() + 2;
        if mode.is_empty() {
            cloud.configure(|settings| settings.denied = [denied.to_owned()].into());
        } else {
            let wrong = cloud::Wrong::Code("UnauthorizedOperation".to_owned());
            cloud.fail(next, cloud::Fault::before(wrong));
        }
        let result = flushed(&writer);
        let error = result.error.as_ref().unwrap().to_string();
        assert!(error.contains(denied), "{error}");
        assert_eq!((result.steps.len(), result.done), (2, 1), "{result:?}");
    }
}
