//! Writing YAML that every YAML reader understands alike.

use std::fmt::Write as _;

use serde_json::Value;

/// A JSON value as block-style YAML.
///
/// All strings that are values are double-quoted: readers of YAML 1.1, Envoy among them, take an unquoted `on`, `y` or `1e3`
/// for something else than text, and such labels exist.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0, true);
    out
}

fn write(out: &mut String, value: &Value, depth: usize, at_line_start: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 || !at_line_start {
                    indent(out, depth);
                }
                out.push_str(&key_text(key));
                nested(out, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 || !at_line_start {
                    indent(out, depth);
                }
                out.push_str("- ");
                if is_block(item) {
                    write(out, item, depth + 1, true);
                } else {
                    let _ = writeln!(out, "{item}");
                }
            }
        }
        // JSON's scalars, empty maps and empty lists are YAML as they are.
        scalar => {
            let _ = writeln!(out, "{scalar}");
        }
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    if is_block(value) {
        out.push_str(":\n");
        write(out, value, depth, false);
    } else {
        let _ = writeln!(out, ": {value}");
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Field names stay bare, label names and type URLs are quoted.
fn key_text(key: &str) -> String {
    let is_bare = key.len() > 2 && key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    let is_word =
        matches!(key.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "true" | "false" | "null");
    if is_bare && !is_word { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_reads_back_as_the_same_value() {
        let value = json!({
            "name": "on", "id": 15000, "empty": {}, "none": [], "flag": true, "null": null,
            "labels": {"y": "n", "yes": "1e3", "app.kubernetes.io/name": "a: b # c", "true": "\"quoted\"\n", "ü": "é 😀"},
            "list": [{"deep": [{"er": 1}, ["x", ["y"]], "z"], "b": 2}, 3, "4"],
        });
        let text = to_yaml(&value);
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
    }
}
