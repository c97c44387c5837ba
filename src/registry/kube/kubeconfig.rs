//! Where an API server is and who we are to it: kubeconfig files, and the service account that a pod has.

use std::path::{Path, PathBuf};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;

use super::failure::with_causes;
use crate::registry::yaml;

/// A kubeconfig that cannot be used.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The file is not there or is no kubeconfig.
    #[error("kubeconfig {}: {reason}; give the path of a file that `kubectl --kubeconfig` accepts", path.display())]
    File {
        /// As it was given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not in a pod, or its service account is not mounted.
    #[error(
        "there is no service account of a pod here: {0}; outside of a cluster, give --kubeconfig PATH or --files NAME=DIR"
    )]
    NotInCluster(String),
    /// It asks for what is not done.
    #[error("{what}: {why}")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Why, and what to do.
        why: &'static str,
    },
    /// A certificate, key or token in it cannot be used.
    #[error("the credentials cannot be used: {0}; make the kubeconfig again")]
    Credentials(String),
}

/// A remote secret's kubeconfig that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}; {remedy}")]
pub struct Unusable {
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What kubeconfigs of remote secrets may do although it is dangerous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Run programs that print credentials.
    pub exec: bool,
}

/// Reads a kubeconfig file's current context.
pub async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    from_context(path, None).await
}

/// Reads a context of a kubeconfig file; without a name, the current one.
pub async fn from_context(path: &Path, context: Option<&str>) -> Result<Config, KubeconfigError> {
    let wrong = |reason: String| KubeconfigError::File { path: path.to_owned(), reason };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|e| wrong(with_causes(&e)))?;
    if kubeconfig.clusters.is_empty() {
        return Err(wrong("names no cluster (the file has no `clusters`)".into()));
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| wrong(with_causes(&e)))?;
    check(config)
}

/// The service account of the pod that this runs in.
pub fn in_cluster() -> Result<Config, KubeconfigError> {
    let config = Config::incluster().map_err(|e| KubeconfigError::NotInCluster(with_causes(&e)))?;
    check(config)
}

/// Reads the current context of a remote secret's kubeconfig. As istiod, it may carry credentials but not point to files, and
/// it may not run programs unless that is allowed: whoever may write Secrets is not whoever owns this machine. No error
/// quotes what is in it.
pub async fn from_secret(bytes: &[u8], allowed: Allowed) -> Result<Config, Unusable> {
    const MAKE: &str = "make the Secret again with `landbridge create-remote-secret`";
    let unusable = |reason: String| Unusable { reason, remedy: MAKE };
    let text = std::str::from_utf8(bytes).map_err(|_| unusable("is no text".into()))?;
    let empty = |value: &serde_json::Value| !value.get("clusters").is_some_and(serde_json::Value::is_array);
    match yaml::parse(text) {
        Err(error) => {
            return Err(unusable(format!("is no kubeconfig: line {}: {}", error.line, error.reason)));
        }
        Ok(value) if empty(&value) => {
            return Err(unusable("is no kubeconfig: it has no list `clusters`".into()));
        }
        Ok(_) => {}
    }
    // The parser's words would quote values.
    let kubeconfig = Kubeconfig::from_yaml(text)
        .map_err(|_| unusable("is no kubeconfig: a field is not of the type that it should be".into()))?;
    refuse_insecure(&kubeconfig, allowed)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|e| unusable(format!("cannot be used: {}", with_causes(&e))))?;
    check(config).map_err(|e| Unusable { reason: e.to_string(), remedy: MAKE })
}

/// What istiod refuses, too (its `PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS`).
fn refuse_insecure(kubeconfig: &Kubeconfig, allowed: Allowed) -> Result<(), Unusable> {
    const EMBED: &str =
        "embed it: `kubectl config view --flatten --minify`, or `landbridge create-remote-secret`";
    const TOKEN: &str = "use a service account's token: `landbridge create-remote-secret`";
    let refuse = |field: &str, why: &str, remedy| {
        Err(Unusable { reason: format!("{field} is not allowed in a remote secret: {why}"), remedy })
    };
    let a_file = "it names a file of this machine";
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.insecure_skip_tls_verify == Some(true) {
            let why = "anybody between could pass for the API server";
            return refuse("insecure-skip-tls-verify", why, "set certificate-authority-data instead");
        }
        if cluster.certificate_authority.is_some() {
            return refuse("certificate-authority", a_file, EMBED);
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        let files = [
            ("client-certificate", user.client_certificate.is_some()),
            ("client-key", user.client_key.is_some()),
            ("tokenFile", user.token_file.is_some()),
        ];
        if let Some((field, _)) = files.into_iter().find(|(_, is_set)| *is_set) {
            return refuse(field, a_file, EMBED);
        }
        if user.auth_provider.is_some() {
            return refuse("auth-provider", "such credentials are not renewed here", TOKEN);
        }
        if user.exec.is_some() && !allowed.exec {
            let remedy =
                "use a service account's token, or allow it: --insecure-remote-kubeconfig-options exec";
            return refuse("exec", "it would run a program of the Secret's choice here", remedy);
        }
    }
    Ok(())
}

fn check(config: Config) -> Result<Config, KubeconfigError> {
    if config.proxy_url.is_some() {
        let why = "API servers are not reached through proxies; remove the field, and route to the server's address";
        return Err(KubeconfigError::Unsupported { what: "proxy-url", why });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(cluster: &str, user: &str, allowed: Allowed) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: w\n\
             clusters: [{{name: w, cluster: {{server: 'https://192.0.2.1:6443'{cluster}}}}}]\n\
             users: [{{name: w, user: {{token: hush{user}}}}}]\n\
             contexts: [{{name: w, context: {{cluster: w, user: w}}}}]\n"
        );
        from_secret(text.as_bytes(), allowed).await.map_or_else(|e| e.to_string(), |_| String::new())
    }

    #[tokio::test]
    async fn a_remote_secret_carries_credentials_and_points_to_nothing() {
        assert_eq!(refused("", "", Allowed::default()).await, "");
        for (cluster, user, word) in [
            (", insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify"),
            (", certificate-authority: /etc/ca.pem", "", "certificate-authority"),
            ("", ", client-certificate: /etc/me.pem", "client-certificate"),
            ("", ", client-key: /etc/me.key", "client-key"),
            ("", ", tokenFile: /etc/token", "tokenFile"),
            ("", ", auth-provider: {name: gcp}", "auth-provider"),
            ("", ", exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}", "exec"),
        ] {
            let why = refused(cluster, user, Allowed::default()).await;
            assert!(
                why.starts_with(&format!("{word} is not allowed")) && why.contains("; "),
                "{word}: {why}"
            );
        }
    }

    #[tokio::test]
    async fn garbage_is_told_without_being_quoted() {
        for text in [
            &b"\xff\xfe"[..],
            b"",
            b"hush",
            b"[hush]",
            b"a: b: hush",
            b"clusters: [{name: w, cluster: hush}]",
            b"clusters: []\nusers: hush",
            b"clusters: []\ncurrent-context: gone",
            b"clusters: [{name: w, cluster: {server: 'https://h', certificate-authority-data: hush!}}]\n\
              contexts: [{name: w, context: {cluster: w, user: w}}]\nusers: [{name: w, user: {token: hush}}]\n\
              current-context: w",
        ] {
            let shown = String::from_utf8_lossy(text);
            let error = from_secret(text, Allowed::default()).await.expect_err(&shown).to_string();
            assert!(!error.contains("hush") && error.contains("create-remote-secret"), "{shown}: {error}");
        }
    }
}
