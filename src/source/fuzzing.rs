//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::coding;

/// A body with a content coding.
pub fn body(bytes: &[u8]) {
    let _plain = coding::decode(bytes.to_vec(), 1 << 20);
}
