//! Service-account tokens: pure functions from a token, keys and a time to a workload or a reason.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::dev_issuer::CLUSTER_CLAIM;
use crate::text::printable;

/// Kubernetes' tokens have about 1 KiB.
pub const MAX_BYTES: usize = 16 * 1024;
/// Clocks may be apart by this much, in seconds.
pub const LEEWAY: i64 = 60;
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// A token taken apart; nothing in it is to be believed before [`KeySet::verify`].
#[derive(Clone, Debug)]
pub struct Token<'a> {
    pub(super) text: &'a str,
    /// The signature algorithm; only those of the allow-list come this far.
    pub algorithm: Algorithm,
    /// Which of the issuer's keys signed it.
    pub key_id: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`, Unix seconds.
    pub expires_at: Option<i64>,
    /// `nbf`, Unix seconds.
    pub not_before: Option<i64>,
    /// The only cluster that it is good for; a claim of the development issuer.
    pub cluster_id: Option<String>,
}

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// One of these must be among the token's.
    pub audiences: &'a [String],
    /// Unix seconds.
    pub now: i64,
}

/// The service account that a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAccount<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// From then on the token is refused, Unix seconds.
    pub good_until: i64,
}

/// Why a token is refused. Names what was claimed and what was expected, never the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT at all.
    #[error("not a JSON Web Token: {0}")]
    Malformed(&'static str),
    /// An algorithm that is never accepted: none, shared secrets, unknown ones.
    #[error(
        "signature algorithm `{0}` is not accepted: the issuer must sign with RS, PS, ES256, ES384 or EdDSA"
    )]
    Algorithm(String),
    /// Another issuer than expected.
    #[error("issuer `{claimed}` is not accepted, expected {expected}")]
    Issuer {
        /// The token's.
        claimed: String,
        /// Ours.
        expected: String,
    },
    /// The issuer has no such key, also after asking again.
    #[error(
        "the issuer's key set has no {algorithm} key `{key_id}`: the token is older than the last change of keys, or of another cluster"
    )]
    UnknownKey {
        /// The token's.
        key_id: String,
        /// The token's.
        algorithm: String,
    },
    /// The issuer's keys were never read.
    #[error("the issuer's keys are not available: {0}; this is tried again by itself")]
    NoKeys(String),
    /// The signature is not the key's.
    #[error("the signature is not the issuer's")]
    Signature,
    /// Made for somebody else.
    #[error("audience {claimed} does not include {expected}: mount a token with that audience")]
    Audience {
        /// The token's.
        claimed: String,
        /// Ours.
        expected: String,
    },
    /// Too old.
    #[error("it expired {0} s ago: the proxy must read its token file again, or the clocks are apart")]
    Expired(i64),
    /// Without an end.
    #[error("it has no `exp`: tokens that never expire are not accepted")]
    NoExpiry,
    /// Not valid yet.
    #[error("it is valid only in {0} s: the clocks are apart")]
    NotYet(i64),
    /// Not about a service account.
    #[error("its subject is not a service account: {reason}")]
    Subject {
        /// What is wrong with it.
        reason: String,
    },
    /// Of another cluster than the caller says it is in.
    #[error("it is for cluster `{bound}`, and the caller says that it is in `{claimed}`")]
    Cluster {
        /// The caller's `clusterid` metadata.
        claimed: String,
        /// The token's.
        bound: String,
    },
}

/// The keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    #[serde(default)]
    aud: Audiences,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
    #[serde(rename = "landbridge.io/cluster-id")]
    cluster_id: Option<String>,
}

/// RFC 7519 allows one string or a list.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Audiences {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

/// RFC 7519 allows fractions.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(i64),
    Fraction(f64),
}

/// Takes a token apart without believing it. Never panics, whatever the text.
pub fn inspect(text: &str) -> Result<Token<'_>, TokenError> {
    if text.len() > MAX_BYTES {
        return Err(TokenError::Malformed("it is longer than 16 KiB"));
    }
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed("it does not have three parts separated by dots"));
    };
    let header: Header =
        decode(header).ok_or(TokenError::Malformed("its header is not base64url JSON with an `alg`"))?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed("its header has `crit`, and no extension is understood"));
    }
    let algorithm = algorithm(&header.alg).ok_or_else(|| TokenError::Algorithm(printable(&header.alg)))?;
    let claims: Claims = decode(claims)
        .ok_or(TokenError::Malformed("its claims are not base64url JSON of the standard types"))?;
    Ok(Token {
        text,
        algorithm,
        key_id: header.kid,
        issuer: claims.iss,
        subject: claims.sub,
        audiences: claims.aud.into_list(),
        expires_at: claims.exp.map(Seconds::whole),
        not_before: claims.nbf.map(Seconds::whole),
        cluster_id: claims.cluster_id,
    })
}

/// Checks what a verified token says: audience, time, subject.
pub fn check_claims<'t>(
    token: &'t Token<'_>,
    expected: &Expected<'_>,
) -> Result<ServiceAccount<'t>, TokenError> {
    let expires_at = token.expires_at.ok_or(TokenError::NoExpiry)?;
    let late = expected.now.saturating_sub(expires_at);
    if late > LEEWAY {
        return Err(TokenError::Expired(late));
    }
    let early = token.not_before.unwrap_or(i64::MIN).saturating_sub(expected.now);
    if early > LEEWAY {
        return Err(TokenError::NotYet(early));
    }
    if !token.audiences.iter().any(|audience| expected.audiences.contains(audience)) {
        return Err(TokenError::Audience {
            claimed: list(&token.audiences),
            expected: list(expected.audiences),
        });
    }
    let subject = token.subject.as_deref().unwrap_or_default();
    let bad = || TokenError::Subject {
        reason: format!("`{}`, expected {SUBJECT_PREFIX}NAMESPACE:NAME", printable(subject)),
    };
    let (namespace, name) =
        subject.strip_prefix(SUBJECT_PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(bad)?;
    if namespace.is_empty() || name.is_empty() || name.contains(':') {
        return Err(bad());
    }
    let good_until = expires_at.saturating_add(LEEWAY + 1);
    Ok(ServiceAccount { namespace, name, good_until })
}

// === impl KeySet ===

impl KeySet {
    /// Reads a JSON Web Key Set. Keys of kinds that are not known or not accepted are passed over; a set without any
    /// usable key is an error.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let list =
            set.get("keys").and_then(Value::as_array).ok_or("not a JSON Web Key Set: no list `keys`")?;
        let keys: Vec<Key> = list.iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(format!(
                "none of its {} keys is an RSA, P-256, P-384 or Ed25519 signature key",
                list.len()
            ));
        }
        Ok(Self { keys })
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true: a set without keys cannot be made.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks the signature with the key that the token names, or, where it names none, with every key of the kind.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithms.contains(&token.algorithm))
            .filter(|key| token.key_id.is_none() || key.id == token.key_id)
            .peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::UnknownKey {
                key_id: printable(token.key_id.as_deref().unwrap_or("(no kid)")),
                algorithm: format!("{:?}", token.algorithm),
            });
        }
        // Only the signature: claims are checked by `check_claims`, which can say what is wrong with them.
        let mut validation = Validation::new(token.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let is_good =
            |key: &Key| jsonwebtoken::decode::<Value>(token.text, &key.decoding, &validation).is_ok();
        if fitting.any(is_good) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| key.id.as_deref().unwrap_or("(no kid)"))).finish()
    }
}

// === impl Key ===

impl Key {
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                vec![Algorithm::ES256]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
                vec![Algorithm::ES384]
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            // Shared secrets above all: whoever can verify with one can also sign.
            _ => return None,
        };
        if let Some(named) = value.get("alg").and_then(Value::as_str) {
            algorithms.retain(|algorithm| self::algorithm(named) == Some(*algorithm));
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { id: jwk.common.key_id, algorithms, decoding })
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The allow-list.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => RSA.into_iter().find(|algorithm| format!("{algorithm:?}") == name),
    }
}

// === impl Audiences, Seconds ===

impl Audiences {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(audience) => vec![audience],
            Self::Many(audiences) => audiences,
        }
    }
}

impl Seconds {
    fn whole(self) -> i64 {
        match self {
            Self::Whole(seconds) => seconds,
            // A cast saturates, and NaN becomes 0: long expired.
            Self::Fraction(seconds) => seconds.floor() as i64,
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn list(names: &[String]) -> String {
    match names {
        [] => "(none)".to_owned(),
        names => printable(&names.join(", ")),
    }
}

/// The serde attribute needs a literal; this keeps it the constant that the issuer writes.
const _: () = assert!(matches!(CLUSTER_CLAIM.as_bytes(), b"landbridge.io/cluster-id"));

#[cfg(test)]
mod tests;
