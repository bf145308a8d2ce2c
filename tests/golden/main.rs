//! Golden plans: the exact text of a dry run for each case, and the proof in a real kernel that
//! carrying it out leads where it should.
//!
//! `TRAILBLAZER_BLESS=1 cargo test --test golden` (or `make golden`) writes the texts anew.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../lab/mod.rs"]
mod lab;

mod case;
mod in_kernel;
mod lines;
mod pipeline;

use std::fmt::Write;
use std::path::Path;

/// Compares a file with what should be in it, or writes it.
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
fn every_plan_is_as_written_down() {
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
            // What the machine and the moment decide.
            value.as_object_mut().unwrap().remove("duration_ms");
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
fn every_plan_carried_out_in_a_kernel_leads_to_the_desired_state() {
    lab::isolated(|| {
        let mut failures = String::new();
        let (mut done, mut left_out) = (0, 0);
        let only = std::env::var("TRAILBLAZER_GOLDEN").ok();
        for case in case::all() {
            if only.as_deref().is_some_and(|only| only != case.name) {
                continue;
            }
            if let Some(why) = &case.observed.not_in_kernel {
                println!("NOT IN A KERNEL: {}: {why}", case.name);
                left_out += 1;
                continue;
            }
            let found = std::panic::catch_unwind(|| in_kernel::carry_out(&case));
            if let Err(panic) = found {
                let what = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default();
                let _infallible = writeln!(
                    failures,
                    "== {}: {}\n{what}",
                    case.name, case.observed.about
                );
            }
            done += 1;
        }
        println!("{done} cases carried out, {left_out} left out");
        assert!(failures.is_empty(), "{failures}");
    });
}
