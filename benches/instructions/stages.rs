//! The stages, each with its inputs at the size of AWS's own document.

use std::error::Error;
use std::hint::black_box;

use trailblazer::config::GuardConfig;
use trailblazer::guard::{Environment, Fetch, GuardInputs, GuardState, LastGood, judge};
use trailblazer::kernel::fuzzing::decode_route;
use trailblazer::kernel::route::{Write, encode};
use trailblazer::objects::Route;
use trailblazer::observed::ObservedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::plan::plan;
use trailblazer::ranges::{Document, PrefixSet, Selector, select};
use trailblazer::types::{Family, PerFamily};

use crate::{documents, goals};

/// The rows of AWS's own document, rounded up.
const ROWS: usize = 17_000;
const TOKEN: u64 = 1_700_000_000;

/// A stage prepares its inputs, and then runs this many times.
pub type Stage = fn(u8) -> Done;

type Done = Result<(), Box<dyn Error>>;

/// The stages by name.
pub const STAGES: &[(&str, Stage)] = &[
    ("parse", parse),
    ("select", selection),
    ("aggregate", aggregate),
    ("guard", guard),
    ("diff-first", diff_first),
    ("diff-no-op", diff_nothing),
    ("encode", encoding),
    ("decode", decoding),
];

fn parse(rounds: u8) -> Done {
    let text = documents::large_document(TOKEN, ROWS);
    for _ in 0..rounds {
        black_box(Document::parse(black_box(text.as_bytes())).is_ok());
    }
    Ok(())
}

fn selector() -> Selector {
    Selector {
        services: vec![documents::SERVICE.into()],
        regions: vec![documents::REGION.into()],
        families: Family::ALL.into(),
    }
}

fn selection(rounds: u8) -> Done {
    let text = documents::document(TOKEN, &documents::prefixes(ROWS));
    let document = Document::parse(text.as_bytes())?;
    let selector = selector();
    for _ in 0..rounds {
        black_box(select(black_box(&document), &selector).is_ok());
    }
    Ok(())
}

fn aggregate(rounds: u8) -> Done {
    let prefixes = documents::prefixes(ROWS);
    for _ in 0..rounds {
        let set: PrefixSet = black_box(&prefixes).iter().collect();
        black_box(set.all_prefixes());
    }
    Ok(())
}

fn guard(rounds: u8) -> Done {
    let before = documents::prefixes(ROWS);
    let mut after = before.clone();
    after.push(documents::another(ROWS));
    let texts = [
        documents::document(TOKEN, &before),
        documents::document(TOKEN + 1, &after),
    ];
    let last = Document::parse(texts[0].as_bytes())?;
    let next = Document::parse(texts[1].as_bytes())?;
    let selector = selector();
    let config = GuardConfig {
        max_prefixes: usize::MAX,
        ..GuardConfig::default()
    };
    let now = i64::try_from(TOKEN)? + 2;
    for _ in 0..rounds {
        let judgement = judge(black_box(&GuardInputs {
            fetch: Fetch::Document(&next),
            source: None,
            held: None,
            last_good: LastGood::Document(&last),
            state: &GuardState::default(),
            state_unreadable: false,
            now,
            config: &config,
            selector: &selector,
            include: &[],
            exclude: &[],
            environment: &Environment::default(),
            accept: None,
            kernel_prefixes: &PerFamily::default(),
        }));
        black_box(judgement.is_ok());
    }
    Ok(())
}

fn routes() -> Vec<Route> {
    goals::routes(&documents::prefixes(ROWS), &Numbers::default())
}

fn diff(rounds: u8, observed: &ObservedState) {
    let ownership = Ownership::new(Numbers::default(), []);
    let goal = goals::goal(routes());
    for _ in 0..rounds {
        black_box(plan(black_box(&goal), observed, &ownership));
    }
}

fn diff_first(rounds: u8) -> Done {
    diff(rounds, &ObservedState::empty());
    Ok(())
}

fn diff_nothing(rounds: u8) -> Done {
    let mut observed = ObservedState::empty();
    observed.routes = routes();
    diff(rounds, &observed);
    Ok(())
}

fn encoding(rounds: u8) -> Done {
    let routes = routes();
    let mut buffer = Vec::new();
    for _ in 0..rounds {
        for route in black_box(&routes) {
            buffer.clear();
            black_box(encode(Write::Add, route, &mut buffer));
        }
    }
    Ok(())
}

fn decoding(rounds: u8) -> Done {
    let routes = routes();
    let message = |route: &Route| {
        let mut buffer = Vec::new();
        encode(Write::Add, route, &mut buffer);
        buffer
    };
    let messages: Vec<Vec<u8>> = routes.iter().map(message).collect();
    for _ in 0..rounds {
        for message in black_box(&messages) {
            assert!(decode_route(black_box(message)), "our own message is valid");
        }
    }
    Ok(())
}
