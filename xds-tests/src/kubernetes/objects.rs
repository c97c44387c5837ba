//! Objects as YAML, written to an API server as `kubectl apply --server-side` does; their status, too.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use serde_json::{Value, json};

use super::Cluster;

/// Who owns the fields that are written here (server-side apply).
const MANAGER: &str = "xds-tests";

impl Cluster {
    /// Creates or changes the objects of a YAML text, in its order. A `status` is written, too, where the kind has a
    /// status subresource. Returns them as they are stored.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        let mut stored = Vec::new();
        for object in parse(yaml)? {
            stored.push(self.apply_one(object).await?);
        }
        Ok(stored)
    }

    /// Applies all `*.yaml` files directly in a folder, namespaces first.
    pub async fn apply_folder(&self, folder: &Path) -> Result<Vec<DynamicObject>> {
        let mut stored = Vec::new();
        for object in parse_folder(folder)? {
            stored.push(self.apply_one(object).await?);
        }
        Ok(stored)
    }

    /// The objects of a kind as they are on the server; of all namespaces, if none is given.
    pub async fn objects(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>> {
        Ok(self.kind(api_version, kind, namespace).await?.0)
    }

    pub(super) async fn apply_one(&self, mut object: Value) -> Result<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        let what = || format!("apply {kind} {namespace}/{name} to {}", self.name());
        let namespace = if namespace.is_empty() { "default" } else { &namespace };

        let (api, has_status) = self.kind(&api_version, &kind, Some(namespace)).await.with_context(what)?;
        let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
        let params = PatchParams::apply(MANAGER).force();
        let stored = api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(what)?;
        let Some(status) = status.filter(|_| has_status) else { return Ok(stored) };
        let only_status = json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "status": status,
        });
        api.patch_status(&name, &params, &Patch::Apply(&only_status))
            .await
            .with_context(|| format!("{} (its status)", what()))
    }

    /// Access to a kind, and whether it has a status subresource.
    async fn kind(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<(Api<DynamicObject>, bool)> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let wanted = GroupVersionKind::gvk(group, version, kind);
        let (resource, abilities) = oneshot::pinned_kind(self.client(), &wanted)
            .await
            .with_context(|| format!("{} has no {kind} of {api_version}", self.name()))?;
        let client = self.client().clone();
        let api = match (abilities.scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client, namespace, &resource),
            _ => Api::all_with(client, &resource),
        };
        let has_status = abilities.subresources.iter().any(|(sub, _)| sub.plural == "status");
        Ok((api, has_status))
    }
}

/// The objects of all `*.yaml` files directly in `folder`, in the order of their names, but namespaces first.
pub fn parse_folder(folder: &Path) -> Result<Vec<Value>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        objects.extend(parse(&text).with_context(|| path.display().to_string())?);
    }
    ensure!(!objects.is_empty(), "no objects in {}", folder.display());
    objects.sort_by_key(|object| object["kind"] != "Namespace");
    Ok(objects)
}

/// The objects of a YAML text, in its order.
pub fn parse(yaml: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(yaml).context("parse YAML")?;
    objects.retain(|object| !object.is_null());
    Ok(objects)
}
