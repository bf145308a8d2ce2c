//! Text from outside, made fit for a terminal, a log and a single line.
//!
//! Pages, JSON and log lines hold names and messages of strangers: documents, interfaces, chains,
//! programs, servers. Everything is escaped where it leaves the program, so that no field can be
//! forgotten. The program's own colours are marks of [`paint`] until then.

use std::borrow::Cow;
use std::fmt::Write as _;

pub mod log;

/// Begin and end of the code of a colour, inside a page. Both are noncharacters of Unicode.
const MARKS: [char; 2] = ['\u{10fffe}', '\u{10ffff}'];

/// The codes of colours (ECMA-48 SGR): those of pages, then those of the log's formatter.
const CODES: [&str; 11] = [
    "0", "1", "31", "32", "33", "1;31", "1;32", "1;33", "2", "3", "34",
];

/// The text in a colour, for [`page`].
pub fn paint(code: &str, text: &str) -> String {
    let [begin, end] = MARKS;
    format!("{begin}{code}{end}{text}{begin}0{end}")
}

/// A page for a terminal: marks of colours become sequences, all other active characters except
/// line feeds are escaped.
pub fn page(text: &str) -> Cow<'_, str> {
    let is_passed = |c: char| c == '\n' || !is_active(c);
    if text.chars().all(is_passed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let code = (c == MARKS[0])
            .then(|| rest.split_once(MARKS[1]))
            .flatten()
            .filter(|(code, _)| CODES.contains(code));
        if let Some((code, after)) = code {
            let _ = write!(out, "\u{1b}[{code}m");
            rest = after;
        } else if is_passed(c) {
            out.push(c);
        } else {
            let _ = write!(out, "{}", c.escape_default());
        }
    }
    Cow::Owned(out)
}

/// Compact JSON with `\uXXXX` in place of active characters, which JSON permits raw inside strings.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_active(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// At most `longest` characters of an escaped text, and `…` in place of the rest.
pub fn shortened(text: &str, longest: usize) -> String {
    let text = escaped(text);
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// A text as a field of a page: lines after the first are indented, so that no line of a field looks
/// like a line of the page.
pub fn indented(text: &str, columns: usize) -> Cow<'_, str> {
    if !text.contains('\n') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\n', &format!("\n{:columns$}", "")))
}

/// The text with `\n`, `\t`, `\u{1b}` and the like in place of characters that a terminal obeys or
/// that hide other text.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_active(c) {
            // Writing to a String can't fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// True for control characters, and for the invisible characters that reorder or hide text
/// ("Trojan Source", CVE-2021-42574).
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
                | '\u{10fffe}'..='\u{10ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("äöü", 2), "äö…");
    }

    #[test]
    fn page_lets_through_line_feeds_and_painted_colours_alone() {
        let shown = page(&format!(
            "{}\n{}",
            paint("1;31", "down"),
            "\u{1b}[31m\t\u{7f}\u{9b}1m\u{202e}\u{10fffe}8\u{10ffff}"
        ))
        .into_owned();
        assert_eq!(
            shown,
            "\u{1b}[1;31mdown\u{1b}[0m\n\\u{1b}[31m\\t\\u{7f}\\u{9b}1m\\u{202e}\\u{10fffe}8\\u{10ffff}"
        );
        assert!(matches!(page("eth0 – ä\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_means_the_same_after_the_escapes() {
        let value = serde_json::json!({"a": "\u{1b}[31m\n\u{7f}\u{9b}\u{202e}\u{e0001}ä"});
        let text = value.to_string();
        let shown = json(&text);
        assert!(!shown.contains(is_active), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn active_characters_are_escaped_and_others_stay() {
        assert_eq!(escaped("eth0 – ä 日本"), "eth0 – ä 日本");
        assert_eq!(
            escaped("a\u{1b}[31m\nb\u{9b}2J\u{202e}c"),
            "a\\u{1b}[31m\\nb\\u{9b}2J\\u{202e}c"
        );
    }
}
