//! Readers of settings that need more than one value's reader.

use std::net::IpAddr;
use std::time::Duration;

use super::document::Document;
use super::units::{bare_duration, duration, duration_text};
use super::values::{address, integer, text, unknown_word, with_unit};
use super::{AutoOr, NatBypass};
use crate::types::{Family, TableId};

/// Replaces the setting where something was found.
pub(super) fn replace<T>(setting: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *setting = found;
    }
}

/// Reads a duration of at least `min`.
pub(super) fn time(
    document: &mut Document<'_>,
    key: &'static str,
    setting: &mut Duration,
    min: Duration,
) {
    let read = move |text: &str| {
        let length = duration(text)?;
        if length < min {
            return Err(format!(
                "{text:?} is too short: at least \"{}\"",
                duration_text(min)
            ));
        }
        Ok(length)
    };
    document.value(
        key,
        "a duration such as \"5m\"",
        setting,
        with_unit(read, bare_duration),
    );
}

/// Reads the number of a routing table.
pub(super) fn table(document: &mut Document<'_>, key: &'static str, setting: &mut TableId) {
    let mut number = u64::from(setting.0);
    document.value(
        key,
        "the number of a routing table such as 1083",
        &mut number,
        integer(1, u64::from(u32::MAX), ": 0 means no table"),
    );
    // The range above is that of u32.
    *setting = TableId(number as u32);
}

/// Reads mark bits.
pub(super) fn mask(document: &mut Document<'_>, key: &'static str, setting: &mut u64) {
    document.value(
        key,
        "mark bits such as \"0x3000\"",
        setting,
        integer(1, u64::from(u32::MAX), ": a mark has 32 bits"),
    );
}

/// Reads `nat.bypass`.
pub(super) fn nat_bypass(document: &mut Document<'_>, setting: &mut NatBypass) {
    let bypass = document.list(
        "nat.bypass",
        "\"masquerade\", \"none\", an address, or a list with at most one address of each family",
        true,
        text(nat_bypass_element),
    );
    if let Some(bypass) = bypass {
        *setting = one_nat_bypass(document, bypass);
    }
}

/// One element of `nat.bypass`.
fn nat_bypass_element(text: &str) -> Result<NatBypass, String> {
    match text {
        "masquerade" => Ok(NatBypass::Masquerade),
        "none" => Ok(NatBypass::None),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(':') => {
            address(text).map(|address| NatBypass::Addresses(vec![address]))
        }
        _ => Err(format!(
            "{}, nor an address",
            unknown_word(text, ["masquerade", "none"].into_iter())
        )),
    }
}

fn one_nat_bypass(document: &mut Document<'_>, elements: Vec<NatBypass>) -> NatBypass {
    if let [one] = elements.as_slice() {
        return one.clone();
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for element in elements {
        match element {
            NatBypass::Addresses(more) => addresses.extend(more),
            NatBypass::Masquerade | NatBypass::None => document.problem(
                "nat.bypass",
                "a word stands alone, not in a list with others".to_owned(),
            ),
        }
    }
    for family in Family::ALL {
        if addresses
            .iter()
            .filter(|own| Family::of(**own) == family)
            .count()
            > 1
        {
            let message = format!("more than one {family} address: at most one of each family");
            document.problem("nat.bypass", message);
        }
    }
    if addresses.is_empty() && !document.is_bad("nat.bypass") {
        let message = "the list is empty: write \"masquerade\", \"none\" or an address";
        document.problem("nat.bypass", message.to_owned());
    }
    NatBypass::Addresses(addresses)
}

/// `auto` alone, or only real values.
pub(super) fn all_or_auto<T>(
    document: &mut Document<'_>,
    key: &'static str,
    elements: Vec<AutoOr<T>>,
) -> AutoOr<Vec<T>> {
    let count = elements.len();
    let values: Vec<T> = elements
        .into_iter()
        .filter_map(|element| match element {
            AutoOr::Auto => None,
            AutoOr::Set(value) => Some(value),
        })
        .collect();
    match values.len() {
        0 if count > 0 => AutoOr::Auto,
        given if given == count => AutoOr::Set(values),
        _ => {
            document.problem(key, "\"auto\" stands alone, not beside others".to_owned());
            AutoOr::Auto
        }
    }
}
