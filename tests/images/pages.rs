//! The pages' links: to files of this repository, and to sections.

use std::collections::BTreeSet;

use crate::tools::*;

/// What a heading is called in a link, as GitHub names it.
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
fn each_link_leads_somewhere() {
    let mut pages = files("docs", ".md");
    pages.push("README.md".to_owned());
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
