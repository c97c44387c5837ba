//! LabelSelector.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    finding::{Invalid, Result},
    wire::{Text, labels},
};
use crate::model::selector::{LabelSelector, LabelTerm};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    match_labels: BTreeMap<Text, Text>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
struct Expression {
    key: Text,
    operator: Text,
    #[serde(default)]
    values: Vec<Text>,
}

pub fn convert(field: &str, wire: Wire) -> Result<LabelSelector> {
    let term = |(i, Expression { key, operator, values }): (usize, Expression)| {
        let at = |name: &str| format!("{field}.matchExpressions[{i}].{name}");
        let values: Vec<_> = values.into_iter().map(|v| v.0).collect();
        match (&*operator, values.is_empty()) {
            ("In", false) => Ok(LabelTerm::In(key.0, values)),
            ("NotIn", false) => Ok(LabelTerm::NotIn(key.0, values)),
            ("Exists", true) => Ok(LabelTerm::Exists(key.0)),
            ("DoesNotExist", true) => Ok(LabelTerm::DoesNotExist(key.0)),
            ("In" | "NotIn", true) => {
                Err(Invalid::new(at("values"), "is empty", "write the values to compare with"))
            }
            ("Exists" | "DoesNotExist", false) => {
                Err(Invalid::new(at("values"), format!("is of no use with {}", &*operator), "remove it"))
            }
            (other, _) => {
                let reason = format!("{other:?} is no operator");
                Err(Invalid::new(at("operator"), reason, "write In, NotIn, Exists or DoesNotExist"))
            }
        }
    };
    let expressions = wire.match_expressions.into_iter().enumerate().map(term).collect::<Result<_>>()?;
    Ok(LabelSelector { labels: labels(wire.match_labels), expressions })
}
