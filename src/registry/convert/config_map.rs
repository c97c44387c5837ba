//! ConfigMap `istio`: YAML within YAML, under the keys `mesh` and `meshNetworks`.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    finding::{Finding, Invalid, Result, Warnings},
    mesh_config, mesh_networks, typed,
    wire::Text,
};
use crate::{model::mesh::MeshConfig, registry::yaml};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Data {
    mesh: Option<Text>,
    mesh_networks: Option<Text>,
}

pub fn convert(wire: Wire, warnings: &mut Warnings) -> Result<MeshConfig> {
    let mut inner = Warnings::new();
    let mut mesh = match &wire.data.mesh {
        Some(text) => {
            let value = tree("data.mesh", text)?;
            mesh_config::note_unread(&value, &mut inner);
            let config = within("data.mesh", mesh_config::convert(nested(value)?, &mut inner))?;
            adopt("data.mesh", &mut inner, warnings);
            config
        }
        None => {
            let remedy = "add the key mesh if the mesh needs other settings";
            warnings.push(Finding::new("data.mesh", "is missing: Istio's defaults are in force", remedy));
            MeshConfig::default()
        }
    };
    if let Some(text) = &wire.data.mesh_networks {
        let value = tree("data.meshNetworks", text)?;
        mesh.networks = within("data.meshNetworks", mesh_networks::convert(nested(value)?, &mut inner))?;
        adopt("data.meshNetworks", &mut inner, warnings);
    }
    Ok(mesh)
}

fn tree(key: &str, text: &str) -> Result<Value> {
    if yaml::documents(text).is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    yaml::parse(text).map_err(|error| {
        let reason = format!("line {} of its text: {}", error.line, error.reason);
        Invalid::new(key, reason, "correct the YAML inside the key")
    })
}

fn nested<T: DeserializeOwned>(value: Value) -> Result<T> {
    within("data.mesh", typed(value))
}

/// Puts the key before the fields of an error within it.
fn within<T>(key: &str, result: Result<T>) -> Result<T> {
    result.map_err(|Invalid(mut finding)| {
        if !finding.field.starts_with("data.") {
            finding.field = format!("{key}.{}", finding.field);
        }
        Invalid(finding)
    })
}

fn adopt(key: &str, inner: &mut Warnings, warnings: &mut Warnings) {
    warnings.extend(inner.drain(..).map(|mut w| {
        w.field = format!("{key}.{}", w.field);
        w
    }));
}
