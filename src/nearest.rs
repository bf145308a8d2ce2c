//! "Did you mean": the known word that a mistyped one is nearest to.

/// The nearest of the candidates, if any is near enough to be what was meant: at most a third of
/// the letters differ, but one slip is always allowed. Case counts nothing.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(far, candidate)| {
            *far <= 1.max(candidate.chars().count().max(lower.chars().count()) / 3)
                // Of two one-letter words, everything is one slip away.
                && *far < lower.chars().count()
        })
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and substitutions of one letter, and two neighbours that changed
/// places, which is the slip of fast fingers (Damerau and Levenshtein, restricted).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let substituted = above[j] + usize::from(a != b);
            let mut least = substituted.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("gaurd", "guard"), 1);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", ""), 0);
    }

    #[test]
    fn near_enough_or_nothing() {
        let keys = ["refresh", "timeout", "url"];
        assert_eq!(nearest("refesh", keys), Some("refresh"));
        assert_eq!(nearest("Timeout", keys), Some("timeout"));
        assert_eq!(nearest("uri", keys), Some("url"));
        assert_eq!(nearest("gateway", keys), None);
        assert_eq!(nearest("x", ["s", "m"]), None);
    }
}
