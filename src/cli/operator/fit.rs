//! Values that fit into a chart, as its schema says, and those that do not.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::reasons;

/// Something that was not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where it is in the file: `spec.values.global.proxy.privileged`.
    pub path: String,
    /// Why, and what to do instead if there is something.
    pub reason: String,
}

/// The values of a chart while they are put together.
pub struct Fit {
    schema: Value,
    values: Value,
}

impl Fit {
    /// None yet, of the chart with this `values.schema.json`.
    pub fn new(schema: &str) -> Result<Self> {
        let schema = serde_json::from_str(schema).context("the chart's schema")?;
        Ok(Self { schema, values: Value::Object(Map::new()) })
    }

    pub fn into_values(self) -> Value {
        self.values
    }

    /// The value at a chart's path, if there is one already.
    pub fn get(&self, to: &[&str]) -> Option<&Value> {
        to.iter().try_fold(&self.values, |at, key| at.get(key))
    }

    /// Whether there is a place at a chart's path.
    pub fn takes(&self, to: &[&str]) -> bool {
        self.node(to).is_some()
    }

    /// Adds an item to the list at a chart's path.
    pub fn append(&mut self, item: Value, to: &[&str]) {
        match self.at(to) {
            Value::Array(items) => items.push(item),
            at => *at = Value::Array(vec![item]),
        }
    }

    fn node(&self, to: &[&str]) -> Option<&Value> {
        to.iter().try_fold(&self.schema, |node, key| node.get("properties")?.get(key))
    }

    fn at(&mut self, to: &[&str]) -> &mut Value {
        let mut at = &mut self.values;
        for key in to {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[*key];
        }
        at
    }

    /// Puts `value`, which is at `from` in the file, to the chart's path `to`, over what is there; as far as it fits.
    pub fn place(&mut self, from: &str, value: Value, to: &[&str], left: &mut Vec<Left>) {
        let Some(node) = self.node(to) else {
            left.push(Left { path: from.to_owned(), reason: reasons::of(from) });
            return;
        };
        let Some(value) = fitted(&self.schema, node, from, value, left) else { return };
        merge(self.at(to), value);
    }
}

/// As Helm merges values: maps are joined, everything else is replaced.
fn merge(at: &mut Value, value: Value) {
    match (at, value) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (at, value) => *at = value,
    }
}

/// What of `value` the schema `node` takes. Each step goes one level down in the value, whose depth is bounded.
fn fitted(root: &Value, node: &Value, path: &str, value: Value, left: &mut Vec<Left>) -> Option<Value> {
    let node = match node.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#'))?,
        None => node,
    };
    let value = match typed(node, value) {
        Ok(value) => value,
        Err(reason) => {
            left.push(Left { path: path.to_owned(), reason });
            return None;
        }
    };
    match value {
        Value::Object(map) => Some(Value::Object(fields(root, node, path, map, left))),
        Value::Array(items) => {
            let Some(of) = node.get("items") else { return Some(Value::Array(items)) };
            let items = items.into_iter().enumerate();
            let kept = items.filter_map(|(i, item)| fitted(root, of, &format!("{path}[{i}]"), item, left));
            Some(Value::Array(kept.collect()))
        }
        scalar => Some(scalar),
    }
}

fn fields(
    root: &Value,
    node: &Value,
    path: &str,
    map: Map<String, Value>,
    left: &mut Vec<Left>,
) -> Map<String, Value> {
    let further = node.get("additionalProperties");
    let mut kept = Map::new();
    for (key, value) in map {
        let at = reasons::join(path, &key);
        let known = node.get("properties").and_then(|properties| properties.get(&key));
        let is_image = reasons::IMAGES.contains(&at.as_str());
        let of = match (known.or(further), is_image) {
            (Some(Value::Bool(false)), _) | (_, true) => None,
            (of, false) => Some(of),
        };
        match of {
            None => reasons::leave_value(&at, &value, left),
            // A map of anything.
            Some(None) => drop(kept.insert(key, value)),
            Some(Some(of)) => {
                if let Some(value) = fitted(root, of, &at, value, left) {
                    kept.insert(key, value);
                }
            }
        }
    }
    kept
}

/// The value in the type that the schema wants; people write numbers as text, and names as numbers.
fn typed(node: &Value, value: Value) -> Result<Value, String> {
    let wanted: Vec<&str> = match node.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(value),
    };
    let is = |kind: &str| wanted.contains(&kind);
    let value = match value {
        Value::Number(n) if is("integer") && !n.is_f64() => Value::Number(n),
        Value::Number(n) if is("number") => Value::Number(n),
        Value::String(s) if is("string") => Value::String(s),
        Value::Bool(b) if is("boolean") => Value::Bool(b),
        Value::Object(map) if is("object") => Value::Object(map),
        Value::Array(list) if is("array") => Value::Array(list),
        Value::Number(n) if is("string") => Value::String(n.to_string()),
        Value::Bool(b) if is("string") => Value::String(b.to_string()),
        Value::String(s) if is("integer") => {
            s.parse::<i64>().map(Value::from).map_err(|_| "is not a whole number".to_owned())?
        }
        Value::String(s) if is("boolean") && matches!(&*s, "true" | "false") => Value::Bool(s == "true"),
        _ => return Err(format!("is of another type than the chart's, which is {}", kind_name(&wanted))),
    };
    let choices = node.get("enum").and_then(Value::as_array);
    match choices {
        Some(choices) if !choices.contains(&value) => {
            let listed: Vec<_> = choices.iter().map(Value::to_string).collect();
            Err(format!("is none of {}", listed.join(", ")))
        }
        _ => Ok(value),
    }
}

fn kind_name(wanted: &[&str]) -> String {
    wanted.join(" or ")
}
