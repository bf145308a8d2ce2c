//! Hints about configured names that a document lacks.

use std::collections::BTreeSet;

use super::publisher::Document;
use crate::nearest::nearest;
use crate::types::{Region, Service};

/// A configured name, or pair of names, without a row in the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hint {
    #[error(
        "the document knows no service `{service}`{}; names are case-sensitive",
        did_you_mean(.nearest.as_deref())
    )]
    UnknownService {
        service: Service,
        /// The most similar service of the document.
        nearest: Option<String>,
    },
    #[error(
        "the document knows no region `{region}`{}; names are case-sensitive",
        did_you_mean(.nearest.as_deref())
    )]
    UnknownRegion {
        region: Region,
        /// The most similar region of the document.
        nearest: Option<String>,
    },
    #[error("the document lists no prefix of {service} in {region}")]
    NothingThere { service: Service, region: Region },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Records which configured names occur in a document, by their position in the config.
pub(super) struct Occurrences {
    services: Vec<bool>,
    regions: Vec<bool>,
    /// One row of regions for each service.
    pairs: Vec<bool>,
}

impl Occurrences {
    pub(super) fn new(services: usize, regions: usize) -> Occurrences {
        Occurrences {
            services: vec![false; services],
            regions: vec![false; regions],
            pairs: vec![false; services * regions],
        }
    }

    /// Records the configured names of one row.
    pub(super) fn note(&mut self, service: Option<usize>, region: Option<usize>) {
        if let Some(service) = service {
            self.services[service] = true;
        }
        if let Some(region) = region {
            self.regions[region] = true;
        }
        if let (Some(service), Some(region)) = (service, region) {
            self.pairs[service * self.regions.len() + region] = true;
        }
    }

    /// Returns a hint for each name, or pair of names, without a row.
    pub(super) fn hints(
        &self,
        document: &Document<'_>,
        services: &[Service],
        regions: &[Region],
    ) -> Vec<Hint> {
        let mut hints = Vec::new();
        for service in unseen(services, &self.services) {
            let existing = names(document.rows.iter().map(|row| &*row.service));
            hints.push(Hint::UnknownService {
                service: service.clone(),
                nearest: nearest(service.as_str(), existing).map(str::to_owned),
            });
        }
        for region in unseen(regions, &self.regions) {
            let existing = names(document.rows.iter().map(|row| &*row.region));
            hints.push(Hint::UnknownRegion {
                region: region.clone(),
                nearest: nearest(region.as_str(), existing).map(str::to_owned),
            });
        }
        for (s, service) in services.iter().enumerate() {
            for (r, region) in regions.iter().enumerate() {
                let pair = s * regions.len() + r;
                if self.services[s] && self.regions[r] && !self.pairs[pair] {
                    hints.push(Hint::NothingThere {
                        service: service.clone(),
                        region: region.clone(),
                    });
                }
            }
        }
        hints
    }
}

/// The distinct names of plausible length: a comparison takes time by the product of both lengths.
fn names<'d>(all: impl Iterator<Item = &'d str>) -> BTreeSet<&'d str> {
    all.filter(|name| name.len() <= 64).collect()
}

fn unseen<'n, T>(names: &'n [T], seen: &'n [bool]) -> impl Iterator<Item = &'n T> {
    let pairs = names.iter().zip(seen);
    pairs.filter(|(_, seen)| !**seen).map(|(name, _)| name)
}
