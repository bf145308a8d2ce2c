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
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("changed") && lines[2].contains("in_sync"));
        assert!(
            text.contains("added route: "),
            "names of changed objects: {text}"
        );
        assert!(text.contains("52.216."), "{text}");
        assert!(text.contains("added rule: ipv4 priority "), "{text}");
        let recent = setup.json(ns, &["history", "--since", "1h"], 0);
        assert_eq!(recent["passes"].as_array().unwrap().len(), 2);
        let later = setup.json(ns, &["history", "--since", "2200-01-01T00:00:00Z"], 0);
        assert_eq!(later["passes"], serde_json::json!([]));
        let last = setup.json(ns, &["history", "-n", "1"], 0);
        assert_eq!(last["passes"].as_array().unwrap().len(), 1);
        assert_eq!(last["passes"][0]["outcome"], "in_sync");

        std::fs::write(
            &setup.config,
            format!("role = \"hots\"\nsource.state_dir = {:?}\n", setup.state),
        )
        .unwrap();
        let broken = setup.run(ns, &["history"]).ok();
        assert!(broken.stdout.contains("in_sync"), "{broken}");
        assert!(broken.stderr.contains("role"), "{broken}");

        // An unreadable journal is not reported as empty.
        ns.run(&["chmod", "000", &setup.state.display().to_string()]);
        let refused = as_nobody(ns, &["history", "-c", &setup.config]).expect_code(1);
        assert!(refused.stderr.contains("Permission denied"), "{refused}");
    });
}
