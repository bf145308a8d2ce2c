//! Text that is not TOML: the parser's errors with advice for the common slips.

use super::error::{Place, Problem, Problems};
use super::slips;

/// The bytes to search for the places and causes of parser errors.
const SEARCHED: usize = 2 << 20;

/// Turns each parser error into a problem, except errors caused by the previous error: after an
/// unclosed quote or bracket, the parser misreads the following line.
pub(super) fn problems(text: &str, mut errors: Vec<toml::de::Error>) -> Problems {
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    let mut found = Problems::default();
    let mut misread = 0;
    let mut examined = 0;
    let mut searched = 0;
    for error in &errors {
        // A damaged file may have an error in each line, or a thousand in one long line.
        if searched > SEARCHED {
            break;
        }
        examined += 1;
        let mut place = error.span().map(|span| Place::of(text, &span));
        let read = place.as_ref().map_or(0, |place| place.text.len());
        searched += read + error.span().map_or(0, |span| span.start);
        let line = place.as_ref().map_or(0, |place| place.line);
        let slip = place
            .as_mut()
            .and_then(|place| slip(place, error.message()));
        if line == 0 || line > misread {
            let detail = slip.as_deref().unwrap_or_else(|| plain(error.message()));
            let message = format!("not valid TOML: {detail}");
            found.push(|| Problem {
                key: String::new(),
                place,
                message,
            });
        }
        // A known slip spoils its own line only, an open quote the next one too.
        let ends = slip.is_some() && !is_open_quote(error.message());
        misread = if ends { line } else { line + 1 };
    }
    found.count(errors.len() - examined);
    found
}

/// The parser's message, or a clearer one.
fn plain(message: &str) -> &str {
    if message.contains("recurs") {
        return "brackets or dotted keys are nested too deeply: no setting needs more than a list";
    }
    message
}

/// The message about a common slip. Moves the place to the character at fault.
fn slip(place: &mut Place, message: &str) -> Option<String> {
    if let Some((column, c)) = slips::in_line(&place.text) {
        (place.column, place.width) = (column, 1);
        return slips::about(c);
    }
    if message.starts_with("duplicate key") {
        return Some(
            "duplicate key: the key or table stands here a second time; keep one".to_owned(),
        );
    }
    let code = place.text.split('#').next().unwrap_or("");
    let before: String = place.text.chars().take(place.column - 1).collect();
    let at = place.text.chars().nth(place.column - 1);
    let behind: String = place.text.chars().skip(place.column - 1).collect();
    let Some((_, value)) = code.split_once('=') else {
        return code.contains(':').then(|| {
            "a key and its value have a = between them, not a colon: write key = value".to_owned()
        });
    };
    let value = value.trim();
    if message.starts_with("extra `=`") {
        return Some("one = between a key and its value is enough".to_owned());
    }
    if before.contains('=') && has_bare_text(value) {
        return Some(format!(
            "a value that isn't a plain number stands in double quotes: write {}",
            quoted(value)
        ));
    }
    if message.contains("leading zero") {
        return Some(
            "a number begins with 0, which some readers take for octal: write the number without \
             the 0"
                .to_owned(),
        );
    }
    if is_open_quote(message) {
        return Some(format!("{message}: the quote is not closed on this line"));
    }
    if message.starts_with("missing escaped value") {
        return Some(
            "a backslash begins an escape inside double quotes: write \\\\, or put the value in \
             single quotes"
                .to_owned(),
        );
    }
    match at {
        Some(',') if value.starts_with(|c: char| c.is_ascii_digit()) => Some(
            "a number has no commas: write the digits alone, or with _ between them".to_owned(),
        ),
        Some(';') => Some("a line ends without a semicolon: remove the ;".to_owned()),
        Some('/') if behind.starts_with("//") => {
            Some("a comment begins with #, not with //".to_owned())
        }
        Some(_) if code.matches('=').count() > 1 && message.contains("expected newline") => {
            Some("a second key stands on this line: write each key on a line of its own".to_owned())
        }
        _ => None,
    }
}

fn is_open_quote(message: &str) -> bool {
    message.starts_with("invalid basic string") || message.starts_with("invalid literal string")
}

/// True if an element of the value is text without quotes.
fn has_bare_text(value: &str) -> bool {
    elements(value).any(is_bare_text)
}

fn elements(value: &str) -> impl Iterator<Item = &str> {
    let list = value.trim_start_matches('[').trim_end_matches(']');
    list.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

fn is_bare_text(element: &str) -> bool {
    let number = element
        .strip_prefix("0x")
        .unwrap_or(element)
        .trim_start_matches(['+', '-']);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit())
        && number
            .chars()
            .all(|c| c.is_ascii_hexdigit() || "._".contains(c))
        && number.matches('.').count() < 2
        && (element.starts_with("0x") || number.chars().all(|c| !c.is_ascii_alphabetic()));
    let is_other = matches!(element, "true" | "false")
        || element.contains(['"', '\'', '{', '=', ';', ':', '/'])
            && !element.starts_with(|c: char| c.is_ascii_alphanumeric());
    !is_number && !is_other && !element.contains(['"', '\'', '='])
}

/// The value with each bare element in quotes.
fn quoted(value: &str) -> String {
    let quote = |element: &str| {
        if is_bare_text(element) {
            format!("\"{element}\"")
        } else {
            element.to_owned()
        }
    };
    if value.starts_with('[') {
        let elements: Vec<String> = elements(value).map(quote).collect();
        format!("[{}]", elements.join(", "))
    } else {
        format!("\"{value}\"")
    }
}
