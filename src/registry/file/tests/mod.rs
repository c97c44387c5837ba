mod histories;
mod parsing;
mod sources;

use super::*;
use crate::{
    model::{Batch, Change, Object, ObjectKey, change::ClusterState},
    registry::{Problem, SourceStatus},
};
use std::collections::BTreeMap;

fn namespace(name: &str, v: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{v: '{v}'}}\n---\n")
}

fn namespaces(names: &[&str]) -> String {
    names.iter().map(|name| namespace(name, "1")).collect()
}
