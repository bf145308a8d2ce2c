//! The results of `check`, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::printable::escaped;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::commands) enum Severity {
    Ok,
    /// Works, but not in every situation, or differently than expected.
    Warn,
    /// A pass fails, or traffic takes a wrong path.
    Fail,
}

words!(Severity { Ok => "ok", Warn => "warn", Fail => "fail" });

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::commands) struct CheckResult {
    /// A stable name for scripts; several results may share a name.
    pub name: &'static str,
    #[serde(rename = "level")]
    pub severity: Severity,
    pub message: String,
    /// The remedy, if the message doesn't name one.
    pub advice: Option<String>,
}

#[derive(Debug, Default)]
pub(in crate::commands) struct CheckReport(pub Vec<CheckResult>);

impl CheckReport {
    fn push(&mut self, name: &'static str, severity: Severity, message: String) {
        self.0.push(CheckResult {
            name,
            severity,
            message: escaped(&message).into_owned(),
            advice: None,
        });
    }

    fn push_with_advice(
        &mut self,
        name: &'static str,
        severity: Severity,
        message: String,
        advice: String,
    ) {
        self.0.push(CheckResult {
            name,
            severity,
            message: escaped(&message).into_owned(),
            advice: Some(escaped(&advice).into_owned()),
        });
    }

    pub(in crate::commands) fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.push(name, Severity::Ok, message.into());
    }

    pub(in crate::commands) fn warn(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push_with_advice(name, Severity::Warn, message.into(), advice.into());
    }

    /// A warning whose message names the remedy.
    pub(in crate::commands) fn warn_plain(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
    ) {
        self.push(name, Severity::Warn, message.into());
    }

    pub(in crate::commands) fn fail(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push_with_advice(name, Severity::Fail, message.into(), advice.into());
    }

    /// A failure whose message names the remedy.
    pub(in crate::commands) fn fail_plain(
        &mut self,
        name: &'static str,
        message: impl Into<String>,
    ) {
        self.push(name, Severity::Fail, message.into());
    }

    fn count(&self, severity: Severity) -> usize {
        let same = self.0.iter().filter(|result| result.severity == severity);
        same.count()
    }

    pub(in crate::commands) fn fails(&self) -> usize {
        self.count(Severity::Fail)
    }

    pub(in crate::commands) fn to_json(&self) -> Value {
        json!({
            "checks": self.0,
            "fails": self.fails(),
            "warns": self.count(Severity::Warn),
        })
    }

    pub(in crate::commands) fn to_text(&self) -> String {
        let width = self.0.iter().map(|result| result.name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for result in &self.0 {
            let severity = result.severity.as_str();
            let _ = writeln!(
                text,
                "{severity:<4}  {:<width$}  {}",
                result.name, result.message
            );
            if let Some(advice) = &result.advice {
                let _ = writeln!(text, "      {:<width$}  to do: {advice}", "");
            }
        }
        let count = |number: usize, word: &str| match number {
            1 => format!("1 {word}"),
            _ => format!("{number} {word}s"),
        };
        let (fails, warns) = (self.fails(), self.count(Severity::Warn));
        let sentence = match (fails, warns) {
            (0, 0) => "All checks passed.".to_owned(),
            (0, _) => format!("No failures, {}.", count(warns, "warning")),
            _ => format!(
                "A pass would fail or send traffic the wrong way: {}, {}.",
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
    fn columns_are_aligned_and_advice_follows_its_result() {
        let mut report = CheckReport::default();
        report.ok("config", "a");
        assert!(report.to_text().ends_with("\nAll checks passed.\n"));
        report.warn("rp_filter", "b", "c");
        report.fail_plain("lock", "d");
        assert_eq!(
            report.to_text(),
            "ok    config     a\n\
             warn  rp_filter  b\n\
             \u{20}                to do: c\n\
             fail  lock       d\n\
             \n\
             A pass would fail or send traffic the wrong way: 1 failure, 1 warning.\n"
        );
        let json = report.to_json();
        assert_eq!(json["fails"], 1);
        assert_eq!(json["checks"][1]["level"], "warn");
        assert_eq!(json["checks"][2]["advice"], Value::Null);
    }
}
