//! A source with a wrong answer and a silent source: distinguished, and each reported once.

use crate::setup::*;
use lab::*;

#[test]
fn wrong_answer_is_rejected_and_silence_is_noted() {
    lab::isolated(|| {
        let lab = Lab::new();
        // The fetch leaves through the NAT as soon as the egress path is in force.
        lab.plain_nat("nat1");
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let said = |source: &str| {
            let words = ["reconcile", "--dry-run", "--source", source];
            let value = setup.json(ns, &words, 0);
            let verdicts = value["verdicts"].as_array().unwrap().clone();
            assert_eq!(verdicts.len(), 1, "{value:#}");
            let notes = value["notes"].to_string();
            assert!(!notes.contains(source), "said twice: {value:#}");
            let part = |name: &str| verdicts[0][name].as_str().unwrap().to_owned();
            (part("level"), part("guard"), part("message"))
        };
        let empty = scratch().join("empty.json").display().to_string();
        std::fs::write(&empty, "").unwrap();
        let (level, guard, message) = said(&empty);
        assert_eq!((level.as_str(), guard.as_str()), ("reject", "document"));
        assert!(message.contains("stays in force"), "{message}");

        lab.mirror.set_status(Some(403));
        let (level, guard, message) = said(&lab.mirror.url());
        assert_eq!((level.as_str(), guard.as_str()), ("reject", "document"));
        assert!(message.contains("403"), "{message}");

        let (level, guard, message) = said("/nowhere/ip-ranges.json");
        assert_eq!((level.as_str(), guard.as_str()), ("note", "source"));
        assert!(message.contains("stays in force"), "{message}");
    });
}
