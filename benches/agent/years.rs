//! Documents for the soak: AWS's own of six years, or generated ones.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::documents;
use lab::data::ip_ranges_dir;
use lab::replay::{Replay, ReplayRow};

/// The selected services of AWS's documents, many, for many changes. The benchmark's VPC address
/// lies in another region, since the guard leaves out prefixes around own addresses.
const SERVICES: [&str; 3] = ["AMAZON", "EC2", "S3"];
const REGIONS: [&str; 3] = ["us-west-2", "eu-west-1", "eu-central-1"];
/// Without AWS's documents: the number of prefixes; each document lacks another prefix.
const MADE: usize = 3000;
const MADE_TOKEN: u64 = 1_700_000_000;
/// The last documents, repeated under new tokens: AWS's list grows, and a search for leaks needs a
/// constant size.
const LAST: usize = 10;

/// See the module.
pub struct Years {
    source: Source,
    /// How many were given.
    given: usize,
    /// How many there shall be.
    most: usize,
    /// The last document's selection, as routes.
    routes: BTreeSet<IpNet>,
}

enum Source {
    Real(Box<Real>),
    Made,
}

struct Real {
    replay: Replay,
    /// Versions with a change, and the number already served.
    changes: usize,
    passed: usize,
    last: Vec<Version>,
}

struct Version {
    token: u64,
    document: String,
    routes: BTreeSet<IpNet>,
}

fn is_wanted(row: &ReplayRow) -> bool {
    SERVICES.contains(&row.service()) && REGIONS.contains(&row.region())
}

impl Years {
    /// `most` documents: the first half spread over all versions with a change.
    pub fn open(most: usize) -> Years {
        let source = match ip_ranges_dir() {
            None => Source::Made,
            Some(directory) => {
                let mut replay = Replay::open(&directory);
                let mut changes = 0;
                while replay.advance_to_change(is_wanted) {
                    changes += 1;
                }
                Source::Real(Box::new(Real {
                    replay: Replay::open(&directory),
                    changes,
                    passed: 0,
                    last: Vec::new(),
                }))
            }
        };
        Years {
            source,
            given: 0,
            most,
            routes: BTreeSet::new(),
        }
    }

    /// The name of the documents.
    pub fn name(&self) -> String {
        match &self.source {
            Source::Real(real) => format!(
                "AWS's own documents of 2017 to 2023, {} of {} that change something, then the last \
                 {LAST} again and again",
                self.most / 2,
                real.changes
            ),
            Source::Made => format!("made documents of {MADE} prefixes"),
        }
    }

    /// Regions and services to select, as lists in the settings.
    pub fn selection(&self) -> [String; 2] {
        match self.source {
            Source::Real(_) => [format!("{REGIONS:?}"), format!("{SERVICES:?}")],
            Source::Made => {
                [documents::REGION, documents::SERVICE].map(|name| format!("[{name:?}]"))
            }
        }
    }

    /// The last document's selection, as routes.
    pub fn routes(&self) -> &BTreeSet<IpNet> {
        &self.routes
    }

    /// The next document; `None` at the end.
    pub fn advance(&mut self) -> Option<String> {
        if self.given == self.most {
            return None;
        }
        self.given += 1;
        let version = match &mut self.source {
            Source::Real(real) => real.advance(self.given, self.most / 2)?,
            Source::Made => {
                let mut prefixes = documents::prefixes(MADE);
                prefixes.remove(self.given % MADE);
                let token = MADE_TOKEN + self.given as u64;
                Version {
                    token,
                    document: documents::document(token, &prefixes),
                    routes: prefixes.into_iter().collect(),
                }
            }
        };
        self.routes = version.routes;
        Some(version.document)
    }
}

impl Real {
    fn advance(&mut self, number: usize, half: usize) -> Option<Version> {
        if number > half {
            let again = self.last.get(number % LAST)?;
            let token = self.last.last()?.token + (number - half) as u64;
            let (old, new) = (again.token.to_string(), token.to_string());
            return Some(Version {
                token,
                document: again.document.replacen(&old, &new, 1),
                routes: again.routes.clone(),
            });
        }
        // The last document of the first half is the last version.
        while self.passed < number * self.changes / half {
            self.passed += 1;
            if !self.replay.advance_to_change(is_wanted) {
                return None;
            }
        }
        let prefixes: Vec<IpNet> = self.replay.selected(is_wanted).into_iter().collect();
        let version = || Version {
            token: self.replay.sync_token(),
            document: String::from_utf8_lossy(&self.replay.document()).into_owned(),
            routes: IpNet::aggregate(&prefixes).into_iter().collect(),
        };
        if number + LAST > half {
            self.last.push(version());
        }
        Some(version())
    }
}
