//! Text from outside, made fit for a terminal, a log and a single line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// At most `longest` characters of a text, and `…` in place of the rest.
pub fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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
    fn active_characters_are_escaped_and_others_stay() {
        assert_eq!(escaped("eth0 – ä 日本"), "eth0 – ä 日本");
        assert_eq!(
            escaped("a\u{1b}[31m\nb\u{9b}2J\u{202e}c"),
            "a\\u{1b}[31m\\nb\\u{9b}2J\\u{202e}c"
        );
    }
}
