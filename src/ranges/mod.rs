//! From the bytes of a document to the prefixes of the bypass path. Pure.
//!
//! ```text
//!  bytes ─▶ publisher ─▶ select ─▶ (guard) ─▶ range_set
//!           rows as      prefixes  dropped,   aggregated,
//!           text         by group  held, …    include, exclude
//! ```
//!
//! `prefix_set` has the set operations for all stages, over the lists of `span`.

mod hint;
mod prefix_set;
mod publisher;
mod range_set;
mod row;
mod select;
mod span;

pub use hint::Hint;
pub use prefix_set::PrefixSet;
pub use publisher::{Document, DocumentError, Row};
pub use range_set::{Origin, RangeSet};
pub use row::{BadPrefix, BadRow};
pub use select::{
    Group, Groups, SelectError, Selection, Selector, bad_rows_outside, select, select_lenient,
};
