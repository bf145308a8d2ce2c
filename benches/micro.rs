//! The pure stages by themselves, at the size of AWS's own document and beyond: `cargo bench
//! --bench micro`. Medians in a table, to see where the time of a pass goes; no bounds.

#[path = "passes/documents.rs"]
mod documents;
#[path = "passes/goals.rs"]
mod goals;

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use trailblazer::observed::ObservedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::plan::{Goal, plan};
use trailblazer::ranges::{Document, PrefixSet, Selector, select};
use trailblazer::types::Family;

use goals::{goal, routes};

/// The median of the rounds, in milliseconds.
fn median<T>(rounds: usize, mut what: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            black_box(what());
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    const ROUNDS: usize = 21;
    let show = |what: &str, took: f64| println!("{what:<58} {took:>9.3} ms");

    let large = documents::large_document(1_700_000_000, 441);
    let size = large.len() as f64 / 1e6;
    let parsed = Document::parse(large.as_bytes())?;
    show(
        &format!("parse {size:.1} MB, {} rows", parsed.rows.len()),
        median(ROUNDS, || Document::parse(large.as_bytes())),
    );
    let selector = Selector {
        services: vec![documents::SERVICE.into()],
        regions: vec![documents::REGION.into()],
        families: Family::ALL.into(),
    };
    show(
        "select one region's S3 out of it",
        median(ROUNDS, || select(&parsed, &selector)),
    );

    for count in [11_000, 100_000] {
        let prefixes = documents::prefixes(count);
        let document = documents::document(1_700_000_000, &prefixes);
        show(
            &format!("parse {count} selected rows, and select them"),
            median(ROUNDS, || {
                Document::parse(document.as_bytes())
                    .map(|parsed| select(&parsed, &selector).map(|found| found.groups.len()))
            }),
        );
        show(
            &format!("aggregate {count}"),
            median(ROUNDS, || {
                prefixes.iter().collect::<PrefixSet>().all_prefixes()
            }),
        );
        let numbers = Numbers::default();
        let ownership = Ownership::new(numbers, []);
        let full = goal(routes(&prefixes, &numbers));
        let mut observed = ObservedState::empty();
        show(
            &format!("plan {count} from nothing"),
            median(ROUNDS, || plan(&full, &observed, &ownership)),
        );
        observed.routes = full.routes.clone();
        show(
            &format!("plan {count}, nothing to do"),
            median(ROUNDS, || plan(&full, &observed, &ownership)),
        );
        let mut more = prefixes;
        more.push(documents::another(count));
        let one_more = goal(routes(&more, &numbers));
        show(
            &format!("plan {count}, one more"),
            median(ROUNDS, || plan(&one_more, &observed, &ownership)),
        );
        let nothing = Goal::nothing();
        show(
            &format!("plan {count}, remove all"),
            median(ROUNDS, || plan(&nothing, &observed, &ownership)),
        );
    }
    Ok(())
}
