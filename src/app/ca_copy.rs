//! A copy of the authority's Secret in the state directory, for a start while the own cluster's API server is away. As private
//! as the self-signed root there.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::Zeroizing;

use crate::{files, registry::kubernetes::SecretData};

const FILE: &str = "authority-secret.json";

/// Where the copy is, and of which Secrets it may be.
#[derive(Clone, Debug)]
pub struct Copy {
    path: PathBuf,
    /// `cluster/namespace`.
    of: String,
}

#[derive(Deserialize, Serialize)]
struct Content {
    of: String,
    secret: String,
    data: std::collections::BTreeMap<String, String>,
}

impl Copy {
    /// Of the Secrets of a namespace in a cluster.
    pub fn new(state_dir: &Path, of: String) -> Self {
        Self { path: state_dir.join(FILE), of }
    }

    /// Keeps what a Secret holds now. What cannot be kept is said, and costs nothing until a start without the API server.
    pub fn keep(&self, secret: &str, data: &SecretData) {
        let data =
            data.0.iter().map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes.as_slice()))).collect();
        let content = Content { of: self.of.clone(), secret: secret.to_owned(), data };
        let Ok(text) = serde_json::to_vec(&content).map(Zeroizing::new) else { return };
        if std::fs::read(&self.path).map(Zeroizing::new).is_ok_and(|before| before == text) {
            return;
        }
        let made = self.path.parent().map_or(Ok(()), files::create_private_dir);
        if let Err(error) = made.and_then(|()| files::write_private(&self.path, &text)) {
            warn!(path = %self.path.display(), %error, "no copy of the authority's Secret is kept: a start needs the API server");
        }
    }

    /// What was kept last, with the Secret's name. One of another cluster or namespace, or one that cannot be read, is none.
    pub fn restore(&self) -> Option<(String, SecretData)> {
        let text = Zeroizing::new(std::fs::read(&self.path).ok()?);
        let refuse = |why: &str| {
            warn!(path = %self.path.display(), "the copy of the authority's Secret is not used: it {why}");
        };
        let Ok(Content { of, secret, data }) = serde_json::from_slice(&text) else {
            refuse("cannot be read");
            return None;
        };
        if of != self.of {
            refuse("is of another cluster or namespace");
            return None;
        }
        let data = data.into_iter().map(|(key, text)| {
            Some((key, Zeroizing::new(STANDARD.decode(Zeroizing::new(text).as_str()).ok()?)))
        });
        data.collect::<Option<_>>().map(|data| (secret, SecretData(data)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_comes_back_as_it_was_for_the_same_cluster_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let copy = Copy::new(&state, "east/istio-system".into());
        assert!(copy.restore().is_none());
        let data = SecretData([("ca-key.pem".to_owned(), Zeroizing::new(b"hush".to_vec()))].into());
        copy.keep("cacerts", &data);
        assert_eq!(copy.restore(), Some(("cacerts".to_owned(), data)));
        let mode = std::fs::metadata(state.join(FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read it");
        assert!(Copy::new(&state, "west/istio-system".into()).restore().is_none());
        std::fs::write(state.join(FILE), "hush").expect("written");
        assert!(copy.restore().is_none());
    }
}
