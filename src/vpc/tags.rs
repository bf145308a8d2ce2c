//! The marks of our lists: the owner, and the newest document that any writer has put in force.
//!
//! The document's token is a tag key of its own (`trailblazer:token:1700000000`), and the largest one
//! counts. A single key would have to be overwritten, and EC2 has no compare-and-set for tags: a slow
//! writer of an old document could lower the value after a fast writer of a newer one. Keys are only
//! added, so the largest one never falls; smaller ones are removed once there are many. Each entry's
//! description has the token too: EC2 changes entries by compare-and-set.

use super::objects::{Entry, Tags};
use crate::types::SyncToken;

/// The key of the owner; the value is the configured name.
pub const OWNER: &str = "trailblazer:owner";

/// The key of the token for people, and the start of the keys that count.
pub const TOKEN: &str = "trailblazer:token";

/// The separator between origin and token in a description.
const DOCUMENT: &str = ", document ";

/// The longest description ("PrefixListEntry", 255 characters).
const LONGEST: usize = 255;

/// The tokens on a list above this number are reduced to the largest. EC2 allows 50 tags.
const MANY: usize = 8;

/// The tags of a new list.
pub fn of_new_list(name: &str, token: SyncToken) -> Tags {
    let mut tags = of_token(token);
    tags.insert(OWNER.to_owned(), name.to_owned());
    tags
}

/// The tags that raise a list to a token.
pub fn of_token(token: SyncToken) -> Tags {
    Tags::from([
        (TOKEN.to_owned(), token.to_string()),
        (format!("{TOKEN}:{token}"), String::new()),
    ])
}

/// The keys of smaller tokens, once there are many of them.
pub fn outdated(tags: &Tags) -> Vec<String> {
    let mut known: Vec<(SyncToken, &String)> = tags
        .keys()
        .filter_map(|key| Some((token_of_key(key)?, key)))
        .collect();
    if known.len() <= MANY {
        return Vec::new();
    }
    known.sort();
    known.pop();
    known.into_iter().map(|(_, key)| key.clone()).collect()
}

/// The token of the newest document that any writer has put in force, or was about to.
pub fn token_of(tags: &Tags, entries: &[Entry]) -> Option<SyncToken> {
    let keys = tags.keys().filter_map(|key| token_of_key(key));
    let value = tags.get(TOKEN).and_then(|value| value.parse().ok());
    let descriptions = entries
        .iter()
        .filter_map(|entry| token_of_description(entry.description.as_deref()?));
    keys.chain(value.map(SyncToken)).chain(descriptions).max()
}

fn token_of_key(key: &str) -> Option<SyncToken> {
    let digits = key.strip_prefix(TOKEN)?.strip_prefix(':')?;
    digits.parse().ok().map(SyncToken)
}

/// The description of an entry: the origins of its addresses, and the document.
pub fn description(origins: &[String], token: SyncToken) -> String {
    let end = format!("{DOCUMENT}{token}");
    let mut text = String::new();
    for (index, origin) in origins.iter().enumerate() {
        let more = origins.len() - index;
        let rest = format!(" and {more} more");
        let room = LONGEST - end.len() - rest.len();
        if text.len() + 2 + origin.len() > room {
            text.push_str(&rest);
            break;
        }
        if index > 0 {
            text.push_str(", ");
        }
        // EC2 takes printable ASCII; origins of a document may hold anything.
        text.extend(origin.chars().filter(|c| c.is_ascii_graphic() || *c == ' '));
    }
    text + &end
}

fn token_of_description(text: &str) -> Option<SyncToken> {
    let (_, digits) = text.rsplit_once(DOCUMENT)?;
    digits.parse().ok().map(SyncToken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(description: &str) -> Entry {
        Entry {
            cidr: "10.0.0.0/8".parse().unwrap(),
            description: Some(description.to_owned()),
        }
    }

    #[test]
    fn largest_token_of_keys_value_and_descriptions_counts() {
        let mut tags = of_new_list("s3", SyncToken(100));
        assert_eq!(token_of(&tags, &[]), Some(SyncToken(100)));
        tags.extend(of_token(SyncToken(90)));
        assert_eq!(
            token_of(&tags, &[]),
            Some(SyncToken(100)),
            "a late, old writer"
        );
        let entries = [entry("S3 us-east-1, document 120"), entry("by hand")];
        assert_eq!(token_of(&tags, &entries), Some(SyncToken(120)));
        assert_eq!(token_of(&Tags::new(), &[entry("by hand")]), None);
    }

    #[test]
    fn many_tokens_are_reduced_to_the_largest() {
        let mut tags = Tags::new();
        for token in 1..=8 {
            tags.extend(of_token(SyncToken(token)));
        }
        assert!(outdated(&tags).is_empty());
        tags.extend(of_token(SyncToken(9)));
        let gone = outdated(&tags);
        assert_eq!(gone.len(), 8);
        tags.retain(|key, _| !gone.contains(key));
        assert_eq!(token_of(&tags, &[]), Some(SyncToken(9)));
    }

    #[test]
    fn description_names_origins_and_fits() {
        let text = description(&["S3 us-east-1".to_owned()], SyncToken(7));
        assert_eq!(text, "S3 us-east-1, document 7");
        let many: Vec<String> = (0..60).map(|n| format!("SERVICE{n} us-east-1")).collect();
        let text = description(&many, SyncToken(1_700_000_000));
        assert!(
            text.len() <= 255 && text.contains(" more, document 1700000000"),
            "{text}"
        );
        assert_eq!(token_of_description(&text), Some(SyncToken(1_700_000_000)));
    }
}
