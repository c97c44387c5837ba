//! Kubernetes' label selectors.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::{Labels, selects};

/// All of its terms hold; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub labels: Labels,
    /// `matchExpressions`.
    pub expressions: Vec<LabelTerm>,
}

/// A term of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelTerm {
    /// The label is there with one of the values.
    In(Arc<str>, Vec<Arc<str>>),
    /// It is not there, or with another value.
    NotIn(Arc<str>, Vec<Arc<str>>),
    /// It is there.
    Exists(Arc<str>),
    /// It is not.
    DoesNotExist(Arc<str>),
}

impl LabelSelector {
    /// Whether something with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        let is_one_of = |name, values: &[Arc<str>]| labels.get(name).is_some_and(|v| values.contains(v));
        selects(&self.labels, labels)
            && self.expressions.iter().all(|term| match term {
                LabelTerm::In(name, values) => is_one_of(name, values),
                LabelTerm::NotIn(name, values) => !is_one_of(name, values),
                LabelTerm::Exists(name) => labels.contains_key(name),
                LabelTerm::DoesNotExist(name) => !labels.contains_key(name),
            })
    }
}
