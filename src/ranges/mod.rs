//! From the document's bytes to the prefixes that take the bypass path. Pure.
//!
//! ```text
//!  bytes ─▶ document ─▶ select ─▶ (guard) ─▶ range_set
//!           rows as     prefixes  dropped,   aggregated,
//!           text        a group   held, …    include, exclude
//! ```
//!
//! `prefix_set` is the set algebra below all of it.

mod prefix_set;
mod publisher;
mod range_set;
mod select;

pub use prefix_set::PrefixSet;
pub use publisher::{Document, DocumentError, Row};
pub use range_set::{Origin, RangeSet};
pub(crate) use select::has_leading_zero;
pub use select::{
    BadPrefix, BadRow, Group, Hint, SelectError, Selection, Selector, bad_rows_outside, select,
    select_lenient,
};
