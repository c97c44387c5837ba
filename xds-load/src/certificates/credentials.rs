//! Who asks: identities and how they are proved.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    check::certificates,
    message::{METHOD, chain, request},
    pool::Entry,
};
use crate::h2::{Connection, Target, Tls, TlsError};

/// One that asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The SPIFFE identity that its answers must have; none if it is not known here.
    pub identity: Option<Arc<str>>,
    /// What it sends with each call.
    pub metadata: Vec<(String, String)>,
    /// With its own client certificate, if it has one; else as all.
    pub tls: Option<Tls>,
}

/// Makes service-account tokens with an issuer's key, as many as there are identities.
#[derive(Debug)]
pub struct TokenKey {
    key: EcdsaKeyPair,
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// The tokens' identities are in it.
    pub trust_domain: String,
}

/// All that ask.
#[derive(Clone, Debug)]
pub struct Credentials(pub Vec<Caller>);

/// Why nobody can ask.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {what}", path = .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// No certificate.
    #[error("cannot get a certificate to ask with: {0}")]
    Call(#[from] crate::h2::Error),
    /// Neither.
    #[error("cannot get a certificate to ask with: the answer holds none")]
    Answer,
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The library failed to sign.
    #[error("the cryptographic library failed to sign a token")]
    Sign,
}

/// Tokens are good for so long: no run lasts longer.
const TOKEN_SECONDS: u64 = 24 * 3600;
const AUTHORIZATION: &str = "authorization";
const SUBJECT: &str = "system:serviceaccount:";

impl TokenKey {
    /// Reads an ECDSA P-256 private key, PKCS#8 in PEM.
    pub fn read(
        path: &Path,
        issuer: &str,
        audience: &str,
        trust_domain: &str,
    ) -> Result<Self, CredentialsError> {
        let content = || CredentialsError::Content { path: path.to_owned(), what: "P-256 key in PKCS#8 PEM" };
        let text = read(path)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| content())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(|_| content())?;
        let [issuer, audience, trust_domain] = [issuer, audience, trust_domain].map(str::to_owned);
        Ok(Self { key, issuer, audience, trust_domain })
    }

    /// The token of a service account.
    pub fn mint(&self, namespace: &str, account: &str) -> Result<String, CredentialsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({
            "iss": self.issuer,
            "sub": format!("{SUBJECT}{namespace}:{account}"),
            "aud": [self.audience],
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account } },
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "typ": "JWT" })), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| CredentialsError::Sign)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Credentials {
    /// One that proves nothing, or only what the common client certificate proves.
    pub fn anonymous(cluster: Option<&str>) -> Self {
        Self(vec![Caller { identity: None, metadata: metadata(None, cluster), tls: None }])
    }

    /// Reads tokens, one per line; each is one that asks.
    pub fn tokens(path: &Path, trust_domain: &str, cluster: Option<&str>) -> Result<Self, CredentialsError> {
        let text = read(path)?;
        let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if tokens.is_empty() {
            return Err(CredentialsError::Content { path: path.to_owned(), what: "token" });
        }
        let caller = |token: &&str| Caller {
            identity: identity(token, trust_domain),
            metadata: metadata(Some(token), cluster),
            tls: None,
        };
        Ok(Self(tokens.iter().map(caller).collect()))
    }

    /// Mints tokens for the service accounts `load-0`, `load-1`, … of a namespace.
    pub fn minted(
        key: &TokenKey,
        count: usize,
        namespace: &str,
        cluster: Option<&str>,
    ) -> Result<Self, CredentialsError> {
        let caller = |n| {
            let account = format!("load-{n}");
            let token = key.mint(namespace, &account)?;
            Ok(Caller {
                identity: Some(spiffe(&key.trust_domain, namespace, &account)),
                metadata: metadata(Some(&token), cluster),
                tls: None,
            })
        };
        (0..count.max(1)).map(caller).collect::<Result<_, _>>().map(Self)
    }

    /// The one for the `n`th connection.
    pub fn get(&self, n: usize) -> &Caller {
        &self.0[n % self.0.len()]
    }
}

impl Caller {
    /// Gets a certificate by its token, and is known by that from now on. `tls`: the server's roots and name.
    pub async fn obtain(
        &mut self,
        target: &Target,
        entry: &Entry,
        (roots, server_name): (Option<&Path>, &str),
    ) -> Result<(), CredentialsError> {
        let mut connection = Connection::connect(target).await?;
        let answer = connection.call(METHOD, &self.metadata, &request(&entry.csr, TOKEN_SECONDS)).await?;
        let texts = chain(&answer).map_err(|_| CredentialsError::Answer)?;
        // The roots are the last one.
        let (_, chain) = texts.split_last().ok_or(CredentialsError::Answer)?;
        let chain = certificates(&chain.concat()).map_err(|_| CredentialsError::Answer)?;
        let key = PrivatePkcs8KeyDer::from(entry.key.clone()).into();
        self.tls = Some(Tls::new(roots, Some((chain, key)), server_name)?);
        self.metadata.retain(|(name, _)| name != AUTHORIZATION);
        Ok(())
    }

    /// Namespace and service account of its identity.
    pub fn account(&self) -> Option<(&str, &str)> {
        let (_, path) = self.identity.as_deref()?.strip_prefix("spiffe://")?.split_once("/ns/")?;
        path.split_once("/sa/")
    }
}

/// What agents send. `clusterid` is the cluster that the token is from.
fn metadata(token: Option<&str>, cluster: Option<&str>) -> Vec<(String, String)> {
    let token = token.map(|token| (AUTHORIZATION.to_owned(), format!("Bearer {token}")));
    let cluster = cluster.map(|cluster| ("clusterid".to_owned(), cluster.to_owned()));
    token.into_iter().chain(cluster).collect()
}

/// The identity that a token proves, by its claims.
fn identity(token: &str, trust_domain: &str) -> Option<Arc<str>> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let (namespace, account) = claims.get("sub")?.as_str()?.strip_prefix(SUBJECT)?.split_once(':')?;
    Some(spiffe(trust_domain, namespace, account))
}

fn spiffe(trust_domain: &str, namespace: &str, account: &str) -> Arc<str> {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").into()
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    fs::read_to_string(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}
