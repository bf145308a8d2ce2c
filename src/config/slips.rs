//! Slips of pasted text: typographic quotes, invisible characters, spaces around a value.

use crate::printable::is_active;

/// True for the quotes of word processors and web pages.
fn is_typographic_quote(c: char) -> bool {
    matches!(c, '\u{2018}'..='\u{201f}' | '\u{2032}'..='\u{2036}' | '«' | '»' | '‹' | '›' | '＂' | '＇' | '`' | '´')
}

/// True for spaces that look like a plain space, and for characters that don't show at all.
fn is_invisible(c: char) -> bool {
    c != '\t' && (is_active(c) || (c.is_whitespace() && !c.is_ascii()))
}

/// The message about a character outside of TOML, if this is one.
pub(super) fn about(c: char) -> Option<String> {
    let code = u32::from(c);
    if is_typographic_quote(c) {
        Some(format!(
            "{c} (U+{code:04X}) is a typographic quote, as web pages and word processors write it: \
             write straight quotes, \"…\""
        ))
    } else if is_invisible(c) {
        Some(format!(
            "an invisible character (U+{code:04X}) stands here, perhaps from a web page: delete \
             the character, or type the line again"
        ))
    } else {
        None
    }
}

/// The slip in the value of a setting, if there is one.
pub(super) fn of_value(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
        let code = u32::from(c);
        return Some(format!(
            "{text:?} contains an invisible character (U+{code:04X}), perhaps from a web page: \
             type the value again"
        ));
    }
    if text.trim() != text {
        return Some(format!(
            "{text:?} begins or ends with a space: write {:?}",
            text.trim()
        ));
    }
    let inner = text.trim_matches(is_typographic_quote);
    (inner != text || text.contains(['“', '”', '„', '＂'])).then(|| {
        let inner = inner.replace(is_typographic_quote, "");
        format!(
            "{text:?} contains typographic quotes, as web pages and word processors write them: \
             the straight quotes around the value are enough, write {inner:?}"
        )
    })
}

/// The first odd character of a line outside of quotes and comments, with its column from 1. If a
/// quote stays open, the text behind the quote counts too.
pub(super) fn in_line(line: &str) -> Option<(usize, char)> {
    let mut open = None;
    let mut first_inside = None;
    for (column, c) in (1..).zip(line.chars()) {
        let odd = about(c).is_some();
        match open {
            Some(quote) if c == quote => (open, first_inside) = (None, None),
            Some(_) if odd => first_inside = first_inside.or(Some((column, c))),
            Some(_) => {}
            None if c == '"' || c == '\'' => open = Some(c),
            None if c == '#' => return None,
            None if odd => return Some((column, c)),
            None => {}
        }
    }
    first_inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_count_outside_of_quotes_only() {
        for (line, found) in [
            ("regions = [“us-east-1”]", Some((12, '“'))),
            ("a = \"it’s\" # “comment”", None),
            ("a = \"5m”", Some((8, '”'))),
            ("a\u{a0}= 1", Some((2, '\u{a0}'))),
            ("a = \"x\" “", Some((9, '“'))),
            ("\ta = 1", None),
        ] {
            assert_eq!(in_line(line), found, "{line}");
        }
    }

    #[test]
    fn values_are_named_with_the_correction() {
        for (value, says) in [
            ("“S3”", "write \"S3\""),
            (" S3", "write \"S3\""),
            ("S\u{200b}3", "U+200B"),
            ("S3\u{a0}", "U+00A0"),
        ] {
            let message = of_value(value).unwrap();
            assert!(message.contains(says), "{value}: {message}");
        }
        for value in ["", "S3", "/srv/it’s here", "eth0 ü"] {
            assert_eq!(of_value(value), None, "{value}");
        }
    }
}
