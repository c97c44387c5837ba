//! The keys of a cluster, all in the test's hand: its TLS authority, and the key that signs service-account tokens.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The issuer of service-account tokens, and the only audience that the API server takes for its own.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// For so long after its expiry an API server still takes a token (its JWT library's leeway, for clocks that differ).
pub const LEEWAY: Duration = Duration::from_secs(60);

/// For so long an API server remembers that it took a token, whatever has happened to it since.
pub const TOKEN_CACHE: Duration = Duration::from_secs(10);

/// A certificate or a chain with its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// The authority that signs the API server's certificate, and those of its clients.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// What clients trust.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for an API server at `addresses`, under the names that pods know it by, too.
    pub fn server(&self, addresses: &[std::net::IpAddr]) -> Result<Pair> {
        self.sign(server(addresses)?)
    }

    /// The same, good between these times.
    pub fn server_of(
        &self,
        addresses: &[std::net::IpAddr],
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Pair> {
        self.sign(between(server(addresses)?, from, until))
    }

    /// A client certificate: user `user`, member of `groups`.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair> {
        self.sign(client(user, groups))
    }

    /// The same, good between these times.
    pub fn client_of(
        &self,
        user: &str,
        groups: &[&str],
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Pair> {
        self.sign(between(client(user, groups), from, until))
    }

    fn sign(&self, params: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

fn server(addresses: &[std::net::IpAddr]) -> Result<CertificateParams> {
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut params = CertificateParams::new(names.map(str::to_owned))?;
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn client(user: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn between(mut params: CertificateParams, from: SystemTime, until: SystemTime) -> CertificateParams {
    (params.not_before, params.not_after) = (from.into(), until.into());
    params
}

/// The key that signs service-account tokens (P-256): the API server's own, so that a test may sign what it likes.
pub struct TokenSigner {
    pair: KeyPair,
    key: EncodingKey,
}

/// What a token says.
pub struct Claims<'a> {
    pub namespace: &'a str,
    pub account: &'a str,
    /// The ServiceAccount's uid; the API server refuses the token of an account that was made anew.
    pub uid: &'a str,
    pub audiences: &'a [&'a str],
    pub issued: SystemTime,
    pub expires: SystemTime,
}

impl TokenSigner {
    pub fn new() -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
        Ok(Self { pair, key })
    }

    /// Writes the two halves as files for `--service-account-signing-key-file` and `--service-account-key-file`.
    pub fn write(&self, private: &Path, public: &Path) -> Result<()> {
        super::secret_file(private, &self.pair.serialize_pem())?;
        super::secret_file(public, &self.pair.public_key_pem())
    }

    /// A signed token, as `TokenRequest` issues them, but of any lifetime.
    pub fn sign(&self, claims: &Claims<'_>) -> Result<String> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        let body = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.account),
            "aud": claims.audiences,
            "iat": seconds(claims.issued)?,
            "nbf": seconds(claims.issued)?,
            "exp": seconds(claims.expires)?,
            "kubernetes.io": {
                "namespace": claims.namespace,
                "serviceaccount": { "name": claims.account, "uid": claims.uid },
            },
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &body, &self.key).context("sign a token")
    }
}
