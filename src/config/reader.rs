//! The TOML text as a flat list of keys with their places, read key by key.
//!
//! serde's derive stops at the first error, but an operator needs all errors at once. So the
//! parsed text becomes a flat map of `table.key` → value, every setting removes its own key from
//! the map, and the remaining keys are unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem, Problems};
use super::syntax;
use crate::nearest::nearest;

pub(super) enum Wrong {
    Type,
    /// The type is right, but the value is not; holds the message.
    Value(String),
    /// Mistakes inside of a table.
    Inside(Vec<Inside>),
}

/// A mistake inside of a table that is a value of a list.
pub(super) struct Inside {
    name: String,
    place: Range<usize>,
    message: String,
}

impl Inside {
    /// A wrong value; `expected` as for [`Reader::value`].
    pub(super) fn new(
        name: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
        wrong: Wrong,
    ) -> Inside {
        Inside {
            name: name.to_owned(),
            place: value.span(),
            message: message(expected, value.get_ref(), wrong),
        }
    }

    /// An unknown name.
    pub(super) fn unknown(name: &str, place: Range<usize>, advice: String) -> Inside {
        Inside {
            name: name.to_owned(),
            place,
            message: format!("unknown key; {advice}"),
        }
    }
}

/// The message for a wrong value.
fn message(expected: &str, value: &DeValue<'_>, wrong: Wrong) -> String {
    match wrong {
        Wrong::Value(message) => message,
        Wrong::Type => format!("expected {expected}, found {}", description(value)),
        Wrong::Inside(mistakes) => {
            let messages = mistakes.into_iter().map(|mistake| mistake.message);
            messages.collect::<Vec<_>>().join("; ")
        }
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong::Value(message)
    }
}

/// Reads settings from the text, and collects every problem on the way.
pub(super) struct Reader<'t> {
    text: &'t str,
    values: BTreeMap<String, Spanned<DeValue<'t>>>,
    /// Places of the keys themselves, tables included, for unknown keys.
    names: BTreeMap<String, Range<usize>>,
    tables: BTreeSet<String>,
    asked: Vec<&'static str>,
    lists_of_tables: Vec<&'static str>,
    /// Places of the values, for problems found after reading.
    places: BTreeMap<&'static str, Range<usize>>,
    problems: Problems,
}

impl<'t> Reader<'t> {
    /// Parses the text.
    ///
    /// # Errors
    /// Every problem that the TOML parser finds, with its place.
    pub(super) fn parse(text: &'t str) -> Result<Reader<'t>, Problems> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax::problems(text, errors));
        }
        Ok(Reader::of(text, root.into_inner()))
    }

    pub(super) fn parse_readable_part(text: &'t str) -> Reader<'t> {
        Reader::of(text, DeTable::parse_recoverable(text).0.into_inner())
    }

    fn of(text: &'t str, root: DeTable<'t>) -> Reader<'t> {
        let mut reader = Reader {
            text,
            values: BTreeMap::new(),
            names: BTreeMap::new(),
            tables: BTreeSet::new(),
            asked: Vec::new(),
            lists_of_tables: Vec::new(),
            places: BTreeMap::new(),
            problems: Problems::default(),
        };
        reader.flatten("", root);
        reader
    }

    fn flatten(&mut self, prefix: &str, table: DeTable<'t>) {
        for (name, value) in table {
            let bare = name
                .get_ref()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            // A quoted key with a dot must not pass for a key in a table.
            let shown = if bare {
                name.get_ref().to_string()
            } else {
                format!("{:?}", name.get_ref())
            };
            let path = if prefix.is_empty() {
                shown
            } else {
                format!("{prefix}.{shown}")
            };
            self.names.insert(path.clone(), name.span());
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(inner) => {
                    self.tables.insert(path.clone());
                    self.flatten(&path, inner);
                }
                other => {
                    self.values.insert(path, Spanned::new(span, other));
                }
            }
        }
    }

    /// Removes the value of a key and reads the value into the setting. `expected` completes the
    /// sentence "expected …" and holds an example.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        setting: &mut T,
        read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) {
        self.asked.push(key);
        let Some(value) = self.values.remove(key) else {
            return;
        };
        self.places.insert(key, value.span());
        match read(value.get_ref()) {
            Ok(read) => *setting = read,
            Err(wrong) => self.wrong(key, expected, &value, wrong),
        }
    }

    /// Removes a list, or, with `single`, a list or one value. Returns the readable elements, or
    /// `None` if the key is absent or not a list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        single: bool,
        read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.asked.push(key);
        let value = self.values.remove(key)?;
        self.places.insert(key, value.span());
        let elements = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ if single => vec![&value],
            _ => {
                self.wrong(key, expected, &value, Wrong::Type);
                return None;
            }
        };
        let mut found = Vec::new();
        for element in elements {
            match read(element.get_ref()) {
                Ok(read) => found.push(read),
                Err(wrong) => self.wrong(key, expected, element, wrong),
            }
        }
        Some(found)
    }

    /// As [`Reader::list`], for a list of tables `[[key]]`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.lists_of_tables.push(key);
        self.list(key, expected, false, read)
    }

    /// As [`Reader::list`], into a collection that keeps its value if the key is absent.
    pub(super) fn collect<T, C: FromIterator<T>>(
        &mut self,
        key: &'static str,
        expected: &str,
        single: bool,
        setting: &mut C,
        read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) {
        if let Some(found) = self.list(key, expected, single, read) {
            *setting = found.into_iter().collect();
        }
    }

    /// Records a problem with the whole value of a key.
    pub(super) fn problem(&mut self, key: &'static str, message: String) {
        let place = self.places.get(key);
        self.problems.push(|| Problem {
            key: key.to_owned(),
            place: place.map(|span| Place::of(self.text, span)),
            message,
        });
    }

    /// Records a problem outside the text: with a flag.
    pub(super) fn problem_elsewhere(&mut self, key: &str, message: String) {
        self.problems.push(|| Problem {
            key: key.to_owned(),
            place: None,
            message,
        });
    }

    /// True if the key has a problem already.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.problems.contains(key)
    }

    /// True if the text has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Every key that was read so far: all known keys, once the whole schema is read.
    pub(super) fn asked(&self) -> &[&'static str] {
        &self.asked
    }

    /// All problems, with unknown keys included.
    pub(super) fn into_problems(mut self) -> Problems {
        self.unknown_keys();
        self.problems
    }

    fn wrong(&mut self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>, wrong: Wrong) {
        let mut add = |key: String, place: &Range<usize>, message| {
            self.problems.push(|| Problem {
                key,
                place: Some(Place::of(self.text, place)),
                message,
            });
        };
        match wrong {
            Wrong::Inside(mistakes) => {
                for mistake in mistakes {
                    let key = format!("{key}.{}", mistake.name);
                    add(key, &mistake.place, mistake.message);
                }
            }
            wrong => {
                let message = message(expected, value.get_ref(), wrong);
                add(key.to_owned(), &value.span(), message);
            }
        }
    }

    fn unknown_keys(&mut self) {
        let mut problems = std::mem::take(&mut self.problems);
        let mut reported: BTreeSet<&str> = BTreeSet::new();
        // In the order of paths, a table comes before its content.
        for (path, span) in &self.names {
            let mut outer = path.match_indices('.').map(|(dot, _)| &path[..dot]);
            if outer.any(|table| reported.contains(table)) {
                continue;
            }
            let is_table = self.tables.contains(path);
            let inside = |key: &&str| {
                let rest = key.strip_prefix(path.as_str());
                rest.is_some_and(|rest| rest.starts_with('.'))
            };
            let holds_known = self.asked.iter().any(inside);
            let unknown = match (is_table, holds_known) {
                (true, true) => false,
                (true, false) => true,
                (false, _) => self.values.contains_key(path),
            };
            if unknown {
                reported.insert(path);
                problems.push(|| Problem {
                    key: path.clone(),
                    place: Some(Place::of(self.text, span)),
                    message: self.unknown_message(path, is_table, holds_known),
                });
            }
        }
        self.problems = problems;
    }

    fn unknown_message(&self, path: &str, is_table: bool, holds_known: bool) -> String {
        if self.lists_of_tables.contains(&path) {
            return format!("is a list of tables: write [[{path}]] above the keys of each");
        }
        if self.asked.contains(&path) {
            return "is a value, not a table".to_owned();
        }
        if holds_known {
            return format!("is a table: write [{path}] and its keys below it");
        }
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let here: BTreeSet<&str> = self
            .asked
            .iter()
            .filter_map(|key| match table {
                "" => Some(*key),
                _ => key.strip_prefix(table)?.strip_prefix('.'),
            })
            .filter_map(|rest| rest.split('.').next())
            .collect();
        let what = if is_table { "table" } else { "key" };
        if let Some(near) = nearest(name, here.iter().copied()) {
            return format!("unknown {what}; did you mean {near:?}?");
        }
        // The second common mistake is a known key in the wrong table.
        let elsewhere = |key: &&&str| key.rsplit('.').next() == Some(name);
        if let Some((home, _)) = self
            .asked
            .iter()
            .find(elsewhere)
            .and_then(|key| key.rsplit_once('.'))
        {
            return format!("unknown {what} here; it belongs in [{home}]");
        }
        let known: Vec<&str> = here.into_iter().collect();
        format!("unknown {what}; known here: {}", known.join(", "))
    }
}

fn description(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(word) => format!("the boolean {word}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
