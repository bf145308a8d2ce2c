//! The pure parts of `make headline`: rates of the model, the definition of a saturated NAT, bounds,
//! money, and the texts of table, page and chart.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../benches/headline/chart.rs"]
mod chart;
#[path = "../benches/headline/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../benches/headline/model.rs"]
mod model;
#[path = "../benches/headline/money.rs"]
mod money;
#[path = "../benches/headline/page.rs"]
mod page;
#[path = "../benches/headline/report.rs"]
mod report;
#[path = "../benches/headline/series.rs"]
mod series;
#[path = "../benches/headline/verdict.rs"]
mod verdict;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use machine::Machine;
use model::Model;
use report::Report;
use series::{Series, Way};
use verdict::{Step, capacity, far_beyond, percentile};

fn model() -> Model {
    Model {
        uplink: 10e6,
        server: 1.83e6,
        s3_share: 0.975,
        price: 0.045,
    }
}

/// A number of servers with a goodput and drops, of 10,000 packets.
fn step(servers: usize, goodput: f64, drops: u64) -> Step {
    Step {
        servers,
        seconds: 2.0,
        reads_demand: 100.0,
        reads: 100.0,
        writes_demand: 4000.0,
        writes: 4000.0 * goodput,
        uplink_packets: 10_000 - drops,
        uplink_bytes: 1100,
        drops,
        ..Step::default()
    }
}

fn one(way: Way, steps: Vec<Step>) -> Series {
    let sources = [
        BTreeSet::from([Ipv4Addr::new(198, 51, 100, 5)]),
        BTreeSet::from([Ipv4Addr::new(10, 0, 1, 1)]),
    ];
    Series::new(way, steps, sources, true)
}

fn report(with_bypass: usize) -> Report {
    let alone = vec![step(1, 1.0, 0), step(5, 1.0, 0), step(6, 0.87, 500)];
    let bypass = || {
        vec![
            step(5, 1.0, 0),
            step(with_bypass, 1.0, 10),
            step(250, 1.0, 90),
        ]
    };
    let series = vec![
        one(Way::Nobody, alone),
        one(Way::HostRole, bypass()),
        one(Way::NatRole, bypass()),
        one(Way::Script, bypass()),
    ];
    let took = Duration::from_secs(150);
    Report::new(model(), series, Machine::default(), took)
}

#[test]
fn default_rates_fit_five_servers_with_all_traffic_and_more_than_200_without_storage() {
    let model = model();
    assert_eq!(model.allowed_with_all().floor(), 5.0);
    assert_eq!(model.allowed_with_egress().floor(), 218.0);
    assert!((model.reads() + model.writes() - model.server).abs() < 1.0);
    // Six segments a write, one a read, at the rates above.
    assert!((model.write_interval() - 6.0 * 1514.0 * 8.0 / 1_784_250.0).abs() < 1e-9);
    assert!((model.read_interval() - 1514.0 * 8.0 / 45_750.0).abs() < 1e-9);
    assert!((Model::content(1514.0) - 1448.0).abs() < 1e-9);
    assert!(model.check().is_ok());
    assert!(
        Model {
            s3_share: 1.0,
            ..model
        }
        .check()
        .is_err()
    );
}

#[test]
fn goodput_of_reads_or_writes_below_95_percent_is_saturation() {
    assert!(!step(1, 0.95, 0).saturated());
    assert!(step(1, 0.949, 0).saturated());
    // Reads are a small part of the sum, and count by themselves.
    let few_reads = Step {
        reads: 94.0,
        ..step(1, 1.0, 0)
    };
    assert!(few_reads.saturated());
    assert!((few_reads.goodput() - 0.94).abs() < 1e-9);
}

#[test]
fn more_than_one_drop_in_a_thousand_packets_is_saturation() {
    assert!(!step(1, 1.0, 10).saturated());
    assert!(step(1, 1.0, 11).saturated());
    assert_eq!(Step::default().drop_share(), 0.0);
}

#[test]
fn capacity_ends_before_the_first_saturated_number() {
    let steps = [
        step(1, 1.0, 0),
        step(5, 1.0, 0),
        step(6, 0.8, 0),
        step(8, 1.0, 0),
    ];
    assert_eq!(capacity(&steps), 5);
    assert_eq!(capacity(&steps[2..]), 0);
    assert_eq!(capacity(&[]), 0);
}

#[test]
fn a_series_ends_after_four_saturated_numbers_in_a_row() {
    let bad = |servers| step(servers, 0.5, 0);
    assert!(!far_beyond(&[bad(1), bad(2), bad(3)]));
    assert!(!far_beyond(&[
        bad(1),
        bad(2),
        step(3, 1.0, 0),
        bad(4),
        bad(5),
        bad(6)
    ]));
    assert!(far_beyond(&[
        step(1, 1.0, 0),
        bad(2),
        bad(3),
        bad(4),
        bad(5)
    ]));
}

#[test]
fn percentiles_take_the_nearest_rank() {
    let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    assert_eq!(percentile(&samples, 0.99), 99.0);
    assert_eq!(percentile(&samples, 0.5), 50.0);
    assert_eq!(percentile(&[7.0], 0.99), 7.0);
    assert_eq!(percentile(&[], 0.99), 0.0);
}

#[test]
fn bounds_fail_below_95_percent_of_the_model_and_at_200() {
    assert!(report(210).all_hold());
    // 207.7 servers are 95 % of 218.6.
    let near = report(205);
    let failed: Vec<_> = near.bounds.iter().filter(|bound| !bound.holds).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed
            .iter()
            .all(|bound| bound.figure.contains("at least 207.7"))
    );
    let at_200 = report(200);
    assert_eq!(at_200.bounds.iter().filter(|bound| !bound.holds).count(), 4);
    assert!(
        at_200
            .text()
            .contains("FAIL  host role: servers on one NAT: 200, more than 200")
    );
}

#[test]
fn a_wrong_source_fails_a_bound_of_each_way() {
    for way in Way::ALL {
        let mut series = report(210).series;
        for one in series.iter_mut().filter(|one| one.way == way) {
            one.sources_hold = false;
        }
        let report = Report::new(model(), series, Machine::default(), Duration::ZERO);
        assert!(!report.all_hold(), "{way:?}");
    }
}

#[test]
fn money_counts_the_bytes_of_the_uplink_in_both_directions() {
    // 4000 bit/s for two seconds are 1000 bytes written, with 1100 bytes on the uplink.
    let factor = money::uplink_per_written(&step(5, 1.0, 0));
    assert!((factor - 1.1).abs() < 1e-9);
    assert!((money::dollars(0.045, 1000.0, factor) - 49.5).abs() < 1e-9);
    let report = report(210);
    assert_eq!(report.common(), 5);
    assert!(
        report
            .page()
            .contains("| nobody steers | 1.1000 | 4950.00 |")
    );
}

#[test]
fn the_page_names_each_number_of_servers_and_marks_the_saturated_ones() {
    let page = report(210).page();
    assert!(page.contains("**5** servers"), "{page}");
    assert!(page.contains("**210** with the host role"), "{page}");
    assert!(page.contains("| ✗ 6 | "), "{page}");
    assert!(page.contains("\n| 210 | "), "{page}");
    assert!(!page.contains("FAIL"), "{page}");
    assert!(report(200).page().contains("| **FAIL** | host role: "));
}

#[test]
fn json_holds_the_model_the_steps_and_the_bounds() {
    let json = report(210).json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["model"]["uplink"], 10e6);
    assert_eq!(value["series"][1]["way"], "host-role");
    assert_eq!(value["series"][1]["capacity"], 210);
    assert_eq!(value["series"][0]["steps"][2]["drops"], 500);
    assert!(
        value["bounds"]
            .as_array()
            .unwrap()
            .iter()
            .all(|bound| bound["holds"] == true)
    );
}

#[test]
fn the_chart_names_each_way_with_its_capacity_and_has_dark_colours() {
    let svg = report(210).chart().unwrap();
    assert!(svg.starts_with("<svg "), "{svg}");
    for line in [
        "nobody steers: 5 servers",
        "host role: 210 servers",
        "of the demand",
    ] {
        assert!(svg.contains(line), "{line}: {svg}");
    }
    assert!(svg.contains("prefers-color-scheme: dark"));
    // Each colour of the drawing has a counterpart for dark backgrounds.
    for attribute in ["fill=\"#", "stroke=\"#"] {
        for (at, _) in svg.match_indices(attribute) {
            let colour = &svg[at..at + attribute.len() + 7];
            assert!(svg.contains(&format!("[{colour}]{{")), "{colour}");
        }
    }
}
