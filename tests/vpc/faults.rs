//! Faults at every call: each address of the old and the new document keeps its way, and the next
//! pass converges.

use cloud::{Cloud, Fault, Wrong};
use ipnet::IpNet;
use trailblazer::reconcile::Outcome;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;

fn wrongs() -> Vec<Wrong> {
    vec![
        Wrong::Unavailable,
        Wrong::Html(502),
        Wrong::Truncated,
        Wrong::Dropped,
        Wrong::Throttled,
        Wrong::Code("UnauthorizedOperation".to_owned()),
    ]
}

/// A VPC in force under the old document, with each common address watched.
fn before(old: &[IpNet], common: &[IpNet]) -> (Cloud, Writer) {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document_of(TOKEN, old));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Changed, "{report:?}");
    cloud.watch(TABLE, addresses(common), IGW);
    (cloud, writer)
}

#[test]
fn fault_at_any_call_leaves_common_addresses_on_the_bypass_path() {
    let all = many(180, 0);
    let (old, new) = (&all[..120], &all[40..]);
    let common = &all[40..120];
    // The calls of a whole change.
    let (cloud, mut writer) = before(old, common);
    let first = cloud.next_call();
    writer.publish(&document_of(TOKEN + 1, new));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let calls = cloud.next_call() - first;
    assert!(calls > 6, "{calls}");
    let mut outcomes = std::collections::BTreeMap::new();
    for wrong in wrongs() {
        for after_effect in [false, true] {
            for offset in 0..calls {
                let (cloud, mut writer) = before(old, common);
                let fault = Fault {
                    after_effect,
                    wrong: wrong.clone(),
                };
                cloud.fail(cloud.next_call() + offset, fault);
                writer.publish(&document_of(TOKEN + 1, new));
                let report = run(writer.pass());
                *outcomes.entry(report.outcome.as_str()).or_insert(0) += 1;
                let place = format!("{wrong:?} after {after_effect} at {offset}: {report:?}");
                assert!(cloud.strayed().is_empty(), "{place}: {:?}", cloud.strayed());
                let report = run(writer.pass());
                assert!(report.exit_code() == 0, "{place}\nthen {report:?}");
                let ours = list(&cloud, "ipv4").unwrap();
                assert_eq!(
                    cloud.prefixes(&ours),
                    new.iter().copied().collect(),
                    "{place}"
                );
                assert_eq!(cloud.violations(), Vec::<String>::new(), "{place}");
            }
        }
    }
    println!("{outcomes:?}");
}
