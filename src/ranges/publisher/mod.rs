//! Documents of published prefixes: a parser a publisher, one type for what they say.

mod aws;

pub use aws::{Document, DocumentError, Row};
