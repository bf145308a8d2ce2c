//! The pages' links: to files of this repository, and to sections.

use std::collections::BTreeSet;

use crate::tools::*;

/// The anchor of a heading in a link, as made by GitHub.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

#[test]
fn every_link_has_a_target() {
    let mut pages = files("docs", ".md");
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ] {
        pages.push(page.to_owned());
    }
    let mut links = 0;
    for page in pages {
        let text = read(&page);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            links += 1;
            let (path, section) = target.split_once('#').unwrap_or((target, ""));
            let file = repository().join(&page).parent().unwrap().join(path);
            assert!(path.is_empty() || file.exists(), "{page}: {target}");
            if !section.is_empty() {
                let file = if path.is_empty() {
                    repository().join(&page)
                } else {
                    file
                };
                let known = anchors(&std::fs::read_to_string(&file).unwrap());
                assert!(known.contains(section), "{page}: {target}: {known:?}");
            }
        }
    }
    assert!(links > 30, "links are found: {links}");
}

#[test]
fn shell_examples_pass_shellcheck() {
    for page in ["docs/aws.md", "docs/kubernetes.md", "docs/vpc.md"] {
        let found = blocks(&read(page), "sh");
        assert!(!found.is_empty(), "{page}");
        // One script, since later blocks use variables of earlier ones.
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("page.sh");
        std::fs::write(&script, format!("#!/bin/sh\n{}", found.join("\n"))).unwrap();
        // A person types these lines and sees where `cd` failed (2164); an id is no subtraction
        // (2100).
        let words = [
            "--norc",
            "--exclude=SC2164,SC2100",
            script.to_str().unwrap(),
        ];
        let (sound, said) = try_tool("shellcheck", &words);
        assert!(sound, "{page}:\n{said}");
    }
}
