//! `history`: the journal, read back.

use crate::setup::*;
use lab::*;

#[test]
fn history_lists_passes_newest_last() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        let none = setup.run(ns, &["history"]).ok();
        assert!(none.stdout.contains("no pass yet"), "{none}");
        assert!(none.stdout.contains("does not exist"), "{none}");
        let none = setup.json(ns, &["history"], 0);
        assert_eq!(none["passes"], serde_json::json!([]));

        setup.run(ns, &["reconcile"]).ok();
        setup.run(ns, &["reconcile"]).ok();
        let text = setup.run(ns, &["history"]).ok().stdout;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("changed") && lines[2].contains("in_sync"));
        let last = setup.json(ns, &["history", "-n", "1"], 0);
        assert_eq!(last["passes"].as_array().unwrap().len(), 1);
        assert_eq!(last["passes"][0]["outcome"], "in_sync");

        // An unreadable journal is not reported as empty.
        ns.run(&["chmod", "000", &setup.state.display().to_string()]);
        let refused = as_nobody(ns, &["history", "-c", &setup.config]).expect_code(1);
        assert!(refused.stderr.contains("Permission denied"), "{refused}");
    });
}
