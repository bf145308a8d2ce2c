//! The packages as installed on a machine: built by the project's own scripts, listed, checked by
//! the distributions' checkers, and installed into fresh roots by the real dpkg, apt and rpm.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod built;
mod contents;
mod deb;
mod inside;
mod lint;
mod metadata;
mod repository;
mod reproducible;
mod rpm;
mod words;
