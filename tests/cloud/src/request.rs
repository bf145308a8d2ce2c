//! A request of the Query API: an action and its parameters, from an HTML form.

use std::collections::BTreeMap;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The action; empty if the form names none.
    pub action: String,
    /// The version of the API; empty if the form names none.
    pub version: String,
    /// The other parameters in the order of the form.
    pub parameters: Vec<(String, String)>,
}

/// A filter of a describing action: a name, and values of which one must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    pub name: &'a str,
    pub values: Vec<&'a str>,
}

impl Request {
    /// Reads a form (`application/x-www-form-urlencoded`).
    pub fn parse(body: &str) -> Request {
        let mut request = Request::default();
        for pair in body.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key), decode(value));
            match key.as_str() {
                "Action" => request.action = value,
                "Version" => request.version = value,
                _ => request.parameters.push((key, value)),
            }
        }
        request
    }

    /// A parameter's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut found = self.parameters.iter().filter(|(name, _)| name == key);
        found.next().map(|(_, value)| value.as_str())
    }

    /// A parameter's value, empty if it is absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// A boolean; false if it is absent.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value == "true")
    }

    /// A number; `None` if it is absent.
    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.parse().ok()
    }

    /// The members of a list of structures: `PREFIX.1.KEY`, `PREFIX.2.KEY` and so on. The key of a
    /// list of plain values is empty.
    pub(crate) fn items(&self, prefix: &str) -> Vec<BTreeMap<&str, &str>> {
        let mut items: BTreeMap<usize, BTreeMap<&str, &str>> = BTreeMap::new();
        for (key, value) in &self.parameters {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            let Some(rest) = rest.strip_prefix('.') else {
                continue;
            };
            let (index, name) = rest.split_once('.').unwrap_or((rest, ""));
            if let Ok(index) = index.parse() {
                items.entry(index).or_default().insert(name, value);
            }
        }
        items.into_values().collect()
    }

    /// The values of a list of plain values.
    pub(crate) fn values(&self, prefix: &str) -> Vec<&str> {
        let items = self.items(prefix);
        items
            .into_iter()
            .filter_map(|item| item.get("").copied())
            .collect()
    }

    /// The key and value pairs below a prefix: tags.
    pub(crate) fn tags(&self, prefix: &str) -> Vec<(String, Option<String>)> {
        let items = self.items(prefix);
        items
            .into_iter()
            .map(|item| {
                let key = item.get("Key").copied().unwrap_or_default();
                (key.to_owned(), item.get("Value").map(|v| (*v).to_owned()))
            })
            .collect()
    }

    /// The filters.
    pub(crate) fn filters(&self) -> Vec<Filter<'_>> {
        let items = self.items("Filter");
        items
            .into_iter()
            .map(|item| {
                let mut values: Vec<(usize, &str)> = Vec::new();
                for (key, value) in &item {
                    let index = key.strip_prefix("Value.").and_then(|n| n.parse().ok());
                    values.extend(index.map(|index| (index, *value)));
                }
                values.sort_unstable();
                Filter {
                    name: item.get("Name").copied().unwrap_or_default(),
                    values: values.into_iter().map(|(_, value)| value).collect(),
                }
            })
            .collect()
    }
}

/// Decodes a form's key or value: `+` is a space, `%XX` a byte.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3);
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (other, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
