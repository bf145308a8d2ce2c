//! Readers of TOML values: one function for each type of setting.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Reader, Wrong};
use super::slips;
use super::texts::address;
use super::units::{bare_duration, duration, duration_text};
use super::{AutoOr, Mss, NatBypass};
use crate::nearest::nearest;
use crate::types::{Family, TableId};
use crate::words::Words;

/// Reads a string with a function of its text.
pub(super) fn text<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| match value.as_str() {
        Some(text) => plain(text, &read),
        None => Err(Wrong::Type),
    }
}

/// Reads a text without the slips of pasted text.
fn plain<T>(text: &str, read: &impl Fn(&str) -> Result<T, String>) -> Result<T, Wrong> {
    match slips::of_value(text) {
        Some(slip) => Err(Wrong::Value(slip)),
        None => Ok(read(text)?),
    }
}

/// As [`text`], but a number without a unit gets a message with the known units.
pub(super) fn with_unit<T>(
    read: impl Fn(&str) -> Result<T, String>,
    bare: impl Fn(&str) -> String,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| match value {
        DeValue::String(text) => plain(text, &read),
        DeValue::Integer(number) => Err(Wrong::Value(bare(&number.to_string()))),
        DeValue::Float(number) => Err(Wrong::Value(bare(&number.to_string()))),
        _ => Err(Wrong::Type),
    }
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    match value {
        DeValue::Boolean(setting) => Ok(*setting),
        _ => Err(Wrong::Type),
    }
}

/// `true`, `false` or `"auto"`.
pub(super) fn auto_or_boolean(value: &DeValue<'_>) -> Result<AutoOr<bool>, Wrong> {
    match value {
        DeValue::Boolean(setting) => Ok(AutoOr::Set(*setting)),
        _ => auto_or(|text| {
            let wrong = format!("{text:?} is not a value: write true, false or \"auto\"");
            Err::<bool, _>(wrong)
        })(value),
    }
}

pub(super) fn word<T: Words>(value: &DeValue<'_>) -> Result<T, Wrong> {
    let read = |text: &str| {
        let words = T::VARIANTS.iter().map(|variant| variant.word());
        T::from_word(text).ok_or_else(|| unknown_word(text, words))
    };
    text(read)(value)
}

pub(super) fn unknown_word<'a>(text: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    let allowed: Vec<String> = words.clone().map(|word| format!("{word:?}")).collect();
    let hint =
        nearest(text, words).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    format!("{text:?} is not one of {}{hint}", allowed.join(", "))
}

/// Reads `auto`, or a string with the function.
pub(super) fn auto_or<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<AutoOr<T>, Wrong> {
    text(move |text| match text {
        "auto" => Ok(AutoOr::Auto),
        "" => Err("is empty: write \"auto\" for automatic detection".to_owned()),
        _ if text.eq_ignore_ascii_case("auto") => {
            Err(format!("{text:?} is not a value; did you mean \"auto\"?"))
        }
        _ => read(text).map(AutoOr::Set),
    })
}

/// Reads a whole number inside a range, or a string of digits or hex digits (`"0x53"`).
pub(super) fn integer<T: TryFrom<u64>>(
    min: u64,
    max: u64,
    reason: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let (digits, radix) = match value {
            DeValue::Integer(number) => (number.as_str(), number.radix()),
            DeValue::String(text) => match text.strip_prefix("0x") {
                Some(digits) => (digits, 16),
                None => (text.as_ref(), 10),
            },
            _ => return Err(Wrong::Type),
        };
        let written = match value {
            DeValue::String(text) if radix == 10 && text.len() > 1 && text.starts_with('0') => {
                format!("{text:?} begins with 0, which some readers take for octal")
            }
            _ if radix == 8 => format!("0o{digits} is octal"),
            _ if radix == 2 => format!("0b{digits} is binary"),
            _ => String::new(),
        };
        if matches!(value, DeValue::String(_)) && digits.starts_with(['+', '-']) {
            return Err(Wrong::Type);
        }
        // i128, since the TOML parser passes on signs and numbers of any length.
        let number = i128::from_str_radix(digits, radix).map_err(|_| Wrong::Type)?;
        if !written.is_empty() {
            return Err(Wrong::Value(format!(
                "{written}: write {number}, or {number:#x}"
            )));
        }
        u64::try_from(number)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Wrong::Value(format!("{number} is out of range {min} to {max}{reason}")))
    }
}

pub(super) fn price(value: &DeValue<'_>) -> Result<f64, Wrong> {
    let number: f64 = match value {
        DeValue::Integer(number) => number.to_string().parse().map_err(|_| Wrong::Type)?,
        DeValue::Float(number) => number.to_string().parse().map_err(|_| Wrong::Type)?,
        _ => return Err(Wrong::Type),
    };
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(Wrong::Value(format!(
            "{number} is not a price: write 0 or more"
        )))
    }
}

/// Reads a duration of at least `min`.
pub(super) fn time(
    reader: &mut Reader<'_>,
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
    reader.value(
        key,
        "a duration such as \"5m\"",
        setting,
        with_unit(read, bare_duration),
    );
}

/// Earlier versions numbered nexthop objects by a hundred times the table, in 32 bits.
const LAST_TABLE: u64 = 19_999_999;

pub(super) fn table(reader: &mut Reader<'_>, key: &'static str, setting: &mut TableId) {
    reader.value(
        key,
        "the number of a routing table such as 1083",
        &mut setting.0,
        integer(
            1,
            LAST_TABLE,
            ": 0 means no table, and above that no numbers are left for nexthop objects",
        ),
    );
}

pub(super) fn mask(reader: &mut Reader<'_>, key: &'static str, setting: &mut u32) {
    reader.value(
        key,
        "mark bits such as \"0x0030\"",
        setting,
        integer(1, u64::from(u32::MAX), ": a mark has 32 bits"),
    );
}

/// Reads `nat.mss`. 536 bytes is the size without an option (RFC 9293 §3.7.1).
pub(super) fn mss(value: &DeValue<'_>) -> Result<Mss, Wrong> {
    match value.as_str() {
        Some("auto") => Ok(Mss::Auto),
        Some("off") => Ok(Mss::Off),
        _ => integer(536, 65_495, ": 1460 suits paths of 1500 bytes")(value).map(Mss::Bytes),
    }
}

/// Reads `nat.bypass`.
pub(super) fn nat_bypass(reader: &mut Reader<'_>, setting: &mut NatBypass) {
    let bypass = reader.list(
        "nat.bypass",
        "\"masquerade\", \"none\", an address, or a list with at most one address of each family",
        true,
        text(nat_bypass_element),
    );
    if let Some(bypass) = bypass {
        *setting = one_nat_bypass(reader, bypass);
    }
}

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

fn one_nat_bypass(reader: &mut Reader<'_>, elements: Vec<NatBypass>) -> NatBypass {
    if let [one] = elements.as_slice() {
        return one.clone();
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for element in elements {
        match element {
            NatBypass::Addresses(more) => addresses.extend(more),
            NatBypass::Masquerade | NatBypass::None => reader.problem(
                "nat.bypass",
                "\"masquerade\" and \"none\" cannot be combined with other values".to_owned(),
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
            reader.problem("nat.bypass", message);
        }
    }
    if addresses.is_empty() && !reader.is_bad("nat.bypass") {
        let message = "the list is empty: write \"masquerade\", \"none\" or an address";
        reader.problem("nat.bypass", message.to_owned());
    }
    NatBypass::Addresses(addresses)
}

/// Accepts `auto` alone, or values without `auto`.
pub(super) fn all_or_auto<T>(
    reader: &mut Reader<'_>,
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
            reader.problem(
                key,
                "\"auto\" cannot be combined with other values".to_owned(),
            );
            AutoOr::Auto
        }
    }
}
