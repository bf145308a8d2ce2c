//! From the document's bytes to the prefixes that take the bypass path. Pure.
//!
//! ```text
//!  bytes ─▶ document ─▶ select ─▶ (guard) ─▶ range_set
//!           rows as     prefixes  dropped,   aggregated,
//!           text        a group   held, …    include, exclude
//! ```
//!
//! `prefix_set` is the set algebra below all of it.

mod document;
mod prefix_set;
mod range_set;
mod select;

pub use document::{Document, DocumentError, Row};
pub use prefix_set::PrefixSet;
pub use range_set::{Origin, RangeSet};
pub(crate) use select::has_leading_zero;
pub use select::{
    BadPrefix, BadRow, Group, Hint, SelectError, Selection, Selector, bad_rows_outside, select,
    select_lenient,
};
