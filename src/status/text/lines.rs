//! The lines of `status`: a label and a text.

use std::fmt::Write as _;

use crate::columns::Style;
use crate::printable::{indented, paint};

/// The column of the texts.
const COLUMN: usize = 11;

/// The page so far.
pub(crate) struct Lines {
    pub(crate) text: String,
    style: Style,
}

impl Lines {
    pub(crate) fn after(headline: String, style: Style) -> Lines {
        Lines {
            text: headline,
            style,
        }
    }

    pub(crate) fn calm(&mut self, label: &str, text: &str) {
        // Writing to a String can't fail.
        let text = indented(text, COLUMN);
        let _ = writeln!(self.text, "{label:<9}  {text}");
    }

    /// A line whose label is coloured: the operator should act.
    pub(crate) fn worrying(&mut self, label: &str, text: &str) {
        let label = painted(self.style, "33", &format!("{label:<9}"));
        let text = indented(text, COLUMN);
        let _ = writeln!(self.text, "{label}  {text}");
    }

    pub(crate) fn line(&mut self, worrying: bool, label: &str, text: &str) {
        if worrying {
            self.worrying(label, text);
        } else {
            self.calm(label, text);
        }
    }
}

/// ANSI colours (ECMA-48 SGR) on a terminal.
pub(crate) fn painted(style: Style, colour: &str, text: &str) -> String {
    match style {
        Style::Plain => text.to_owned(),
        Style::Coloured => paint(&format!("1;{colour}"), text),
    }
}
