//! iptables rules as text: parsed into options and printed in one canonical form.
//!
//! The tools print the same rule in several forms: matches in another order, `0x00000002` for
//! `0x2`, marks with or without a full mask, host addresses with or without a prefix length. A
//! comparison of the printed text would find drift in unchanged rules and repair without end.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::firewall::Traffic;

/// A rule without the chain: the text after `-A CHAIN `.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRule {
    /// The text of the tool, for `-D` and rollbacks.
    pub raw: String,
    /// The canonical form, for comparisons and plans.
    pub canonical: String,
    /// The count of a counting rule at the time of reading; not a part of comparisons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Traffic>,
}

impl ChainRule {
    /// A rule with the text as printed by the tool.
    pub fn parse(raw: &str) -> ChainRule {
        ChainRule {
            raw: raw.to_owned(),
            canonical: canonical(raw),
            counted: None,
        }
    }

    /// A rule of ours, fed to the tool in canonical form.
    pub fn spelled(words: &str) -> ChainRule {
        let canonical = canonical(words);
        ChainRule {
            raw: canonical.clone(),
            canonical,
            counted: None,
        }
    }

    /// The text to feed to the tool: as printed, except for the option that the tool can't parse
    /// again (see [`spell_cluster_node`]).
    pub fn to_feed(&self) -> &str {
        if self.raw.contains("--cluster-local-nodemask") {
            &self.canonical
        } else {
            &self.raw
        }
    }
}

/// A word of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// A quoted word is a value, even with a leading dash.
    pub(super) quoted: bool,
}

/// Splits text with the quoting of `xtables_save_string` (iptables, libxtables/xtables.c): double
/// quotes around, a backslash before `"`, `\` and `'` inside.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let quoted = first == '"';
        let mut word = String::new();
        if !quoted {
            word.push(first);
        }
        while let Some(&next) = chars.peek() {
            if !quoted && next.is_whitespace() {
                break;
            }
            chars.next();
            match next {
                '"' if quoted => break,
                '\\' if quoted => word.extend(chars.next()),
                other => word.push(other),
            }
        }
        found.push(Token { text: word, quoted });
    }
    found
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/,!+@%=[]*".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Opt {
    pub(super) name: String,
    pub(super) negated: bool,
    pub(super) values: Vec<String>,
}

impl Opt {
    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

/// The options of a rule, in order.
pub(super) fn options(text: &str) -> Vec<Opt> {
    let mut found: Vec<Opt> = Vec::new();
    let mut negated = false;
    for token in tokens(text) {
        if !token.quoted && token.text == "!" {
            negated = true;
        } else if !token.quoted && token.text.starts_with('-') {
            found.push(Opt {
                name: token.text,
                negated,
                values: Vec::new(),
            });
            negated = false;
        } else if let Some(last) = found.last_mut() {
            last.values.push(token.text);
        } else {
            found.push(Opt {
                name: String::new(),
                negated,
                values: vec![token.text],
            });
        }
    }
    found
}

/// The target of `-j` or `-g`.
pub fn target(text: &str) -> Option<String> {
    options(text)
        .into_iter()
        .find(|option| option.is(&["-j", "-g"]))
        .and_then(|option| option.values.into_iter().next())
}

/// The comments of a rule.
pub fn comments(text: &str) -> Vec<String> {
    options(text)
        .into_iter()
        .filter(|option| option.is(&["--comment"]))
        .filter_map(|option| option.values.into_iter().next())
        .collect()
}

/// The canonical form of a rule.
pub fn canonical(text: &str) -> String {
    let mut basics = Vec::new();
    let mut matches: Vec<Vec<Opt>> = Vec::new();
    let mut verdict: Vec<Opt> = Vec::new();
    for option in options(text) {
        let mut option = spell_values(option);
        if option.is(&["-c"]) {
            // Packet and byte counts of `iptables-save -c`.
            continue;
        }
        if option.is(&["-m"]) {
            matches.push(vec![option]);
        } else if !verdict.is_empty() || option.is(&["-j", "-g"]) {
            verdict.push(option);
        } else if option.is(&["-p", "-s", "-d", "-i", "-o"]) {
            // No match has options of these names.
            basics.push(option);
        } else if let Some(group) = matches.last_mut() {
            spell_cluster_node(&mut option);
            group.push(option);
        } else {
            basics.push(option);
        }
    }
    basics.sort_by_key(basic_order);
    for group in &mut matches {
        group.get_mut(1..).unwrap_or_default().sort();
    }
    matches.sort();
    if let Some(rest) = verdict.get_mut(1..) {
        rest.sort();
    }

    let mut words = Vec::new();
    let ordered = basics
        .iter()
        .chain(matches.iter().flatten())
        .chain(&verdict);
    for option in ordered {
        if option.negated {
            words.push("!".to_owned());
        }
        if !option.name.is_empty() {
            words.push(option.name.clone());
        }
        words.extend(option.values.iter().map(|value| quote(value)));
    }
    words.join(" ")
}

/// The order of the IP header options in the output of iptables-save.
fn basic_order(option: &Opt) -> (usize, String) {
    let place = ["-s", "-d", "-i", "-o", "-p"]
        .iter()
        .position(|name| option.name == *name)
        .unwrap_or(usize::MAX);
    (place, option.name.clone())
}

fn spell_values(mut option: Opt) -> Opt {
    match option.name.as_str() {
        "-s" | "-d" => {
            for value in &mut option.values {
                *value = spell_prefix(value);
            }
        }
        // Both variants omit a full mask in `--mark`, but not in `--set-xmark`.
        "--mark" | "--set-xmark" | "--realm" => {
            for value in &mut option.values {
                *value = spell_masked(value);
            }
        }
        "--ctstate" => {
            for value in &mut option.values {
                let mut states: Vec<&str> = value.split(',').collect();
                states.sort_unstable();
                *value = states.join(",");
            }
        }
        _ => {
            for value in &mut option.values {
                if let Some(number) = hexadecimal(value) {
                    *value = format!("{number:#x}");
                }
            }
        }
    }
    option
}

/// Replaces `--cluster-local-nodemask` by the number of the node, counted from 1. Both variants
/// print the mask, but refuse to parse a mask above 32 (iptables 1.8.9: "bad value for option, or
/// out of range (1-32)"), so that a restore of saved rules fails for all nodes after the fifth.
fn spell_cluster_node(option: &mut Opt) {
    if option.name != "--cluster-local-nodemask" {
        return;
    }
    let mask = option.values.first().and_then(|mask| number(mask));
    if let Some(mask) = mask.filter(|mask| mask.is_power_of_two()) {
        option.name = "--cluster-local-node".to_owned();
        option.values = vec![(mask.trailing_zeros() + 1).to_string()];
    }
}

fn spell_prefix(value: &str) -> String {
    if let Ok(address) = value.parse::<IpAddr>() {
        return IpNet::from(address).to_string();
    }
    match value.parse::<IpNet>() {
        Ok(prefix) => prefix.trunc().to_string(),
        Err(_) => value.to_owned(),
    }
}

fn spell_masked(value: &str) -> String {
    let (bits, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
    match (number(bits), number(mask)) {
        (Some(bits), Some(mask)) => format!("{bits:#x}/{mask:#x}"),
        _ => value.to_owned(),
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn number(text: &str) -> Option<u32> {
    hexadecimal(text).or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rules_in_different_forms_have_one_canonical_form() {
        let same = [
            ("-s 10.0.0.1 -j DROP", "-s 10.0.0.1/32 -j DROP"),
            ("-s 2001:db8::1 -j DROP", "-s 2001:DB8::1/128 -j DROP"),
            (
                "-m connmark --mark 0x1000 -j DROP",
                "-m connmark --mark 4096/0xffffffff -j DROP",
            ),
            (
                "-m realm --realm 83/0xffff -j RETURN",
                "-m realm --realm 0x53/0xffff -j RETURN",
            ),
            (
                "-m cluster --cluster-total-nodes 4 --cluster-local-node 2 --cluster-hash-seed 0x1234",
                "-m cluster --cluster-local-nodemask 0x00000002 --cluster-total-nodes 4 --cluster-hash-seed 0x00001234",
            ),
            (
                "-m conntrack --ctstate UNTRACKED,INVALID -j DROP",
                "-m conntrack --ctstate INVALID,UNTRACKED -j DROP",
            ),
            (
                "-m comment --comment trailblazer -m addrtype --dst-type LOCAL -j X",
                "-m addrtype --dst-type LOCAL -m comment --comment \"trailblazer\" -j X",
            ),
            ("-o eth1 -s 10.0.0.0/8 -j X", "-s 10.0.0.0/8 -o eth1 -j X"),
            ("-c 1 2 -i eth0 -j X", "-i eth0 -j X"),
        ];
        for (one, other) in same {
            assert_eq!(canonical(one), canonical(other));
        }
    }

    #[test]
    fn different_rules_have_different_canonical_forms() {
        let different = [
            ("-s 10.0.0.1 -j DROP", "! -s 10.0.0.1 -j DROP"),
            ("-s 10.0.0.1 -j DROP", "-d 10.0.0.1 -j DROP"),
            ("-j X", "-g X"),
            (
                "-m realm --realm 0x53 -j X",
                "-m realm --realm 0x53/0xffff -j X",
            ),
            ("-m comment --comment a -j X", "-m comment --comment b -j X"),
            (
                "-m comment --comment \"-j X\"",
                "-m comment --comment y -j X",
            ),
        ];
        for (one, other) in different {
            assert_ne!(canonical(one), canonical(other));
        }
    }

    #[test]
    fn quoted_comments_survive_a_round_trip() {
        let text = r#"-m comment --comment "it\'s a \"rule\" \\ -j DROP" -j X"#;
        assert_eq!(comments(text), [r#"it's a "rule" \ -j DROP"#]);
        assert_eq!(target(text).as_deref(), Some("X"));
        assert_eq!(canonical(text), text);
        assert_eq!(canonical(&canonical(text)), canonical(text));
    }

    #[test]
    fn malformed_text_does_not_panic() {
        for text in [
            "",
            "\"",
            "\\",
            "! !",
            "-j",
            "word",
            "-m",
            "-s x/y --mark / \"a",
            "-m cluster --cluster-local-nodemask 0",
            "-m cluster --cluster-local-nodemask",
        ] {
            let _ = (canonical(text), target(text), comments(text));
        }
    }
}
