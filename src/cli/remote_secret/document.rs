//! The Secret as istioctl prints it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{cli::yaml::to_yaml, model::remote_secret::LABEL};

/// A kubeconfig with one context, whose parts have the cluster's name.
pub fn kubeconfig(name: &str, server: &str, authority: Option<&str>, token: &str) -> String {
    let mut cluster = json!({ "server": server });
    if let Some(authority) = authority {
        cluster["certificate-authority-data"] = STANDARD.encode(authority).into();
    }
    to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": cluster }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
        "preferences": {},
        "users": [{ "name": name, "user": { "token": token } }],
    }))
}

/// The Secret that registers a cluster.
pub fn secret(name: &str, namespace: &str, kubeconfig: &str) -> String {
    let labels = format!("  labels:\n    {LABEL}: \"true\"\n");
    document(name, &format!("istio-remote-secret-{name}"), &labels, namespace, name, kubeconfig)
}

/// The Secret that a control plane outside of the cluster mounts. Without the label: it registers nothing.
pub fn config_secret(name: &str, namespace: &str, kubeconfig: &str) -> String {
    document(name, "istio-kubeconfig", "", namespace, "config", kubeconfig)
}

fn document(cluster: &str, name: &str, labels: &str, namespace: &str, key: &str, kubeconfig: &str) -> String {
    let kubeconfig: String = kubeconfig.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "# Made by landbridge create-remote-secret. It holds credentials.\n\
         apiVersion: v1\n\
         kind: Secret\n\
         metadata:\n  \
           annotations:\n    \
             networking.istio.io/cluster: \"{cluster}\"\n\
         {labels}  \
           name: {name}\n  \
           namespace: {namespace}\n\
         stringData:\n  \
           \"{key}\": |\n{kubeconfig}---\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_reads_back_as_the_secret_that_istioctl_makes() {
        let config = kubeconfig("west", "https://192.0.2.1:6443", Some("-----BEGIN"), "hush");
        let text = secret("west", "istio-system", &config);
        let read: Value = serde_saphyr::from_multiple::<Value>(&text).expect("YAML").remove(0);
        assert_eq!(read["metadata"]["name"], "istio-remote-secret-west");
        assert_eq!(read["metadata"]["annotations"]["networking.istio.io/cluster"], "west");
        assert_eq!(read["metadata"]["labels"]["istio/multiCluster"], "true");
        let inner: Value =
            serde_saphyr::from_str(read["stringData"]["west"].as_str().expect("text")).expect("YAML");
        assert_eq!(
            inner["clusters"][0]["cluster"]["certificate-authority-data"],
            STANDARD.encode("-----BEGIN")
        );
        assert_eq!(
            (&inner["users"][0]["user"]["token"], &inner["current-context"]),
            (&"hush".into(), &"west".into())
        );
        // A name that YAML takes for a number stays a name.
        let text = secret("007", "istio-system", &kubeconfig("007", "https://h.example", None, "t"));
        let read: Value = serde_saphyr::from_multiple::<Value>(&text).expect("YAML").remove(0);
        let inner: Value =
            serde_saphyr::from_str(read["stringData"]["007"].as_str().expect("text")).expect("YAML");
        assert_eq!(inner["contexts"][0]["context"]["user"], "007");

        let read: Value =
            serde_saphyr::from_multiple::<Value>(&config_secret("west", "istio-system", &config))
                .expect("YAML")
                .remove(0);
        assert_eq!(
            (&read["metadata"]["name"], &read["metadata"]["labels"]),
            (&"istio-kubeconfig".into(), &Value::Null)
        );
        assert!(read["stringData"]["config"].as_str().is_some_and(|text| text.contains("hush")));
    }
}
