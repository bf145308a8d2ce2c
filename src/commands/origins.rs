//! The origin of a prefix, for programs.

use serde_json::{Map, Value, json};

use crate::ranges::{Group, Origin};

/// The origin's stable name, and its group, if any.
pub(super) fn parts(origin: &Origin) -> (&'static str, Option<&Group>) {
    match origin {
        Origin::Selected(group) => ("selected", Some(group)),
        Origin::Held(group) => ("held", Some(group)),
        Origin::HoldDown(group) => ("hold_down", Some(group)),
        Origin::Kernel => ("kernel", None),
        Origin::Include => ("include", None),
    }
}

pub(super) fn to_json(origin: &Origin, prefix: &dyn std::fmt::Display) -> Value {
    let (name, group) = parts(origin);
    let mut fields = Map::new();
    fields.insert("prefix".into(), json!(prefix.to_string()));
    fields.insert("origin".into(), json!(name));
    fields.insert("service".into(), json!(group.map(|group| &group.service)));
    fields.insert("region".into(), json!(group.map(|group| &group.region)));
    Value::Object(fields)
}
