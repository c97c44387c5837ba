//! Reading certificates: what the authority, `ca inspect` and the reload checks need to know about one.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::pem::{self, PemError};

/// What stands in the first and last line of a PEM certificate.
pub(super) const PEM_LABEL: &str = "CERTIFICATE";

/// A certificate and what was read from it. The DER is the truth; the rest is derived.
#[derive(Clone, Debug)]
pub struct Cert {
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    /// The subject's DER `Name`.
    pub subject_raw: Vec<u8>,
    /// The issuer's DER `Name`.
    pub issuer_raw: Vec<u8>,
    /// The subject for people, such as `O=mesh, CN=root`.
    pub subject: String,
    /// The issuer for people.
    pub issuer: String,
    /// The DER `SubjectPublicKeyInfo`.
    pub public_key_info: Vec<u8>,
    /// The key's kind for people, such as `RSA 4096` or `ECDSA P-256`.
    pub key_type: String,
    /// The subject key identifier.
    pub key_id: Option<Vec<u8>>,
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid until.
    pub not_after: OffsetDateTime,
    /// May sign certificates: basic constraints say CA, and the key usage does not forbid it.
    pub is_ca: bool,
    /// The subject alternative names for people, such as `URI:spiffe://…`.
    pub sans: Vec<String>,
}

/// Why some bytes hold no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(#[from] PemError),
    /// No certificate in the text.
    #[error("no certificate found: expected PEM blocks `CERTIFICATE`")]
    Missing,
    /// The block is no X.509 certificate.
    #[error("certificate {number} of {total} is not valid X.509: {reason}")]
    Der {
        /// Which block of the text, from 1.
        number: usize,
        /// How many blocks there are.
        total: usize,
        /// What the parser says.
        reason: String,
    },
}

// === impl Cert ===

impl Cert {
    /// Reads every certificate of a PEM text, in order. Other blocks are passed over.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, CertError> {
        let mut blocks = pem::blocks(text)?;
        blocks.retain(|block| block.label == PEM_LABEL);
        if blocks.is_empty() {
            return Err(CertError::Missing);
        }
        let total = blocks.len();
        let read = |(at, block): (usize, &pem::Block<'_>)| {
            let invalid = |reason| CertError::Der { number: at + 1, total, reason };
            Self::from_der(block.decode()?.into()).map_err(invalid)
        };
        blocks.iter().enumerate().map(read).collect()
    }

    /// Reads one DER certificate. The error says what is wrong with it.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, String> {
        let (rest, cert) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        let mut is_ca = false;
        let mut may_sign = true;
        let mut key_id = None;
        let mut sans = Vec::new();
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => is_ca = constraints.ca,
                ParsedExtension::KeyUsage(usage) => may_sign = usage.key_cert_sign(),
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
                ParsedExtension::SubjectAlternativeName(names) => {
                    sans.extend(names.general_names.iter().map(describe_name));
                }
                _ => {}
            }
        }
        Ok(Self {
            subject_raw: cert.subject().as_raw().to_vec(),
            issuer_raw: cert.issuer().as_raw().to_vec(),
            subject: cert.subject().to_string(),
            issuer: cert.issuer().to_string(),
            public_key_info: cert.public_key().raw.to_vec(),
            key_type: describe_key(&cert),
            key_id,
            not_before: cert.validity().not_before.to_datetime(),
            not_after: cert.validity().not_after.to_datetime(),
            is_ca: is_ca && may_sign,
            sans,
            der: der.clone(),
        })
    }

    /// Whether `issuer` is named as this certificate's issuer and its key made this certificate's signature.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        if self.issuer_raw != issuer.subject_raw {
            return false;
        }
        let (Ok((_, child)), Ok((_, parent))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&issuer.der))
        else {
            return false;
        };
        child.verify_signature(Some(parent.public_key())).is_ok()
    }

    /// Whether subject and issuer are the same name: what roots look like.
    pub fn is_self_issued(&self) -> bool {
        self.subject_raw == self.issuer_raw
    }

    /// The SHA-256 of the DER in the form that openssl prints.
    pub fn fingerprint(&self) -> String {
        let mut text = String::with_capacity(95);
        for (at, byte) in digest(&SHA256, &self.der).as_ref().iter().enumerate() {
            let _ = write!(text, "{}{byte:02X}", if at == 0 { "" } else { ":" });
        }
        text
    }

    /// The certificate as PEM, with a line end.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }

    /// Whole days until the end of validity; negative when it has passed.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_seconds().div_euclid(24 * 3600)
    }
}

/// A DER certificate as PEM, with a line end.
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    pem::encode(PEM_LABEL, der)
}

fn describe_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::IPAddress(bytes) => {
            let ip = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let ip = ip.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            ip.map_or_else(|_| format!("IP of {} bytes", bytes.len()), |ip| format!("IP:{ip}"))
        }
        other => format!("{other:?}"),
    }
}

fn describe_key(cert: &X509Certificate<'_>) -> String {
    match cert.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            // The parser counts in whole bytes.
            528 => "ECDSA P-521".to_owned(),
            bits => format!("ECDSA P-{bits}"),
        },
        _ => format!("key of type {}", cert.public_key().algorithm.algorithm),
    }
}
