//! Events of the log, escaped before a terminal, a file or the journal receives them.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{CODES, MARKS, indented, is_active, json, page};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLine {
    /// Text. Further lines of a message are indented, so that no message looks like
    /// another event.
    Text,
    Json,
}

/// A log: escapes each event before the event reaches `to`.
#[derive(Debug)]
pub struct LogWriter<W> {
    pub to: W,
    pub line: LogLine,
    /// True if the formatter colours the level. The formatter escapes sequences of messages.
    pub is_coloured: bool,
}

impl<W: io::Write> io::Write for LogWriter<W> {
    /// Takes one whole event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let body = if self.is_coloured {
            Cow::Owned(recoloured(body))
        } else {
            Cow::Borrowed(body)
        };
        let shown = match self.line {
            LogLine::Json => json(&body),
            LogLine::Text => Cow::Owned(indented(&page(&body), 4).into_owned()),
        };
        self.to.write_all(format!("{shown}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The formatter's own sequences as marks.
fn recoloured(text: &str) -> String {
    let [begin, end] = MARKS;
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part
            .split_once('m')
            .filter(|(code, _)| CODES.contains(code))
        {
            Some((code, after)) => {
                let _ = write!(out, "{begin}{code}{end}{after}");
            }
            None => {
                let _ = write!(out, "\u{1b}[{part}");
            }
        }
    }
    out
}

/// A layer in front of the journal's layer. `journalctl` shows the size of a message in place of a
/// message with control characters, so the journal receives them escaped.
#[derive(Debug)]
pub struct Escaping<L>(pub L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for Escaping<L> {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, ctx: Context<'_, S>) {
        self.0.on_new_span(attributes, id, ctx);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, ctx: Context<'_, S>) {
        self.0.on_record(id, values, ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let fields = event.metadata().fields();
        let mut texts = Texts(vec![None; fields.len()]);
        event.record(&mut texts);
        let mut all = texts.0.iter().flatten();
        if !all.any(|text| text.contains(|c| c != '\n' && is_active(c))) {
            return self.0.on_event(event, ctx);
        }
        let texts: Vec<Option<Cow<'_, str>>> = texts
            .0
            .iter()
            .map(|text| text.as_deref().map(page))
            .collect();
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let values: Vec<Option<&dyn Value>> = texts
            .iter()
            .map(|text| text.as_ref().map(|text| text as &dyn Value))
            .collect();
        let values = fields.value_set_all(&values);
        self.0.on_event(&Event::new(event.metadata(), &values), ctx);
    }
}

/// The values of an event as text, in the order of the fields.
struct Texts(Vec<Option<String>>);

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(slot) = self.0.get_mut(field.index()) {
            *slot = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn log_has_one_event_a_record() {
        use io::Write as _;
        for (line, is_coloured, expected) in [
            (LogLine::Text, false, "\\u{1b}[2m INFO a\n    b\\u{9b}\n"),
            (LogLine::Text, true, "\u{1b}[2m INFO a\n    b\\u{9b}\n"),
        ] {
            let mut log = LogWriter {
                to: Vec::new(),
                line,
                is_coloured,
            };
            log.write_all("\u{1b}[2m INFO a\nb\u{9b}\n".as_bytes())
                .unwrap();
            assert_eq!(String::from_utf8(log.to).unwrap(), expected);
        }
    }

    /// Keeps the values of events, as the journal's layer would send them.
    struct Kept(Arc<Mutex<Vec<Vec<Option<String>>>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut texts = Texts(vec![None; event.metadata().fields().len()]);
            event.record(&mut texts);
            self.0.lock().unwrap().push(texts.0);
        }
    }

    #[test]
    fn journal_receives_the_same_event_with_escapes() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Escaping(Kept(Arc::clone(&kept))));
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\u{1b}[31m\nb\u{202e}";
            tracing::warn!(name, count = 3, "seen: {name}");
            tracing::warn!(count = 4, "seen");
        });
        let texts = |of: &[&str]| of.iter().map(|text| Some((*text).to_owned())).collect();
        let kept = kept.lock().unwrap();
        let shown = "a\\u{1b}[31m\nb\\u{202e}";
        let mut expected: Vec<Vec<Option<String>>> = vec![
            texts(&[&format!("seen: {shown}"), shown, "3"]),
            texts(&["seen", "4"]),
        ];
        for event in &mut expected {
            event.sort();
        }
        let mut kept = kept.clone();
        for event in &mut kept {
            event.sort();
        }
        assert_eq!(kept, expected);
    }
}
