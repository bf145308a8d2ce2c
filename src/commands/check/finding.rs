//! What `check` finds, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, but not always, or not as one may think.
    Warn,
    /// A pass fails, or traffic takes a wrong path.
    Fail,
}

words!(Level { Ok => "ok", Warn => "warn", Fail => "fail" });

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// A stable name that scripts may match; several findings may share it.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is.
    pub message: String,
    /// What to do; `None` where nothing is to be done.
    pub advice: Option<String>,
}

/// All lines, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Findings(pub Vec<Finding>);

impl Findings {
    fn push(&mut self, name: &'static str, level: Level, message: String, advice: Option<String>) {
        self.0.push(Finding {
            name,
            level,
            message,
            advice,
        });
    }

    pub(super) fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.push(name, Level::Ok, message.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(name, Level::Warn, message.into(), Some(advice.into()));
    }

    /// A warning whose message says itself what to do.
    pub(super) fn warn_plain(&mut self, name: &'static str, message: impl Into<String>) {
        self.push(name, Level::Warn, message.into(), None);
    }

    pub(super) fn fail(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(name, Level::Fail, message.into(), Some(advice.into()));
    }

    /// A failure whose message says itself what to do.
    pub(super) fn fail_plain(&mut self, name: &'static str, message: impl Into<String>) {
        self.push(name, Level::Fail, message.into(), None);
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|found| found.level == level).count()
    }

    pub(super) fn fails(&self) -> usize {
        self.count(Level::Fail)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "checks": self.0,
            "fails": self.fails(),
            "warns": self.count(Level::Warn),
        })
    }

    pub(super) fn to_text(&self) -> String {
        let width = self.0.iter().map(|found| found.name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for found in &self.0 {
            let level = found.level.as_str();
            let _ = writeln!(
                text,
                "{level:<4}  {:<width$}  {}",
                found.name, found.message
            );
            if let Some(advice) = &found.advice {
                let _ = writeln!(text, "      {:<width$}  to do: {advice}", "");
            }
        }
        let count = |number: usize, word: &str| match number {
            1 => format!("1 {word}"),
            _ => format!("{number} {word}s"),
        };
        let (fails, warns) = (self.fails(), self.count(Level::Warn));
        let sentence = match (fails, warns) {
            (0, 0) => "All is well.".to_owned(),
            (0, _) => format!("It works: {}.", count(warns, "warning")),
            _ => format!(
                "It does not work yet: {}, {}.",
                count(fails, "failure"),
                count(warns, "warning")
            ),
        };
        let _ = writeln!(text, "\n{sentence}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_with_what_to_do_below() {
        let mut findings = Findings::default();
        findings.ok("config", "a");
        assert!(findings.to_text().ends_with("\nAll is well.\n"));
        findings.warn("rp_filter", "b", "c");
        findings.fail_plain("lock", "d");
        assert_eq!(
            findings.to_text(),
            "ok    config     a\n\
             warn  rp_filter  b\n\
             \u{20}                to do: c\n\
             fail  lock       d\n\
             \n\
             It does not work yet: 1 failure, 1 warning.\n"
        );
        let json = findings.to_json();
        assert_eq!(json["fails"], 1);
        assert_eq!(json["checks"][1]["level"], "warn");
        assert_eq!(json["checks"][2]["advice"], Value::Null);
    }
}
