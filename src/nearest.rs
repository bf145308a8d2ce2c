//! "Did you mean": the known word nearest to a mistyped word.

use strsim::osa_distance;

/// The candidate nearest to a word, if few enough letters differ: a third of the longer word, and
/// at least one. Case doesn't count. The distance counts two swapped neighbours, a common typing
/// error, as one difference (optimal string alignment).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    candidates
        .into_iter()
        .map(|candidate| (osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1.max(candidate.chars().count().max(length) / 3)
                // One difference turns any one-letter word into any other.
                && *distance < length
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_neighbours_are_one_difference() {
        assert_eq!(nearest("gaurd", ["guard", "grade"]), Some("guard"));
        assert_eq!(nearest("ab", ["ba"]), Some("ba"));
        assert_eq!(nearest("kitten", ["sitting"]), None);
        assert_eq!(nearest("", ["abc", ""]), None);
        assert_eq!(nearest("same", ["some", "same"]), Some("same"));
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let keys = ["refresh", "timeout", "url"];
        assert_eq!(nearest("refesh", keys), Some("refresh"));
        assert_eq!(nearest("Timeout", keys), Some("timeout"));
        assert_eq!(nearest("uri", keys), Some("url"));
        assert_eq!(nearest("gateway", keys), None);
        assert_eq!(nearest("x", ["s", "m"]), None);
    }
}
