//! Writing certificates: the DER of a certificate around raw names and raw public keys.
//!
//! Names and public keys go in exactly as they stood in the issuer's certificate and in the request. A library that
//! parses and writes a name anew changes it (two `OU`s or several `DC`s, string types), and then a chain made
//! with the user's own openssl no longer verifies.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::key::{KeyError, PrivateKey};

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// An IP address.
    Ip(IpAddr),
}

/// Whose certificate it is.
#[derive(Clone, Debug)]
pub enum Role {
    /// A certificate authority, with how many more may follow below it.
    Ca {
        /// `pathLenConstraint`; `None` for no limit.
        path_len: Option<u8>,
    },
    /// A workload or server: digital signature and key encipherment, for servers and clients.
    Leaf,
}

/// What stands in a certificate besides the issuer.
#[derive(Clone, Debug)]
pub struct Template<'a> {
    /// The subject as a DER `Name`; see [`name`] and [`EMPTY_NAME`].
    pub subject: &'a [u8],
    /// The subject's DER `SubjectPublicKeyInfo`.
    pub public_key_info: &'a [u8],
    /// The subject alternative names; critical when the subject is empty, as RFC 5280 4.2.1.6 demands.
    pub sans: &'a [San],
    /// Not valid before (seconds matter, fractions are cut).
    pub not_before: OffsetDateTime,
    /// Not valid after (seconds matter, fractions are cut).
    pub not_after: OffsetDateTime,
    /// Authority or leaf.
    pub role: Role,
}

/// The issuer's side: the key, its certificate's raw subject and its key identifier.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// Signs the certificate.
    pub key: &'a PrivateKey,
    /// The subject of the issuer's certificate, byte for byte.
    pub subject: &'a [u8],
    /// The issuer's subject key identifier; the authority key identifier is left out where it has none.
    pub key_id: Option<&'a [u8]>,
}

/// The DER of a name without parts.
pub const EMPTY_NAME: &[u8] = &[0x30, 0x00];

/// A DER name of an organization and a common name.
pub fn name(organization: &str, common_name: &str) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|names| {
            for (oid, value) in [(ORGANIZATION, organization), (COMMON_NAME, common_name)] {
                names.next().write_set(|set| {
                    set.next().write_sequence(|pair| {
                        pair.next().write_oid(&ObjectIdentifier::from_slice(oid));
                        pair.next().write_utf8_string(value);
                    });
                });
            }
        });
    })
}

/// The key identifier of a public key: the first 20 bytes of its SHA-256 (RFC 7093, method 1).
pub fn key_id(public_key_info: &[u8]) -> Vec<u8> {
    // Over the bits of the key alone where they can be told apart; an identifier only has to be unique and stable.
    let hashed = match SubjectPublicKeyInfo::from_der(public_key_info) {
        Ok((_, info)) => digest(&SHA256, &info.subject_public_key.data),
        Err(_) => digest(&SHA256, public_key_info),
    };
    hashed.as_ref()[..20].to_vec()
}

/// Signs a certificate. The serial number is 128 random bits.
pub fn issue(template: &Template<'_>, issuer: Issuer<'_>) -> Result<CertificateDer<'static>, KeyError> {
    let serial: [u8; 16] = rand::random();
    let to_sign = yasna::construct_der(|writer| write_to_be_signed(writer, template, issuer, &serial));
    let signature = issuer.key.sign(&to_sign)?;
    let der = yasna::construct_der(|writer| {
        writer.write_sequence(|parts| {
            parts.next().write_der(&to_sign);
            write_algorithm(parts.next(), issuer.key);
            parts.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    Ok(CertificateDer::from(der))
}

fn write_to_be_signed(writer: DERWriter<'_>, template: &Template<'_>, issuer: Issuer<'_>, serial: &[u8]) {
    writer.write_sequence(|parts| {
        parts.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
        parts.next().write_bigint_bytes(serial, true);
        write_algorithm(parts.next(), issuer.key);
        parts.next().write_der(issuer.subject);
        parts.next().write_sequence(|validity| {
            write_time(validity.next(), template.not_before);
            write_time(validity.next(), template.not_after);
        });
        parts.next().write_der(template.subject);
        parts.next().write_der(template.public_key_info);
        parts.next().write_tagged(Tag::context(3), |extensions| {
            extensions.write_sequence(|list| write_extensions(list, template, issuer.key_id));
        });
    });
}

fn write_algorithm(writer: DERWriter<'_>, key: &PrivateKey) {
    let (oid, null_parameters) = key.signature_oid();
    writer.write_sequence(|parts| {
        parts.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if null_parameters {
            parts.next().write_null();
        }
    });
}

/// RFC 5280 4.1.2.5: two-digit years until 2049, four digits from 2050, never a fraction of a second.
fn write_time(writer: DERWriter<'_>, at: OffsetDateTime) {
    let at = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
    if (1950..2050).contains(&at.year()) {
        writer.write_utctime(&UTCTime::from_datetime(at));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(at));
    }
}

fn write_extensions(list: &mut DERWriterSeq<'_>, template: &Template<'_>, authority_key_id: Option<&[u8]>) {
    let usage_bits: (u8, usize) = match template.role {
        Role::Ca { .. } => (0b0000_0110, 7), // keyCertSign, cRLSign
        Role::Leaf => (0b1010_0000, 3),      // digitalSignature, keyEncipherment
    };
    extension(list, KEY_USAGE, true, |w| w.write_bitvec_bytes(&[usage_bits.0], usage_bits.1));
    if let Role::Leaf = template.role {
        extension(list, EXTENDED_KEY_USAGE, false, |w| {
            w.write_sequence(|usages| {
                for usage in [SERVER_AUTH, CLIENT_AUTH] {
                    usages.next().write_oid(&ObjectIdentifier::from_slice(usage));
                }
            });
        });
    }
    extension(list, BASIC_CONSTRAINTS, true, |w| {
        w.write_sequence(|constraints| {
            if let Role::Ca { path_len } = template.role {
                constraints.next().write_bool(true);
                if let Some(path_len) = path_len {
                    constraints.next().write_u8(path_len);
                }
            }
        });
    });
    if let Role::Ca { .. } = template.role {
        extension(list, SUBJECT_KEY_ID, false, |w| w.write_bytes(&key_id(template.public_key_info)));
    }
    if let Some(id) = authority_key_id {
        extension(list, AUTHORITY_KEY_ID, false, |w| {
            w.write_sequence(|parts| {
                parts.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(id));
            });
        });
    }
    if !template.sans.is_empty() {
        let critical = template.subject == EMPTY_NAME;
        extension(list, SUBJECT_ALT_NAME, critical, |w| {
            w.write_sequence(|names| template.sans.iter().for_each(|san| write_san(names.next(), san)));
        });
    }
}

fn write_san(writer: DERWriter<'_>, san: &San) {
    match san {
        San::Dns(name) => writer.write_tagged_implicit(Tag::context(2), |w| w.write_ia5_string(name)),
        San::Uri(uri) => writer.write_tagged_implicit(Tag::context(6), |w| w.write_ia5_string(uri)),
        San::Ip(IpAddr::V4(ip)) => {
            writer.write_tagged_implicit(Tag::context(7), |w| w.write_bytes(&ip.octets()))
        }
        San::Ip(IpAddr::V6(ip)) => {
            writer.write_tagged_implicit(Tag::context(7), |w| w.write_bytes(&ip.octets()))
        }
    }
}

fn extension(list: &mut DERWriterSeq<'_>, oid: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    list.next().write_sequence(|parts| {
        parts.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            parts.next().write_bool(true);
        }
        parts.next().write_bytes(&yasna::construct_der(value));
    });
}
