//! Documents for the soak, one after the other: AWS's own of six years, or some made on the spot.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::data::ip_ranges_dir;
use super::documents;
use super::replay::{Replay, ReplayRow};

/// What of AWS's is selected: much, so that much changes. Not the region that the address of the
/// benchmark's own VPC is of: the guard keeps that one.
const SERVICES: [&str; 3] = ["AMAZON", "EC2", "S3"];
const REGIONS: [&str; 3] = ["us-west-2", "eu-west-1", "eu-central-1"];
/// Without AWS's: so many prefixes, of which each document lacks another one.
const MADE: usize = 3000;
const MADE_TOKEN: u64 = 1_700_000_000;

/// See the module.
pub enum Years {
    /// AWS's own.
    Real {
        /// Standing at the last one.
        replay: Box<Replay>,
        /// How many versions change something, and how many of them are wanted.
        changes: (usize, usize),
        /// How many of them were passed, and given.
        so_far: (usize, usize),
    },
    /// Made: the number of the next one.
    Made(usize),
}

fn is_wanted(row: &ReplayRow) -> bool {
    SERVICES.contains(&row.service()) && REGIONS.contains(&row.region())
}

impl Years {
    /// Spreads so many documents over all versions that change something.
    pub fn open(documents: usize) -> Years {
        let Some(directory) = ip_ranges_dir() else {
            return Years::Made(0);
        };
        let mut replay = Replay::open(&directory);
        let mut changes = 0;
        while replay.advance_to_change(is_wanted) {
            changes += 1;
        }
        Years::Real {
            replay: Box::new(Replay::open(&directory)),
            changes: (changes, documents.min(changes)),
            so_far: (0, 0),
        }
    }

    /// What they are.
    pub fn name(&self) -> String {
        match self {
            Years::Real { changes, .. } => format!(
                "AWS's own documents of 2017 to 2023, {} of {} that change something",
                changes.1, changes.0
            ),
            Years::Made(_) => format!("made documents of {MADE} prefixes"),
        }
    }

    /// What to select of them: regions and services, as lists in the settings.
    pub fn selection(&self) -> [String; 2] {
        match self {
            Years::Real { .. } => [format!("{REGIONS:?}"), format!("{SERVICES:?}")],
            Years::Made(_) => {
                [documents::REGION, documents::SERVICE].map(|name| format!("[{name:?}]"))
            }
        }
    }

    /// The next document; `None` at the end.
    pub fn advance(&mut self) -> Option<String> {
        match self {
            Years::Real {
                replay,
                changes,
                so_far,
            } => {
                so_far.1 += 1;
                (so_far.1 <= changes.1).then_some(())?;
                // The last one that is given is the last of all.
                while so_far.0 < so_far.1 * changes.0 / changes.1 {
                    so_far.0 += 1;
                    if !replay.advance_to_change(is_wanted) {
                        return None;
                    }
                }
                Some(String::from_utf8_lossy(&replay.document()).into_owned())
            }
            Years::Made(number) => {
                *number += 1;
                let token = MADE_TOKEN + *number as u64;
                Some(documents::document(token, &made(*number)))
            }
        }
    }

    /// What the last one selects, as routes.
    pub fn routes(&self) -> BTreeSet<IpNet> {
        match self {
            Years::Real { replay, .. } => {
                let prefixes: Vec<IpNet> = replay.selected(is_wanted).into_iter().collect();
                IpNet::aggregate(&prefixes).into_iter().collect()
            }
            Years::Made(number) => made(*number).into_iter().collect(),
        }
    }
}

fn made(number: usize) -> Vec<IpNet> {
    let mut prefixes = documents::prefixes(MADE);
    prefixes.remove(number % MADE);
    prefixes
}
