//! Enums with one fixed word for each variant, in the config file, in JSON and in messages.

/// An enum with one fixed word for each variant. [`words!`](crate::words!) implements the trait,
/// `Display` and the list of variants from a single table.
pub trait Words: Copy + 'static {
    /// Every variant, in the order in which lists print them.
    const VARIANTS: &'static [Self];

    fn word(self) -> &'static str;

    /// The variant of a word; case counts.
    fn from_word(word: &str) -> Option<Self> {
        let mut variants = Self::VARIANTS.iter().copied();
        variants.find(|variant| variant.word() == word)
    }
}

/// Implements [`Words`], `Display`, `as_str` and `ALL` for an enum.
#[macro_export]
macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every variant, in the order in which lists print them.
            pub const ALL: [$type; [$($word),+].len()] = [$($type::$variant),+];

            /// The word in the config file, in JSON and in messages.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $word),+
                }
            }
        }

        impl $crate::words::Words for $type {
            const VARIANTS: &'static [Self] = &$type::ALL;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// The first items of a list with a count of the others: `a, b and 2 more`.
pub fn first_few<T: ToString>(
    items: impl IntoIterator<Item = T>,
    most: usize,
    between: &str,
) -> String {
    let mut items = items.into_iter();
    let first: Vec<String> = items
        .by_ref()
        .take(most)
        .map(|item| item.to_string())
        .collect();
    let text = first.join(between);
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// `1 object`, `2 objects`.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ if noun.ends_with(['x', 's']) => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

/// The name of an IP protocol, or the number of a rare one (IANA, protocol-numbers).
pub fn protocol_name(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let counts = [0, 1, 2].map(|count| counted(count, "prefix"));
        assert_eq!(counts, ["0 prefixes", "1 prefix", "2 prefixes"]);
        assert_eq!(counted(2, "step"), "2 steps");
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Lamp {
        Red,
        Green,
    }

    words!(Lamp { Red => "red", Green => "green" });

    #[test]
    fn long_lists_are_cut_with_a_count() {
        assert_eq!(first_few([1, 2], 5, ", "), "1, 2");
        assert_eq!(first_few(1..=7, 5, ", "), "1, 2, 3, 4, 5 and 2 more");
    }

    #[test]
    fn every_word_parses_back_to_its_variant() {
        assert_eq!(Lamp::ALL, [Lamp::Red, Lamp::Green]);
        for colour in Lamp::ALL {
            assert_eq!(Lamp::from_word(colour.word()), Some(colour));
        }
        assert_eq!(Lamp::from_word("Red"), None);
        assert_eq!(format!("{:>6}", Lamp::Red), "   red");
    }
}
