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

use super::der::{self, tag};
use super::key::{KeyError, PrivateKey};

// Object identifiers, encoded.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f]; // 2.5.29.15
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11]; // 2.5.29.17
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13]; // 2.5.29.19
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e]; // 2.5.29.14
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23]; // 2.5.29.35
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25]; // 2.5.29.37
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]; // 1.3.6.1.5.5.7.3.1
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]; // 1.3.6.1.5.5.7.3.2
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a]; // 2.5.4.10
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03]; // 2.5.4.3

// Bit strings: how many bits of the last byte are unused, then the bits, the first one highest.
const CERT_SIGN_AND_CRL_SIGN: &[u8] = &[1, 0b0000_0110];
const SIGNATURE_AND_KEY_ENCIPHERMENT: &[u8] = &[5, 0b1010_0000];
const TRUE: &[u8] = &[0xff];

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name, in ASCII.
    Dns(String),
    /// A URI, such as a SPIFFE id, in ASCII.
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
    let mut out = Vec::new();
    der::nest(&mut out, tag::SEQUENCE, |out| {
        for (oid, value) in [(ORGANIZATION, organization), (COMMON_NAME, common_name)] {
            der::nest(out, tag::SET, |out| {
                der::nest(out, tag::SEQUENCE, |out| {
                    der::write(out, tag::OBJECT_IDENTIFIER, oid);
                    der::write(out, tag::UTF8_STRING, value.as_bytes());
                });
            });
        }
    });
    out
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

/// Signs a certificate. The serial number has 126 random bits.
pub fn issue(template: &Template<'_>, issuer: Issuer<'_>) -> Result<CertificateDer<'static>, KeyError> {
    let mut to_sign = Vec::with_capacity(1024);
    write_to_be_signed(&mut to_sign, template, issuer);
    let signature = issuer.key.sign(&to_sign)?;
    let mut out = Vec::with_capacity(to_sign.len() + signature.len() + 64);
    der::nest(&mut out, tag::SEQUENCE, |out| {
        out.extend_from_slice(&to_sign);
        out.extend_from_slice(issuer.key.signature_algorithm());
        der::bits(out, &signature);
    });
    Ok(CertificateDer::from(out))
}

fn write_to_be_signed(out: &mut Vec<u8>, template: &Template<'_>, issuer: Issuer<'_>) {
    der::nest(out, tag::SEQUENCE, |out| {
        // Version 3.
        der::nest(out, tag::context_constructed(0), |out| der::write(out, tag::INTEGER, &[2]));
        der::write(out, tag::INTEGER, &serial());
        out.extend_from_slice(issuer.key.signature_algorithm());
        out.extend_from_slice(issuer.subject);
        der::nest(out, tag::SEQUENCE, |out| {
            write_time(out, template.not_before);
            write_time(out, template.not_after);
        });
        out.extend_from_slice(template.subject);
        out.extend_from_slice(template.public_key_info);
        der::nest(out, tag::context_constructed(3), |out| {
            der::nest(out, tag::SEQUENCE, |out| write_extensions(out, template, issuer.key_id));
        });
    });
}

/// Positive and in the shortest form, as its first byte is neither 0 nor above 0x7f.
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// RFC 5280 4.1.2.5: two-digit years until 2049, four digits from 2050, never a fraction of a second.
fn write_time(out: &mut Vec<u8>, at: OffsetDateTime) {
    let at = at.to_offset(time::UtcOffset::UTC);
    // There is no way to write a year before Christ.
    let year = u32::try_from(at.year()).unwrap_or(0);
    let short = (1950..2050).contains(&year);
    der::nest(out, if short { tag::UTC_TIME } else { tag::GENERALIZED_TIME }, |out| {
        if !short {
            two_digits(out, (year / 100 % 100) as u8);
        }
        let day = [(year % 100) as u8, at.month().into(), at.day()];
        day.into_iter().chain([at.hour(), at.minute(), at.second()]).for_each(|n| two_digits(out, n));
        out.push(b'Z');
    });
}

fn two_digits(out: &mut Vec<u8>, n: u8) {
    out.extend_from_slice(&[b'0' + n / 10, b'0' + n % 10]);
}

fn write_extensions(out: &mut Vec<u8>, template: &Template<'_>, authority_key_id: Option<&[u8]>) {
    let usage = match template.role {
        Role::Ca { .. } => CERT_SIGN_AND_CRL_SIGN,
        Role::Leaf => SIGNATURE_AND_KEY_ENCIPHERMENT,
    };
    extension(out, KEY_USAGE, true, |out| der::write(out, tag::BIT_STRING, usage));
    if let Role::Leaf = template.role {
        extension(out, EXTENDED_KEY_USAGE, false, |out| {
            der::nest(out, tag::SEQUENCE, |out| {
                der::write(out, tag::OBJECT_IDENTIFIER, SERVER_AUTH);
                der::write(out, tag::OBJECT_IDENTIFIER, CLIENT_AUTH);
            });
        });
    }
    extension(out, BASIC_CONSTRAINTS, true, |out| {
        der::nest(out, tag::SEQUENCE, |out| {
            if let Role::Ca { path_len } = template.role {
                der::write(out, tag::BOOLEAN, TRUE);
                match path_len {
                    // The highest bit is the sign.
                    Some(n @ 0x80..) => der::write(out, tag::INTEGER, &[0, n]),
                    Some(n) => der::write(out, tag::INTEGER, &[n]),
                    None => {}
                }
            }
        });
    });
    if let Role::Ca { .. } = template.role {
        let id = key_id(template.public_key_info);
        extension(out, SUBJECT_KEY_ID, false, |out| der::write(out, tag::OCTET_STRING, &id));
    }
    if let Some(id) = authority_key_id {
        extension(out, AUTHORITY_KEY_ID, false, |out| {
            der::nest(out, tag::SEQUENCE, |out| der::write(out, tag::context(0), id));
        });
    }
    if !template.sans.is_empty() {
        let critical = template.subject == EMPTY_NAME;
        extension(out, SUBJECT_ALT_NAME, critical, |out| {
            der::nest(out, tag::SEQUENCE, |out| template.sans.iter().for_each(|san| write_san(out, san)));
        });
    }
}

fn write_san(out: &mut Vec<u8>, san: &San) {
    match san {
        San::Dns(name) => der::write(out, tag::context(2), name.as_bytes()),
        San::Uri(uri) => der::write(out, tag::context(6), uri.as_bytes()),
        San::Ip(IpAddr::V4(ip)) => der::write(out, tag::context(7), &ip.octets()),
        San::Ip(IpAddr::V6(ip)) => der::write(out, tag::context(7), &ip.octets()),
    }
}

fn extension(out: &mut Vec<u8>, oid: &[u8], critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
    der::nest(out, tag::SEQUENCE, |out| {
        der::write(out, tag::OBJECT_IDENTIFIER, oid);
        if critical {
            der::write(out, tag::BOOLEAN, TRUE);
        }
        der::nest(out, tag::OCTET_STRING, value);
    });
}

#[cfg(test)]
mod tests;
