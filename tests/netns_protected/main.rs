//! A protected table of nf_tables: other programs flush every table, and the table stays.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backend;
