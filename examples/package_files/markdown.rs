//! The part of Markdown that `docs/configuration.md` uses, as a man page's macros.

/// Headings become sections, rows of the keys' tables become tagged paragraphs.
pub fn to_man(text: &str) -> String {
    let mut page = String::new();
    let mut in_code = false;
    // A blank line only ends a paragraph; the macro comes with what follows.
    let mut gap = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            page.push_str(if in_code {
                ".PP\n.RS 4\n.nf\n"
            } else {
                ".fi\n.RE\n"
            });
            gap = false;
        } else if in_code {
            page.push_str(&escape(line, true));
            page.push('\n');
        } else if line.trim().is_empty() {
            gap = true;
        } else if let Some(heading) = line.strip_prefix("## ") {
            page.push_str(&format!(".SH \"{}\"\n", escape(heading, false)));
            gap = false;
        } else if line.starts_with('|') {
            page.push_str(&row(line));
            gap = false;
        } else if let Some(item) = line.strip_prefix("- ") {
            page.push_str(&format!(".IP \\(bu 2\n{}\n", inline(item)));
            gap = false;
        } else {
            if gap {
                page.push_str(".PP\n");
                gap = false;
            }
            page.push_str(&inline(line));
            page.push('\n');
        }
    }
    page
}

/// One key; nothing for the heads of the tables.
fn row(line: &str) -> String {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [key, takes, default, example, meaning, refused] = cells.as_slice() else {
        return String::new();
    };
    if !key.starts_with('`') {
        return String::new();
    }
    let mut text = format!(
        ".TP\n{} = {}\n{}\n.br\nDefault: {}. Example: {}.\n",
        inline(key),
        inline(takes),
        inline(meaning),
        inline(default),
        inline(example)
    );
    if !refused.is_empty() {
        text.push_str(&format!(".br\nRefused: {}\n", inline(refused)));
    }
    text
}

/// Code and bold in bold; of a link the text alone.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(['`', '*', '[']) {
        out.push_str(&escape(&rest[..start], false));
        rest = &rest[start..];
        let found = if let Some(inner) = delimited(rest, "`", "`") {
            Some((format!("\\fB{}\\fR", escape(inner.0, true)), inner.1))
        } else if let Some(inner) = delimited(rest, "**", "**") {
            Some((format!("\\fB{}\\fR", inline(inner.0)), inner.1))
        } else if let Some((label, after)) = delimited(rest, "[", "]")
            && let Some((_target, after)) = delimited(after, "(", ")")
        {
            Some((inline(label), after))
        } else {
            None
        };
        match found {
            Some((text, after)) => {
                out.push_str(&text);
                rest = after;
            }
            None => {
                out.push_str(&escape(&rest[..1], false));
                rest = &rest[1..];
            }
        }
    }
    out.push_str(&escape(rest, false));
    // A line that begins like a request would be taken for one.
    if out.starts_with(['.', '\'']) {
        out.insert_str(0, "\\&");
    }
    out
}

fn delimited<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(open)?.split_once(close)
}

/// Text that roff prints as it is. In code a minus is a minus and not a hyphen, so that it can be
/// copied from the page.
pub fn escape(text: &str, code: bool) -> String {
    let mut out = String::new();
    for (at, character) in text.chars().enumerate() {
        match character {
            '\\' => out.push_str("\\e"),
            '-' if code => out.push_str("\\-"),
            '\'' if code => out.push_str("\\(aq"),
            '.' if code && at == 0 => out.push_str("\\&."),
            '"' if !code => out.push_str("\\(dq"),
            '…' => out.push_str("..."),
            other => out.push(other),
        }
    }
    out
}
