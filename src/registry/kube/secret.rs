//! One Secret, by its name: reading it needs no right to read others.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    follow::{Seen, follow},
    source::Access,
};

/// A Secret's data. Nothing shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, Zeroizing<Vec<u8>>>);

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

// === impl SecretData ===

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretData({:?})", self.0.keys().collect::<Vec<_>>())
    }
}

impl From<Wire> for SecretData {
    fn from(wire: Wire) -> Self {
        // API servers send base64 only; what is none is shown as empty to whoever uses it.
        let decode = |text: String| {
            let text = Zeroizing::new(text);
            Zeroizing::new(STANDARD.decode(&*text).unwrap_or_default())
        };
        Self(wire.data.unwrap_or_default().into_iter().map(|(key, text)| (key, decode(text))).collect())
    }
}

/// Tells a Secret's data now and whenever it changes, for ever: none if there is no such Secret, a failure while that cannot be
/// known. Needs get, list and watch for this name only.
pub async fn follow_secret(
    access: &Access,
    namespace: &str,
    name: &str,
    mut seen: impl FnMut(Result<Option<SecretData>, super::Failure>),
) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets?fieldSelector=metadata.name%3D{name}&");
    follow::<Wire>(access, &path, |news| {
        seen(match news {
            Seen::All(all) => Ok(all.into_iter().next().map(SecretData::from)),
            Seen::Now(secret) => Ok(Some(secret.into())),
            Seen::Gone(_) => Ok(None),
            Seen::Away(failure) => Err(failure),
        });
    })
    .await;
}
