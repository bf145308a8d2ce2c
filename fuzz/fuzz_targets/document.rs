//! Amazon's document: parsing and selection.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use trailblazer::ranges::{Document, Selector, bad_rows_outside, select, select_lenient};
use trailblazer::types::{Family, Region, Service};

fuzz_target!(|bytes: &[u8]| {
    trailblazer::source::fuzzing::body(bytes);
    let Ok(document) = Document::parse(bytes) else {
        return;
    };
    let selector = Selector {
        services: vec![Service::from("S3"), Service::from("AMAZON")],
        regions: vec![Region::from("us-east-1"), Region::from("GLOBAL")],
        families: BTreeSet::from(Family::ALL),
    };
    let _strict = select(&document, &selector);
    let (lenient, _bad) = select_lenient(&document, &selector);
    assert!(lenient.prefixes().count() <= document.rows.len());
    let _outside = bad_rows_outside(&document, &selector);
    assert!(document.same_rows(&document));
});
