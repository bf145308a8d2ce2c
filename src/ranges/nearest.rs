//! The nearest of some names: for "did you mean".

/// The candidate with the smallest edit distance to `name`, ignoring case; `None` where all
/// are too far away to be meant (more than a third of the name, and more than two edits).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let limit = (lower.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn the_nearest_name() {
        let regions = ["us-east-1", "us-east-2", "us-west-1", "eu-west-1"];
        assert_eq!(nearest("us-east1", regions), Some("us-east-1"));
        assert_eq!(nearest("US-WEST-1", regions), Some("us-west-1"));
        assert_eq!(nearest("mars-north-9", regions), None);
        assert_eq!(nearest("s3", ["AMAZON", "EC2", "S3"]), Some("S3"));
    }
}
