//! Golden plans: the exact text of a dry run for each case, and the proof in a real kernel that the
//! plan reaches the desired state.
//!
//! `TRAILBLAZER_BLESS=1 cargo test --test golden` (or `make golden`) rewrites the texts.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod case;
mod in_kernel;
mod lines;
mod pipeline;

use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;

/// Compares a file with the expected content, or rewrites the file.
fn check(path: &Path, text: &str, failures: &mut String) {
    if std::env::var_os("TRAILBLAZER_BLESS").is_some() {
        std::fs::write(path, text)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected != text {
        let _infallible = writeln!(
            failures,
            "== {}\n{}",
            path.display(),
            difference(&expected, text)
        );
    }
}

/// Lines of one text only, `-` expected and `+` found.
pub fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line));
    let come = new.iter().filter(|line| !old.contains(line));
    let mut lines: Vec<String> = gone.map(|line| format!("- {line}")).collect();
    lines.extend(come.map(|line| format!("+ {line}")));
    if lines.is_empty() {
        lines.push("the same lines in another order".to_owned());
    }
    lines.join("\n")
}

#[test]
fn every_plan_matches_its_golden_file() {
    let cases = case::all();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut failures = String::new();
    for case in &cases {
        let outcome = pipeline::run(case);
        check(
            &case.directory.join("plan.txt"),
            &outcome.text,
            &mut failures,
        );
        let json = case.directory.join("plan.json");
        if json.exists() {
            let mut value = outcome.report.to_json();
            // Values of the machine and the moment.
            for key in ["duration_ms", "stages_ms"] {
                value.as_object_mut().unwrap().remove(key);
            }
            let text = format!("{:#}\n", value);
            check(&json, &text, &mut failures);
        }
    }
    assert!(
        failures.is_empty(),
        "plans differ from the golden ones; if that is meant: TRAILBLAZER_BLESS=1 cargo test \
         --test golden, and read the diff\n{failures}"
    );
}

#[test]
fn every_golden_plan_reaches_the_desired_state_in_a_kernel() {
    lab::isolated(|| {
        let only = std::env::var("TRAILBLAZER_GOLDEN").ok();
        let (mut cases, mut left_out) = (Vec::new(), 0);
        for case in case::all() {
            if only.as_deref().is_some_and(|only| only != case.name) {
                continue;
            }
            match &case.observed.not_in_kernel {
                Some(why) => {
                    println!("NOT IN A KERNEL: {}: {why}", case.name);
                    left_out += 1;
                }
                None => cases.push(case),
            }
        }
        println!("{} cases carried out, {left_out} left out", cases.len());
        // All cases share one resolv.conf: cases with name servers run first and alone.
        let (alone, together): (Vec<_>, Vec<_>) = cases
            .into_iter()
            .partition(|case| !case.observed.name_servers.is_empty());
        let mut failures = Vec::new();
        for case in &alone {
            lab::set_resolv_conf(&in_kernel::resolv_conf(case));
            failures.extend(failure(case));
        }
        lab::set_resolv_conf("");
        let queue = Mutex::new(together.iter());
        let found = Mutex::new(&mut failures);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap().next();
                        let Some(case) = next else { break };
                        let failure = failure(case);
                        found.lock().unwrap().extend(failure);
                    }
                });
            }
        });
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
}

/// Most of a case is waiting for the kernel to make namespaces and for the disk.
const WORKERS: usize = 6;

/// Runs a case; returns the failure with the case's description.
fn failure(case: &case::Case) -> Option<String> {
    let panic = std::panic::catch_unwind(|| in_kernel::carry_out(case)).err()?;
    let what = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    Some(format!("== {}: {}\n{what}", case.name, case.observed.about))
}
