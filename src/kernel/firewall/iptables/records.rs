//! Splits the output of `iptables-save` and `iptables -S` into records. Pure.
//!
//! A record is a line, except for a rule with a line break inside a quoted word: the kernel stores
//! any byte in a comment, and both programs print the byte as it is.

use std::borrow::Cow;

/// The records of an output, in order.
pub(super) fn records(output: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut lines = output.lines();
    std::iter::from_fn(move || {
        let mut record = Cow::Borrowed(lines.next()?);
        while ends_inside_quotes(&record) {
            let Some(next) = lines.next() else { break };
            let joined = record.to_mut();
            joined.push('\n');
            joined.push_str(next);
        }
        Some(record)
    })
}

/// True for a rule whose last quoted word has no end yet. A chain's name has no quotes around.
fn ends_inside_quotes(record: &str) -> bool {
    let rule = match record.strip_prefix('[') {
        Some(counted) => counted.split_once("] ").map_or("", |(_, rule)| rule),
        None => record,
    };
    let rest = rule
        .strip_prefix("-A ")
        .and_then(|rest| rest.split_once(' '));
    let Some((_chain, words)) = rest else {
        return false;
    };
    let (mut quoted, mut at_start) = (false, true);
    let mut chars = words.chars();
    while let Some(next) = chars.next() {
        if quoted {
            match next {
                '"' => quoted = false,
                '\\' => drop(chars.next()),
                _ => {}
            }
        } else {
            quoted = at_start && next == '"';
            at_start = next.is_whitespace();
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_break_in_a_comment_stays_in_its_rule() {
        let rule =
            "[3:4] -A INPUT -m comment --comment \"one \\\" two\n-A FORWARD\nCOMMIT\" -j ACCEPT";
        let output = format!("*filter\n:IN\"PUT - [0:0]\n{rule}\n-A IN\"PUT -j DROP\nCOMMIT\n");
        let found: Vec<_> = records(&output).collect();
        assert_eq!(
            found,
            [
                "*filter",
                ":IN\"PUT - [0:0]",
                rule,
                "-A IN\"PUT -j DROP",
                "COMMIT"
            ]
        );
    }

    #[test]
    fn unfinished_quotes_take_the_rest() {
        let output = "-A INPUT -m comment --comment \"one\nCOMMIT\n";
        assert_eq!(records(output).count(), 1);
    }
}
