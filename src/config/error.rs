//! Problems of the settings: all of them at once, each with its place in the text.

use std::fmt::Write as _;
use std::ops::Range;

/// A place in the config text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    pub text: String,
    /// The number of marked characters, at least 1.
    pub width: usize,
}

impl Place {
    pub(super) fn of(text: &str, span: &Range<usize>) -> Place {
        // For text that ends too early, the parser points one byte past the end.
        let start = boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = boundary(text, span.end.clamp(start, line_end));
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end().to_owned(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

impl Place {
    /// The place in a part of its line: a line of a damaged file may have a million characters.
    fn excerpt(&self) -> Place {
        const BEFORE: usize = 20;
        const LONGEST: usize = 70;
        if self.text.chars().nth(LONGEST).is_none() {
            return self.clone();
        }
        let skipped = (self.column - 1).saturating_sub(BEFORE);
        let mut text: String = self.text.chars().skip(skipped).take(LONGEST).collect();
        if self.text.chars().nth(skipped + LONGEST).is_some() {
            text.push('…');
        }
        let mut column = self.column - skipped;
        if skipped > 0 {
            text.insert(0, '…');
            column += 1;
        }
        Place {
            width: self.width.min(LONGEST + 2 - column.min(LONGEST + 1)),
            line: self.line,
            column,
            text,
        }
    }
}

/// The last character boundary at or before a byte.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// One mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its table (`source.refresh`), or the flag (`--region`); empty for text that
    /// is not TOML.
    pub key: String,
    /// `None` for flags and for missing keys.
    pub place: Option<Place>,
    /// The mistake, the reason, and the correction.
    pub message: String,
}

/// The problems found so far. A damaged file may have one in each of its thousand lines, so only the
/// first ones are listed.
#[derive(Debug, Default)]
pub(super) struct Problems {
    listed: Vec<Problem>,
    unlisted: usize,
}

impl Problems {
    /// The largest number of listed problems.
    const MOST: usize = 20;

    /// Lists or counts a problem.
    pub(super) fn push(&mut self, problem: impl FnOnce() -> Problem) {
        if self.listed.len() >= Problems::MOST {
            return self.count(1);
        }
        let problem = problem();
        self.listed.push(Problem {
            key: without_middle(&problem.key, 100),
            message: without_middle(&problem.message, 300),
            place: problem.place,
        });
    }

    /// Counts problems without a look at them.
    pub(super) fn count(&mut self, more: usize) {
        self.unlisted += more;
    }

    /// True if a listed problem has this key.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.listed.iter().any(|problem| problem.key == key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

/// The begin and the end of a long text, each of at most `kept` characters: the end holds the
/// advice.
fn without_middle(text: &str, kept: usize) -> String {
    let count = text.chars().count();
    if count <= 3 * kept {
        return text.to_owned();
    }
    let begin: String = text.chars().take(kept).collect();
    let end: String = text.chars().skip(count - kept).collect();
    format!("{begin}… ({} characters) …{end}", count - 2 * kept)
}

/// The settings are unusable (exit code 64). Lists every problem, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render())]
pub struct ConfigError {
    /// The source of the text: a path, or words such as `built-in settings`.
    pub origin: String,
    /// Never empty.
    pub problems: Vec<Problem>,
    /// The number of further problems.
    pub unlisted: usize,
}

impl ConfigError {
    pub(super) fn new(origin: &str, found: Problems) -> ConfigError {
        let mut problems = found.listed;
        let place = |problem: &Problem| {
            problem
                .place
                .as_ref()
                .map_or((usize::MAX, 0), |place| (place.line, place.column))
        };
        problems.sort_by_key(place);
        ConfigError {
            origin: origin.to_owned(),
            problems,
            unlisted: found.unlisted,
        }
    }

    /// The line of the first mistake, if the mistake is in the file.
    pub fn line(&self) -> Option<usize> {
        let place = self.problems.first()?.place.as_ref()?;
        Some(place.line)
    }

    /// The first mistake and the number of the others, in one line.
    pub fn summary(&self) -> String {
        let Some(first) = self.problems.first() else {
            return String::new();
        };
        let message = first.message.lines().collect::<Vec<_>>().join(" ");
        let mut out = if first.key.is_empty() {
            message
        } else {
            format!("{}: {message}", first.key)
        };
        let more = self.problems.len() - 1 + self.unlisted;
        if more > 0 {
            let _ = write!(out, " (and {more} more)");
        }
        out
    }

    fn render(&self) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            if !out.is_empty() {
                out.push('\n');
            }
            // Writing to a String can't fail.
            let _ = self.render_one(&mut out, problem);
        }
        if self.problems.len() > 1 {
            let all = self.problems.len() + self.unlisted;
            let _ = write!(out, "\n{all} problems in all");
        }
        if self.unlisted > 0 {
            let _ = write!(out, "; the other {} are not listed", self.unlisted);
        }
        out
    }

    fn render_one(&self, out: &mut String, problem: &Problem) -> std::fmt::Result {
        let origin = if problem.key.starts_with("--") {
            "command line"
        } else {
            &self.origin
        };
        write!(out, "{origin}")?;
        if let Some(place) = &problem.place {
            write!(out, ":{}:{}", place.line, place.column)?;
        }
        if !problem.key.is_empty() {
            write!(out, ": {}", problem.key)?;
        }
        write!(out, ": {}", problem.message)?;
        if let Some(place) = &problem.place {
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            let shown = place.excerpt();
            // The padding keeps tabs, so that the marker stands below the marked characters.
            let padding: String = shown
                .text
                .chars()
                .take(shown.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let marker = "^".repeat(shown.width);
            write!(
                out,
                "\n {gutter} |\n {number} | {}\n {gutter} | {padding}{marker}",
                shown.text
            )?;
        }
        Ok(())
    }
}
