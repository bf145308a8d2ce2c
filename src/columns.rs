//! Text for a terminal: aligned columns, and colours.

use std::borrow::Cow;

use crate::printable::{escaped, paint};

/// The style of text: with or without colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// Colours for a terminal, as marks that [`crate::printable::page`] turns into sequences.
    Coloured,
}

/// A foreground colour of ECMA-48 SGR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Red,
    Green,
    Yellow,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
        }
    }
}

impl Style {
    /// The text in a colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        self.sgr(colour.code(), text)
    }

    /// The text in bold, for headings.
    pub fn heading(self, text: &str) -> String {
        self.sgr("1", text)
    }

    fn sgr(self, codes: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Coloured => paint(codes, text),
        }
    }
}

/// Each row as a line. Columns from `first_right` on are aligned to the right, so that the sizes
/// of numbers compare at a glance. A cell is one line.
pub fn aligned<const N: usize>(rows: &[[String; N]], first_right: usize) -> Vec<String> {
    let rows: Vec<[Cow<'_, str>; N]> = rows
        .iter()
        .map(|row| std::array::from_fn(|column| escaped(&row[column])))
        .collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let line = |row: &[Cow<'_, str>; N]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, width))| {
                if column < first_right {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_align_left_and_numbers_right() {
        let rows = [["WHAT", "N"], ["é", "10"], ["a", "2"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, 1), ["WHAT   N", "é     10", "a      2"]);
        assert_eq!(aligned::<2>(&[], 1), Vec::<String>::new());
    }
}
