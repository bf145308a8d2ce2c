use super::*;

const OPTIONAL: [Piece; 7] = Piece::OPTIONAL;

/// The parts left out by a kernel that refuses each policy with one of the parts `bad`.
fn left_out(bad: &[Piece], guess: &[Piece]) -> (Vec<Piece>, usize) {
    let mut asked = 0;
    let found = largest(&OPTIONAL, guess, &mut |without| {
        asked += 1;
        match bad.iter().find(|piece| !without.contains(piece)) {
            Some(piece) => Err(format!("no {piece:?}")),
            None => Ok(()),
        }
    });
    for (piece, words) in &found {
        assert!(words.starts_with("no "), "{piece:?}: {words}");
    }
    (found.into_keys().collect(), asked)
}

#[test]
fn exactly_the_refused_parts_are_left_out() {
    for bits in 0..128u8 {
        let bad: Vec<Piece> = OPTIONAL
            .into_iter()
            .enumerate()
            .filter(|(place, _)| bits & (1 << place) != 0)
            .map(|(_, piece)| piece)
            .collect();
        let (mut left, asked) = left_out(&bad, &[]);
        left.sort();
        let mut expected = bad.clone();
        expected.sort();
        assert_eq!(left, expected);
        assert!(asked <= 16, "{asked} questions");
        let (again, asked) = left_out(&bad, &bad);
        assert_eq!(again.len(), bad.len());
        assert!(asked <= 2, "the last answer is the first guess");
    }
}

#[test]
fn refused_translation_leaves_the_family_out() {
    let found = largest(&OPTIONAL, &[], &mut |_| Err("no nat".to_owned()));
    assert_eq!(found, [(Piece::All, "no nat".to_owned())].into());
}
