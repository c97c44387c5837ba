//! `landbridge convert-operator`: an `IstioOperator` file as values of our charts.
//!
//! ```text
//! file --yaml--> IstioOperator --control_plane--> values of chart landbridge        --> stdout
//!                              \--gateways------> values of chart eastwest-gateway  --> stdout, one with --gateway
//!                              \--fit: what the chart's schema has no place for     --> stderr, with path and reason
//! ```
//!
//! What a chart takes is said by its `values.schema.json`, and nowhere else: a value is carried over if, and only if, it has a
//! place there.

mod control_plane;
mod fit;
mod gateways;
mod reasons;

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use self::fit::Left;
use super::yaml::to_yaml;
use crate::registry::{
    convert::{self, Outcome},
    yaml,
};

/// Files of people are small; more is not looked at.
const MAX_FILE: u64 = 4 << 20;

/// Arguments of `landbridge convert-operator`.
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    /// The file with the IstioOperator; `-` reads stdin
    file: PathBuf,
    /// Print the values of this ingress gateway, for chart eastwest-gateway, instead of the control plane's
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Fail if something cannot be carried over
    #[arg(long)]
    strict: bool,
}

/// What became of a file.
#[derive(Debug)]
struct Converted {
    /// Values of chart landbridge.
    control_plane: Value,
    /// Values of chart eastwest-gateway, by the gateway's name.
    gateways: BTreeMap<String, Value>,
    /// What has no place in them.
    left: Vec<Left>,
    /// What landbridge will say of the mesh's configuration.
    notes: Vec<String>,
}

impl OperatorArgs {
    /// Prints the values on stdout, and what was left out on stderr.
    pub fn run(self) -> Result<()> {
        let Self { file, gateway, strict } = self;
        let name = file.display().to_string();
        let converted = convert(&read(&file)?).with_context(|| name.clone())?;
        let Converted { control_plane, gateways, left, notes } = converted;
        let (chart, values) = match &gateway {
            None => ("landbridge", &control_plane),
            Some(wanted) => match gateways.get(wanted) {
                Some(values) => ("eastwest-gateway", values),
                None => bail!("{name} has no east-west gateway {wanted}; it has {}", listed(&gateways)),
            },
        };
        print!("# Values of chart {chart}, made by landbridge convert-operator.\n{}", to_yaml(values));
        for note in &notes {
            eprintln!("note: {note}");
        }
        for Left { path, reason } in &left {
            eprintln!("left out: {path}: {reason}");
        }
        if gateway.is_none() && !gateways.is_empty() {
            eprintln!(
                "further values, for chart eastwest-gateway: run it again with --gateway {}",
                listed(&gateways)
            );
        }
        if strict && !left.is_empty() {
            bail!("{} of its values cannot be carried over (--strict)", left.len());
        }
        Ok(())
    }
}

fn listed(gateways: &BTreeMap<String, Value>) -> String {
    let names: Vec<_> = gateways.keys().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" or ") }
}

fn read(file: &PathBuf) -> Result<String> {
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    let mut text = String::new();
    let read = source.take(MAX_FILE + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if text.len() as u64 > MAX_FILE {
        bail!("{} is longer than {} MiB: that is no IstioOperator", file.display(), MAX_FILE >> 20);
    }
    Ok(text)
}

/// Of a file with one IstioOperator; other objects in it are left out, and named.
fn convert(text: &str) -> Result<Converted> {
    let mut left = Vec::new();
    let mut found = Vec::new();
    for document in yaml::documents(text) {
        let object = yaml::parse(document.text)
            .map_err(|error| anyhow::anyhow!("line {}: {}", document.line + error.line - 1, error.reason))?;
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if kind == "IstioOperator" {
            found.push(object);
        } else {
            let what = if kind.is_empty() { "an object without a kind" } else { kind };
            let path = format!("line {}", document.line);
            left.push(Left { path, reason: format!("{what} is no IstioOperator; apply it by itself") });
        }
    }
    let operator = match found.len() {
        1 => found.remove(0),
        0 => bail!(
            "there is no IstioOperator in it (kind: IstioOperator); values of Istio's Helm charts need no conversion: see deploy/README.md"
        ),
        several => bail!("there are {several} IstioOperators in it: convert them one by one"),
    };
    let Value::Object(mut operator) = operator else { bail!("it is no object") };
    let version = operator.remove("apiVersion").unwrap_or_default();
    if version != "install.istio.io/v1alpha1" {
        bail!("apiVersion is {version}, and install.istio.io/v1alpha1 is what is understood");
    }
    operator.remove("kind");
    metadata(operator.remove("metadata"), &mut left);
    let spec = operator.remove("spec").unwrap_or_else(|| json!({}));
    for (key, _) in operator {
        left.push(Left { path: key, reason: "is no part of what is installed".into() });
    }
    let Value::Object(mut spec) = spec else { bail!("spec is no object") };

    let components = take_map(&mut spec, "components", "spec", &mut left);
    let mut components = components.unwrap_or_default();
    let pilot = take_map(&mut components, "pilot", "spec.components", &mut left);
    let ingress = components.remove("ingressGateways");
    reasons::leave("spec.components", components, &mut left);

    let control_plane = control_plane::convert(spec, pilot.unwrap_or_default(), &mut left)?;
    let gateways = gateways::convert(ingress, &control_plane, &mut left)?;
    let notes = judge(&control_plane);
    Ok(Converted { control_plane, gateways, left, notes })
}

/// Its name says nothing about the mesh; its namespace does.
fn metadata(metadata: Option<Value>, left: &mut Vec<Left>) {
    let Some(Value::Object(mut metadata)) = metadata else { return };
    metadata.remove("name");
    if metadata.get("namespace").is_some_and(|namespace| namespace == "istio-system") {
        metadata.remove("namespace");
    }
    reasons::leave("metadata", metadata, left);
}

/// A map that may be absent; what is no map is left out.
fn take_map(
    of: &mut Map<String, Value>,
    key: &str,
    path: &str,
    left: &mut Vec<Left>,
) -> Option<Map<String, Value>> {
    match of.remove(key)? {
        Value::Object(map) => Some(map),
        _ => {
            left.push(Left { path: format!("{path}.{key}"), reason: "is no map of fields".into() });
            None
        }
    }
}

/// What landbridge says of the mesh's configuration when it reads it.
fn judge(values: &Value) -> Vec<String> {
    let Some(mesh) = values.get("meshConfig") else { return Vec::new() };
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "istio", "namespace": "istio-system" }, "data": { "mesh": to_yaml(mesh) } });
    let said = |finding: &convert::Finding| {
        let field = finding.field.strip_prefix("data.mesh.").unwrap_or(&finding.field);
        format!("meshConfig.{field}: {}; {}", finding.reason, finding.remedy)
    };
    match convert::convert(&"here".into(), &convert::Settings::default(), map) {
        Outcome::Object(_, _, warnings) | Outcome::Skipped(_, warnings) => {
            warnings.iter().map(said).collect()
        }
        Outcome::Invalid(_, invalid) => vec![said(&invalid.0)],
        Outcome::NotRead(_) | Outcome::Items(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
