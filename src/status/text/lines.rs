//! Lines of a label and a text, as `status` prints them.

use std::fmt::Write as _;

use crate::plan::text::Style;

/// Lines of a label and a text.
pub(crate) struct Lines {
    pub(crate) text: String,
    style: Style,
}

impl Lines {
    /// Lines below a headline.
    pub(crate) fn after(headline: String, style: Style) -> Lines {
        Lines {
            text: headline,
            style,
        }
    }

    /// Everything is well.
    pub(crate) fn calm(&mut self, label: &str, text: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{label:<9}  {text}");
    }

    /// Somebody should look at it.
    pub(crate) fn worrying(&mut self, label: &str, text: &str) {
        let label = painted(self.style, "33", &format!("{label:<9}"));
        let _ = writeln!(self.text, "{label}  {text}");
    }

    pub(crate) fn line(&mut self, worrying: bool, label: &str, text: &str) {
        match worrying {
            true => self.worrying(label, text),
            false => self.calm(label, text),
        }
    }
}

/// ANSI colours (ECMA-48 SGR) on a terminal.
pub(crate) fn painted(style: Style, colour: &str, text: &str) -> String {
    match style {
        Style::Plain => text.to_owned(),
        Style::Coloured => format!("\x1b[1;{colour}m{text}\x1b[0m"),
    }
}
