//! The egress gateways of the settings: a list of addresses, or tables `[[egress.gateway]]`.

use std::net::IpAddr;

use toml::de::DeValue;

use super::EgressConfig;
use super::reader::{Inside, Reader, Wrong};
use super::texts::address;
use super::values::{integer, text};
use crate::nearest::nearest;
use crate::types::Family;

/// A NAT instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub address: IpAddr,
    /// The share of the hosts (`spread = "host"`) or of the flows (`"flow"`), 1 to 255.
    pub weight: u8,
    /// The availability zone.
    pub zone: Option<String>,
}

impl From<IpAddr> for Gateway {
    /// A gateway of the short list: weight 1, in no zone.
    fn from(address: IpAddr) -> Gateway {
        Gateway {
            address,
            weight: 1,
            zone: None,
        }
    }
}

/// `[egress] spread`: the share of each of several gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// All flows of a host take one gateway: the first of the host's own ranking.
    #[default]
    Host,
    /// Each flow takes a gateway by its own hash.
    Flow,
    /// All flows of all hosts take the first gateway of the settings.
    Order,
}

words!(Spread { Host => "host", Flow => "flow", Order => "order" });

impl EgressConfig {
    /// The addresses of all gateways, in the order of the settings.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.gateways.iter().map(|gateway| gateway.address)
    }

    /// The gateways of one family, in the order of the settings.
    pub fn ordered(&self, family: Family) -> impl Iterator<Item = &Gateway> {
        let all = self.gateways.iter();
        all.filter(move |gateway| Family::of(gateway.address) == family)
    }

    /// The addresses of the gateways of one family, sorted.
    pub fn gateways_of(&self, family: Family) -> Vec<IpAddr> {
        let gateways = self.ordered(family);
        let mut found: Vec<IpAddr> = gateways.map(|gateway| gateway.address).collect();
        found.sort();
        found
    }

    /// True if any gateway is of the family.
    pub fn has_gateway(&self, family: Family) -> bool {
        self.ordered(family).next().is_some()
    }

    /// True if the address is a gateway.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.addresses().any(|gateway| gateway == address)
    }

    /// The families whose flows are spread over several gateways one by one.
    pub fn hashed_families(&self) -> impl Iterator<Item = Family> {
        let spread = self.spread == Spread::Flow;
        let families = Family::ALL.into_iter();
        families.filter(move |family| spread && self.ordered(*family).nth(1).is_some())
    }

    /// True if the zone of this host decides about gateways.
    pub fn has_zones(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway.zone.is_some())
    }
}

/// The key of the short list.
const LIST: &str = "egress.gateways";
/// The key of the tables.
pub(super) const TABLES: &str = "egress.gateway";

/// Reads both spellings; only one of them may be there.
pub(super) fn read(reader: &mut Reader<'_>, setting: &mut Vec<Gateway>) {
    let list = reader.list(
        LIST,
        "a list of addresses such as [\"10.0.1.10\"]",
        false,
        text(address),
    );
    let tables = reader.tables(
        TABLES,
        "tables [[egress.gateway]] with a line such as address = \"10.0.1.10\"; a list of addresses is egress.gateways",
        gateway,
    );
    if list.is_some() && tables.is_some() {
        reader.problem(
            TABLES,
            "egress.gateways lists gateways too: write each gateway as a table [[egress.gateway]], or all in egress.gateways".to_owned(),
        );
    }
    if let Some(list) = list {
        *setting = list.into_iter().map(Gateway::from).collect();
    }
    if let Some(tables) = tables {
        *setting = tables;
    }
}

const NAMES: [&str; 3] = ["address", "weight", "zone"];

/// Reads one table.
fn gateway(value: &DeValue<'_>) -> Result<Gateway, Wrong> {
    let DeValue::Table(table) = value else {
        return Err(Wrong::Type);
    };
    let mut wrong = Vec::new();
    let mut found = (None, 1, None);
    for (name, value) in table {
        let (name, place) = (name.get_ref().as_ref(), name.span());
        let (expected, read) = match name {
            "address" => (
                "an address such as \"10.0.1.10\"",
                text(address)(value.get_ref()).map(|address| found.0 = Some(address)),
            ),
            "weight" => (
                "a whole number such as 2",
                integer(1, 255, "")(value.get_ref()).map(|weight| found.1 = weight),
            ),
            "zone" => (
                "the name of an availability zone such as \"us-east-1a\"",
                text(zone)(value.get_ref()).map(|zone| found.2 = Some(zone)),
            ),
            _ => {
                let advice = match nearest(name, NAMES) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known here: {}", NAMES.join(", ")),
                };
                wrong.push(Inside::unknown(name, place, advice));
                continue;
            }
        };
        if let Err(mistake) = read {
            wrong.push(Inside::new(name, value, expected, mistake));
        }
    }
    match found {
        (Some(address), weight, zone) if wrong.is_empty() => Ok(Gateway {
            address,
            weight,
            zone,
        }),
        (None, ..) if !table.contains_key("address") => Err(Wrong::Value(
            "has no address: write a line such as address = \"10.0.1.10\"".to_owned(),
        )),
        _ => Err(Wrong::Inside(wrong)),
    }
}

/// Reads the name of an availability zone.
pub(super) fn zone(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(format!(
            "{text:?} is not a zone: write a name of letters, digits and hyphens, such as \"us-east-1a\""
        ));
    }
    Ok(text.to_owned())
}
