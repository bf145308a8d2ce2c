//! The names of objects in the steps of a pass.

use serde_json::Value;

/// The name of an object in a step, as an operator searches for the object.
pub(super) fn name_of(step: &Value) -> String {
    let text = |name: &str| match step.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let named = |name: &str, word: &str| text(name).map(|value| format!("{word}{value}"));
    let parts: Vec<String> = match step.get("object").and_then(Value::as_str) {
        Some("route") => {
            let (gateway, device) = (named("gateway", "via "), named("device", "dev "));
            let (table, target) = (named("table", "table "), named("target", "to "));
            let parts = [text("dst"), gateway, device, table, target];
            parts.into_iter().flatten().collect()
        }
        Some("entries") => {
            let count = |name: &str| step.get(name).and_then(Value::as_array).map_or(0, Vec::len);
            vec![format!("+{} -{}", count("add"), count("remove"))]
        }
        Some("tags") => {
            let tags = step.get("tags").and_then(Value::as_object);
            let removed = step.get("keys").and_then(Value::as_array);
            let removed = removed.into_iter().flatten().filter_map(Value::as_str);
            let keys = tags.into_iter().flat_map(|tags| tags.keys());
            let keys: Vec<&str> = keys.map(String::as_str).chain(removed).collect();
            let table = named("table", "of ").into_iter();
            table.chain([format!("({})", keys.join(" "))]).collect()
        }
        Some("rule") => {
            let family = text("family").into_iter();
            family.chain(named("priority", "priority ")).collect()
        }
        Some("sysctl") => {
            let path = text("path").map(|path| path.replace('/', ".")).into_iter();
            path.chain(named("to", "to ")).collect()
        }
        _ => {
            let names = ["backend", "id", "name", "token"].into_iter();
            names.filter_map(text).collect()
        }
    };
    parts.join(" ")
}
