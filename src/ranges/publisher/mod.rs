//! Documents of published prefixes: one document type, and one parser for each publisher.

mod aws;
mod document;

pub use document::{Document, DocumentError, Row};
