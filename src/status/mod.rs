//! What a running agent tells about itself.

pub mod snapshot;
