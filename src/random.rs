//! Random numbers for spreading out waits and for names; never for secrets.

use std::hash::{BuildHasher, RandomState};

/// Any 64 bits. The standard library keys its hasher at random for each process and changes the
/// keys with each `RandomState`: enough to spread waits, and no dependency.
pub fn number() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Evenly spread from zero to one.
pub fn fraction() -> f64 {
    number() as f64 / u64::MAX as f64
}
