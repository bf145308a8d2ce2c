//! Checks of single files, line by line. rustfmt's layout makes lines reliable: an item ends with a
//! brace at its own indentation.

use std::collections::BTreeMap;
use std::path::Path;

/// Reads every source file below a directory, by its name below the root.
pub fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root");
            let text = std::fs::read_to_string(&path).expect("readable");
            files.insert(name.to_str().expect("UTF-8").to_owned(), text);
        }
    }
}

/// The text with test items blanked: every item below a `#[cfg(test)]`.
pub fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut until: Option<String> = None;
    let mut pending = false;
    for line in text.lines() {
        let body = line.trim();
        let mut keep = until.is_none();
        if let Some(end) = &until {
            if line == end {
                until = None;
            }
        } else if body == "#[cfg(test)]" {
            (pending, keep) = (true, false);
        } else if pending {
            keep = false;
            if body.ends_with('{') {
                (pending, until) = (false, Some(format!("{}}}", indentation(line))));
            } else if body.ends_with(';') || body.ends_with('}') {
                pending = false;
            }
        }
        kept.push_str(if keep { line } else { "" });
        kept.push('\n');
    }
    kept
}

/// The text without comments and without the content of string literals.
pub fn code_only(text: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '\\' => {
                    characters.next();
                }
                '\'' if !inside && characters.peek() == Some(&'"') => {
                    characters.next();
                }
                '"' => inside = !inside,
                '/' if !inside && characters.peek() == Some(&'/') => break,
                _ if !inside => kept.push(c),
                _ => {}
            }
        }
        kept.push('\n');
    }
    kept
}

/// Public functions, types, traits, consts, statics and modules without a doc comment, and files
/// without a module comment.
pub fn undocumented(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if name == "main.rs" || name.ends_with("tests.rs") {
        return found;
    }
    if !text.starts_with("//!") {
        found.push(format!("src/{name}:1: no module comment"));
    }
    let text = without_tests(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut private_module: Option<String> = None;
    for (at, line) in lines.iter().enumerate() {
        if private_module.as_deref() == Some(*line) {
            private_module = None;
        } else if private_module.is_none() && is_private_module(line.trim_start()) {
            private_module = Some(format!("{}}}", indentation(line)));
        }
        if private_module.is_some() {
            continue;
        }
        let Some(item) = line.trim_start().strip_prefix("pub ") else {
            continue;
        };
        let kinds = [
            "fn ", "const ", "static ", "struct ", "enum ", "union ", "trait ", "type ", "async ",
        ];
        // `pub mod name;` has its comment in the file of the module.
        let inline_module = item.starts_with("mod ") && item.ends_with('{');
        if !inline_module && !kinds.iter().any(|kind| item.starts_with(kind)) {
            continue;
        }
        if !is_documented(&lines[..at]) {
            found.push(format!("src/{name}:{}: {}", at + 1, line.trim()));
        }
    }
    found
}

fn is_private_module(line: &str) -> bool {
    let restricted = line.starts_with("pub(") && line.contains(") mod ");
    line.ends_with('{') && (line.starts_with("mod ") || restricted)
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// True if a doc comment stands above an item, with attributes between them.
fn is_documented(above: &[&str]) -> bool {
    let mut inside_attribute = false;
    for line in above.iter().rev().map(|line| line.trim_start()) {
        if line.starts_with("#[") {
            inside_attribute = false;
        } else if line.ends_with(")]") {
            inside_attribute = true;
        } else if !inside_attribute {
            return line.starts_with("///") || line.starts_with("$(#[$doc");
        }
    }
    false
}

/// Functions and files above the limits.
pub fn too_long(name: &str, text: &str, function: usize, file: usize) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > file && !name.ends_with("tests.rs") {
        found.push(format!(
            "src/{name}: {} lines, more than {file}",
            lines.len()
        ));
    }
    for (at, line) in lines.iter().enumerate() {
        let Some(function_name) = function_name(line) else {
            continue;
        };
        let rest = &lines[at..];
        let ends = |line: &&str| line.ends_with(['{', '}', ';']);
        let signature = rest.iter().find(|line| ends(line));
        if signature.is_none_or(|line| !line.ends_with('{')) {
            continue;
        }
        let end = format!("{}}}", indentation(line));
        let length = rest.iter().take_while(|line| **line != end).count() + 1;
        if length > function {
            found.push(format!(
                "src/{name}:{}: fn {function_name} has {length} lines, more than {function}",
                at + 1
            ));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    loop {
        match words.next()? {
            "fn" => break,
            "const" | "async" | "pub" => {}
            visibility if visibility.starts_with("pub(") => {}
            "in" => {}
            _ => return None,
        }
    }
    let rest = words.next()?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// Comments with one of the words. `[A-Z]` stands for one capital letter at the end of a word.
pub fn unreachable(name: &str, text: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((_, comment)) = line.split_once("//") else {
            continue;
        };
        if words.iter().any(|word| mentions(comment, word)) {
            found.push(format!("src/{name}:{}: {}", at + 1, line.trim()));
        }
    }
    found
}

fn mentions(comment: &str, word: &str) -> bool {
    let (fixed, letter) = match word.strip_suffix("[A-Z]") {
        Some(fixed) => (fixed, true),
        None => (word, false),
    };
    comment.match_indices(fixed).any(|(at, _)| {
        let before = comment[..at].chars().next_back();
        let mut after = comment[at + fixed.len()..].chars();
        let capital = !letter || after.next().is_some_and(|c| c.is_ascii_uppercase());
        let separate = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
        capital && separate(before) && separate(after.next())
    })
}
