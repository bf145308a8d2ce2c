//! Entries, names and sizes of prefix lists, as requests give them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::answer::ApiError;
use crate::request::Request;
use crate::state::{Entry, Family};

/// The most entries of a list.
const MAX_ENTRIES: i64 = 1000;

/// The most characters of a name, a description and a client token.
pub(crate) const TEXT: usize = 255;

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::misuse("InvalidParameterValue", text)
}

/// A name within the reference's bounds.
pub(crate) fn name(name: &str) -> Result<&str, ApiError> {
    if name.is_empty() || name.chars().count() > TEXT {
        return Err(invalid("The name must have between 1 and 255 characters."));
    }
    if name.starts_with("com.amazonaws") {
        return Err(invalid("The name cannot start with com.amazonaws."));
    }
    Ok(name)
}

/// A valid `MaxEntries`.
pub(crate) fn max_entries(max: i64) -> Result<u32, ApiError> {
    if (1..=MAX_ENTRIES).contains(&max) {
        return Ok(u32::try_from(max).unwrap_or_default());
    }
    Err(invalid("Must specify a max size between 1 and 1000"))
}

/// The entries must fit into `MaxEntries`.
pub(crate) fn fits(count: usize, max: u32) -> Result<(), ApiError> {
    if count > max as usize {
        let text = format!("The prefix list cannot have {count} entries: its maximum is {max}.");
        return Err(ApiError::new("PrefixListMaxEntriesExceeded", text));
    }
    Ok(())
}

/// A prefix in its canonical form: host bits are cleared.
fn canonical(text: &str, family: Family) -> Result<IpNet, ApiError> {
    let prefix: Result<IpNet, _> = text.parse();
    let prefix = prefix.map(|prefix| prefix.trunc()).ok();
    prefix
        .filter(|prefix| Family::of(prefix) == family)
        .ok_or_else(|| {
            let word = family.word();
            invalid(format!("The CIDR '{text}' is not a valid {word} CIDR."))
        })
}

/// The added entries of a request.
pub(crate) fn added(request: &Request, key: &str, family: Family) -> Result<Vec<Entry>, ApiError> {
    let mut entries = BTreeMap::new();
    for item in request.items(key) {
        let cidr = canonical(item.get("Cidr").copied().unwrap_or_default(), family)?;
        let description = item.get("Description").map(|text| (*text).to_owned());
        if description
            .as_ref()
            .is_some_and(|text| text.chars().count() > TEXT)
        {
            return Err(invalid("The description has more than 255 characters."));
        }
        let entry = Entry { cidr, description };
        if entries.insert(cidr, entry).is_some() {
            return Err(invalid(format!("Duplicate CIDR {cidr} in the request.")));
        }
    }
    Ok(entries.into_values().collect())
}

/// The removed prefixes of a request.
pub(crate) fn prefixes(
    request: &Request,
    key: &str,
    family: Family,
) -> Result<BTreeSet<IpNet>, ApiError> {
    let mut prefixes = BTreeSet::new();
    for item in request.items(key) {
        let cidr = canonical(item.get("Cidr").copied().unwrap_or_default(), family)?;
        if !prefixes.insert(cidr) {
            return Err(invalid(format!("Duplicate CIDR {cidr} in the request.")));
        }
    }
    Ok(prefixes)
}
