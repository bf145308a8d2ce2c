//! Tables for people: columns under each other.

/// Each row as a line. Columns from `first_right` on stand to the right: numbers, whose size
/// then shows.
pub fn aligned<const N: usize>(rows: &[[String; N]], first_right: usize) -> Vec<String> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column < first_right {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
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
    fn words_to_the_left_and_numbers_to_the_right() {
        let rows = [["WHAT", "N"], ["é", "10"], ["a", "2"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, 1), ["WHAT   N", "é     10", "a      2"]);
        assert_eq!(aligned::<2>(&[], 1), Vec::<String>::new());
    }
}
