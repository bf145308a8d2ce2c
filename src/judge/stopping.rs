//! The chain behind a packet's fate.

/// The chain that decides a packet's fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppingChain {
    pub table: String,
    pub chain: String,
    /// The place of a translating rule in the chain, counted from 1.
    pub rule: Option<usize>,
    /// `policy drop`, `drop`, `reject`, `snat`, `masquerade`, `dnat`, `mark`.
    pub verdict: &'static str,
}

impl std::fmt::Display for StoppingChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, chain {}", self.table, self.chain)?;
        if let Some(rule) = self.rule {
            write!(f, ", rule {rule}")?;
        }
        write!(f, ": {}", self.verdict)
    }
}

/// The mark of a question, written by a foreign chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub by: StoppingChain,
    /// False if a condition outside our knowledge decides about the mark.
    pub certain: bool,
}

impl Marked {
    /// `for the mark 0x77 of table ip mangle, chain PREROUTING, rule 2`.
    pub(super) fn text(&self, mark: u32) -> String {
        let StoppingChain {
            table, chain, rule, ..
        } = &self.by;
        let rule = rule.map(|rule| format!(", rule {rule}"));
        let rule = rule.unwrap_or_default();
        format!("for the mark {mark:#x} of {table}, chain {chain}{rule}")
    }
}
