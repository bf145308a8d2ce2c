//! Who holds the rights in what is linked into the binary, and under which licences: Debian's
//! copyright file (machine-readable format 1.0), and the same with every text for others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::crates::{self, Crate};

/// Of a crate's alternatives the first of these is taken: short notices first, since they can be
/// given whole.
const PREFERENCE: [&str; 10] = [
    "MIT",
    "ISC",
    "Zlib",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Unicode-3.0",
    "Apache-2.0",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
];

const OWN: &str = "LICENSE-MIT";

/// The licences of all crates, each text once.
#[derive(Debug)]
pub struct Licences {
    /// By label: `MIT`, and `MIT~crate` where the words differ.
    texts: BTreeMap<String, String>,
    stanzas: Vec<Stanza>,
}

#[derive(Debug)]
struct Stanza {
    files: String,
    copyright: Vec<String>,
    labels: Vec<String>,
    /// The lines of a NOTICE file, which the Apache licence wants in every copy (section 4 d).
    notice: Vec<String>,
}

/// A licence file, taken apart.
#[derive(Debug)]
struct Notice {
    copyright: Vec<String>,
    body: String,
}

impl Licences {
    /// Reads the licence files of all crates.
    pub fn read(crates: &[Crate]) -> Result<Licences, Failure> {
        let mut licences = Licences {
            texts: BTreeMap::new(),
            stanzas: Vec::new(),
        };
        let own = fs::read_to_string(OWN).map_err(|error| format!("{OWN}: {error}"))?;
        let own = take_apart(&own);
        licences.texts.insert("MIT".to_owned(), own.body);
        licences.stanzas.push(Stanza {
            files: "*".to_owned(),
            copyright: own.copyright,
            labels: vec!["MIT".to_owned()],
            notice: Vec::new(),
        });
        licences.stanzas.push(Stanza {
            files: format!("{}/library/*", crates::rustc()?),
            copyright: vec!["The Rust Project contributors".to_owned()],
            labels: vec!["MIT".to_owned()],
            notice: Vec::new(),
        });
        for dependency in crates {
            licences.add(dependency)?;
        }
        Ok(licences)
    }

    fn add(&mut self, dependency: &Crate) -> Result<(), Failure> {
        let ids = chosen(&dependency.licence)?;
        let files = licence_files(&dependency.directory)?;
        let mut copyright = BTreeSet::new();
        let mut labels = Vec::new();
        let named: Option<Vec<_>> = ids.iter().map(|id| file_of(&files, id, &ids)).collect();
        if let Some(named) = named {
            for (id, text) in ids.iter().zip(named) {
                let notice = take_apart(text);
                copyright.extend(notice.copyright);
                labels.push(self.label(id, &dependency.name, notice.body));
            }
        } else {
            // One file that says which part is under what: only the whole of it is right.
            let (_, text) = files
                .first()
                .ok_or(format!("{} has no licence file", dependency.name))?;
            let notice = take_apart(text);
            copyright.extend(notice.copyright);
            let label = format!("several~{}", dependency.name);
            self.texts.insert(label.clone(), text.clone());
            labels.push(label);
        }
        if copyright.is_empty() {
            copyright.extend(dependency.authors.iter().cloned());
        }
        if copyright.is_empty() {
            copyright.insert(format!("The authors of {}", dependency.name));
        }
        self.stanzas.push(Stanza {
            files: format!("crates/{}/*", dependency.name),
            copyright: copyright.into_iter().collect(),
            labels,
            notice: notice_lines(&dependency.directory)?,
        });
        Ok(())
    }

    /// The label of a text; a new one where these words haven't been seen.
    fn label(&mut self, id: &str, name: &str, body: String) -> String {
        let words = normal(&body);
        let known = self.texts.iter().find(|(label, text)| {
            label.split('~').next() == Some(id) && (id == "Apache-2.0" || normal(text) == words)
        });
        if let Some((label, _)) = known {
            return label.clone();
        }
        let label = if self.texts.contains_key(id) {
            format!("{id}~{name}")
        } else {
            id.to_owned()
        };
        self.texts.insert(label.clone(), body);
        label
    }

    /// For `/usr/share/doc/trailblazer/copyright`. Debian has the Apache licence's text in one
    /// place for all packages, and policy wants it named instead of repeated.
    pub fn debian(&self, crates: &[Crate]) -> Result<String, Failure> {
        let mut text = String::from(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
             Upstream-Name: trailblazer\n\
             Comment:\n",
        );
        let comment = format!(
            "The program is linked from the sources below: its own, Rust's standard library, and {} \
             crates. Of a crate's alternative licences one was chosen.",
            crates.len()
        );
        text.push_str(&format!(" {comment}\n"));
        for stanza in &self.stanzas {
            text.push_str(&format!("\nFiles: {}\n", stanza.files));
            text.push_str(&format!("Copyright: {}\n", stanza.copyright.join("\n ")));
            text.push_str(&format!("License: {}\n", stanza.labels.join(" and ")));
            if !stanza.notice.is_empty() {
                text.push_str(&format!("Comment: {}\n", stanza.notice.join("\n ")));
            }
        }
        for (label, body) in &self.texts {
            let body = if label == "Apache-2.0" {
                "The full text is in /usr/share/common-licenses/Apache-2.0."
            } else {
                body
            };
            text.push_str(&format!("\nLicense: {label}\n"));
            for line in body.trim_matches('\n').lines() {
                let line = line.trim_end();
                text.push_str(&format!(" {}\n", if line.is_empty() { "." } else { line }));
            }
        }
        Ok(text)
    }

    /// The same for people, with every text.
    pub fn plain(&self, crates: &[Crate]) -> String {
        let mut text = format!(
            "trailblazer is linked from its own sources, Rust's standard library, and {} crates.\n\
             Of a crate's alternative licences one was chosen.\n",
            crates.len()
        );
        for stanza in self.stanzas.iter().skip(1) {
            let name = stanza.files.trim_end_matches("/*");
            text.push_str(&format!("\n{name}: {}\n", stanza.labels.join(" and ")));
            for line in stanza.copyright.iter().chain(&stanza.notice) {
                text.push_str(&format!("    {line}\n"));
            }
        }
        for (label, body) in &self.texts {
            text.push_str(&format!("\n---- {label} ----\n\n{}\n", body.trim()));
        }
        text
    }

    /// What an rpm's `License:` says: every licence that some part is under.
    pub fn tag(&self, crates: &[Crate]) -> String {
        let mut ids = BTreeSet::from(["MIT"]);
        for dependency in crates {
            // `read` has looked at each of them and failed on what it can't tell.
            ids.extend(chosen(&dependency.licence).unwrap_or_default());
        }
        ids.into_iter().collect::<Vec<_>>().join(" AND ")
    }
}

/// The licences that hold together, of `(A OR B) AND C`: one of each pair of brackets.
fn chosen(expression: &str) -> Result<Vec<&'static str>, Failure> {
    let mut ids = BTreeSet::new();
    let mut depth = 0;
    let mut part = Vec::new();
    for word in expression.split(' ').chain(["AND"]) {
        if word == "AND" && depth == 0 {
            let alternatives = part.join(" ");
            let alternatives: Vec<&str> = alternatives
                .trim_matches(['(', ')'])
                .split(" OR ")
                .flat_map(|id| id.split('/'))
                .collect();
            let id = PREFERENCE.into_iter().find(|id| alternatives.contains(id));
            ids.insert(id.ok_or(format!("a licence that nobody has looked at: {expression}"))?);
            part.clear();
            continue;
        }
        depth += word.matches('(').count();
        depth = depth.saturating_sub(word.matches(')').count());
        part.push(word);
    }
    Ok(ids.into_iter().collect())
}

/// The lines of a crate's NOTICE file.
fn notice_lines(directory: &Path) -> Result<Vec<String>, Failure> {
    let path = directory.join("NOTICE");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Licence files by upper-case name, sorted.
fn licence_files(directory: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if ["LICEN", "COPYING", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start))
            && path.is_file()
        {
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

/// The file of one licence, by its name; of a crate under a single licence also the one that has
/// no name.
fn file_of<'a>(files: &'a [(String, String)], id: &str, ids: &[&str]) -> Option<&'a str> {
    let parts: &[&str] = match id {
        "Apache-2.0" => &["APACHE"],
        "BSD-2-Clause" => &["BSD"],
        "BSD-3-Clause" => &["BSD", "WHATWG"],
        "Unicode-3.0" => &["UNICODE"],
        "Zlib" => &["ZLIB"],
        "MIT" => &["MIT"],
        "ISC" => &["ISC"],
        _ => &[],
    };
    let named = files
        .iter()
        .find(|(name, _)| parts.iter().any(|part| name.contains(part)));
    let unnamed = || {
        files
            .iter()
            .find(|(name, _)| ids.len() == 1 && !name.contains('-'))
    };
    named.or_else(unnamed).map(|(_, text)| text.as_str())
}

fn take_apart(text: &str) -> Notice {
    let mut copyright = Vec::new();
    let mut body = Vec::new();
    for line in text.lines() {
        let words = line.trim().trim_start_matches(['#', '*', ' ']);
        let lower = words.to_lowercase();
        let is_notice = lower.starts_with("copyright")
            && (lower.contains("(c)") || lower.contains('©') || lower.contains(['1', '2']));
        if is_notice {
            let holder = words
                .trim_start_matches("Copyright")
                .trim_start_matches("copyright")
                .trim();
            copyright.push(holder.to_owned());
        } else {
            body.push(line);
        }
    }
    let body = body.join("\n");
    // Titles above and between differ from crate to crate and say nothing.
    let body = match body.find("Permission is hereby granted") {
        Some(start) => body[start..].to_owned(),
        None => body,
    };
    Notice { copyright, body }
}

/// The words alone, for comparing.
fn normal(text: &str) -> String {
    text.chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}
