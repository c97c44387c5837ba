//! Private keys that sign: made here, or read as openssl writes them.

use std::fmt;

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use memchr::memmem;
use zeroize::Zeroizing;

use super::der::{self, tag};
use crate::pem::{self, PemError};

/// A private key and the signature algorithm that it is used with.
pub struct PrivateKey {
    pair: Pair,
    public: Vec<u8>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair, Curve),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]; // 1.2.840.10045.2.1

// Algorithm identifiers, encoded. Those of RSA have parameters, which are NULL.
const SHA256_WITH_RSA: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
const RSA_ENCRYPTION: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_WITH_SHA384: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_WITH_SHA512: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];

/// A DER `SubjectPublicKeyInfo` around a DER `RSAPublicKey`.
pub(super) fn rsa_public_key_info(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 32);
    der::nest(&mut out, tag::SEQUENCE, |out| {
        out.extend_from_slice(RSA_ENCRYPTION);
        der::bits(out, key);
    });
    out
}

/// What kind of key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA P-256: about 35 times as fast to sign with as RSA 2048 (`performance.md` B1).
    #[default]
    EcdsaP256,
    /// RSA 2048, what istiod makes for its own authority.
    Rsa2048,
    /// RSA 4096, for certificate authorities that must be RSA.
    Rsa4096,
}

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No key in the text.
    #[error(
        "no private key found: expected a PEM block `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`"
    )]
    Missing,
    /// More than one key in the text: which one is meant cannot be known.
    #[error("{0} private keys found, expected one")]
    Several(usize),
    /// The key is encrypted.
    #[error(
        "the private key is encrypted: decrypt it with `openssl pkey -in KEY -out KEY.plain` and protect the file by its mode instead"
    )]
    Encrypted,
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(#[from] PemError),
    /// PEM, but nothing that this CA can sign with.
    #[error(
        "the private key in the `{0}` block is neither RSA (2048 bits or more) nor ECDSA on P-256, P-384 or P-521"
    )]
    Unsupported(String),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to {0}")]
    Crypto(&'static str),
}

// === impl PrivateKey ===

impl PrivateKey {
    /// Makes a new key.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("generate a private key");
        let rsa = |size| RsaKeyPair::generate(size).map(|pair| Pair::Rsa(Box::new(pair))).map_err(failed);
        Self::new(match key_type {
            KeyType::EcdsaP256 => Pair::Ec(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?,
                Curve::P256,
            ),
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048)?,
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096)?,
        })
    }

    /// Reads a key from PEM: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) and SEC1 (`EC PRIVATE KEY`), the forms that
    /// openssl writes. Other blocks in the text, such as `EC PARAMETERS`, are passed over.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let mut keys = pem::blocks(text)?;
        keys.retain(|block| block.label.ends_with("PRIVATE KEY"));
        let [key] = &keys[..] else {
            return Err(if keys.is_empty() { KeyError::Missing } else { KeyError::Several(keys.len()) });
        };
        // Old formats say it in a header, `Proc-Type: 4,ENCRYPTED`.
        if key.label == "ENCRYPTED PRIVATE KEY" || memmem::find(key.headers, b"ENCRYPTED").is_some() {
            return Err(KeyError::Encrypted);
        }
        let der = Zeroizing::new(key.decode()?);
        Self::from_der(&der).ok_or_else(|| KeyError::Unsupported(key.label.to_owned()))?
    }

    fn from_der(der: &[u8]) -> Option<Result<Self, KeyError>> {
        let curves = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, Curve::P256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, Curve::P384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, Curve::P521),
        ];
        let ec = || {
            curves.iter().find_map(|&(algorithm, curve)| {
                EcdsaKeyPair::from_private_key_der(algorithm, der).ok().map(|pair| Pair::Ec(pair, curve))
            })
        };
        let rsa = || {
            RsaKeyPair::from_pkcs8(der)
                .or_else(|_| RsaKeyPair::from_der(der))
                .ok()
                .map(|pair| Pair::Rsa(Box::new(pair)))
        };
        rsa().or_else(ec).map(Self::new)
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let public = match &pair {
            Pair::Rsa(pair) => {
                let der: Result<PublicKeyX509Der<'_>, _> = pair.public_key().as_der();
                der.map_err(|_| KeyError::Crypto("encode a public key"))?.as_ref().to_vec()
            }
            Pair::Ec(pair, curve) => curve.public_key_info(pair.public_key().as_ref()),
        };
        Ok(Self { pair, public })
    }

    /// The public key as a DER `SubjectPublicKeyInfo`.
    pub fn public_key_info(&self) -> &[u8] {
        &self.public
    }

    /// The key as PKCS#8 PEM; wiped from memory when dropped.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pem::encode("PRIVATE KEY", &self.to_pkcs8()?)))
    }

    /// The key as PKCS#8 DER; wiped from memory when dropped.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::Crypto("encode a private key");
        match &self.pair {
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
            Pair::Ec(pair, curve) => {
                let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(failed)?;
                Ok(curve.pkcs8(private.as_ref(), pair.public_key().as_ref()))
            }
        }
    }

    /// Signs `message` with the algorithm of [`PrivateKey::signature_algorithm`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Crypto("sign");
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::Ec(pair, _) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
        }
    }

    /// The X.509 signature algorithm, a DER `AlgorithmIdentifier`.
    pub fn signature_algorithm(&self) -> &'static [u8] {
        match &self.pair {
            Pair::Rsa(_) => SHA256_WITH_RSA,
            Pair::Ec(_, Curve::P256) => ECDSA_WITH_SHA256,
            Pair::Ec(_, Curve::P384) => ECDSA_WITH_SHA384,
            Pair::Ec(_, Curve::P521) => ECDSA_WITH_SHA512,
        }
    }

    /// Whether a signature costs milliseconds rather than microseconds.
    pub fn is_slow(&self) -> bool {
        match &self.pair {
            Pair::Rsa(_) => true,
            Pair::Ec(_, curve) => *curve != Curve::P256,
        }
    }
}

// === impl Curve ===

impl Curve {
    const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], // 1.2.840.10045.3.1.7
            Self::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],                   // 1.3.132.0.34
            Self::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],                   // 1.3.132.0.35
        }
    }

    fn write_algorithm(self, out: &mut Vec<u8>) {
        der::nest(out, tag::SEQUENCE, |out| {
            der::write(out, tag::OBJECT_IDENTIFIER, EC_PUBLIC_KEY);
            der::write(out, tag::OBJECT_IDENTIFIER, self.oid());
        });
    }

    /// A DER `SubjectPublicKeyInfo` around a point.
    pub(super) fn public_key_info(self, point: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(point.len() + 32);
        der::nest(&mut out, tag::SEQUENCE, |out| {
            self.write_algorithm(out);
            der::bits(out, point);
        });
        out
    }

    /// RFC 5208 around RFC 5915. The library's own encoder multiplies the base point once more, for 2 us.
    fn pkcs8(self, private: &[u8], public: &[u8]) -> Zeroizing<Vec<u8>> {
        // Never grows, so that no copy of the key is left behind.
        let mut out = Zeroizing::new(Vec::with_capacity(private.len() + public.len() + 64));
        der::nest(&mut out, tag::SEQUENCE, |out| {
            der::write(out, tag::INTEGER, &[0]);
            self.write_algorithm(out);
            der::nest(out, tag::OCTET_STRING, |out| {
                der::nest(out, tag::SEQUENCE, |out| {
                    der::write(out, tag::INTEGER, &[1]);
                    der::write(out, tag::OCTET_STRING, private);
                    der::nest(out, tag::context_constructed(1), |out| der::bits(out, public));
                });
            });
        });
        out
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.pair {
            Pair::Rsa(pair) => format!("RSA {}", pair.public_modulus_len() * 8),
            Pair::Ec(_, curve) => format!("ECDSA {curve:?}"),
        };
        write!(f, "PrivateKey({kind}, secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_own_pem_and_stays_out_of_debug() {
        for key_type in [KeyType::EcdsaP256, KeyType::Rsa2048] {
            let key = PrivateKey::generate(key_type).unwrap();
            let text = key.to_pem().unwrap();
            assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
            let again = PrivateKey::from_pem(text.as_bytes()).unwrap();
            assert_eq!(again.public_key_info(), key.public_key_info());
            let debug = format!("{key:?}");
            assert!(debug.ends_with("secret)") && debug.len() < 60, "{debug}");
        }
    }

    /// Our own encodings are those of the library, and of every curve.
    #[test]
    fn keys_are_written_as_the_library_writes_them() {
        let signing = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, Curve::P256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, Curve::P384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, Curve::P521),
        ];
        for (algorithm, curve) in signing {
            for _ in 0..50 {
                let pair = EcdsaKeyPair::generate(algorithm).unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                let (public, private) = (public.as_ref().to_vec(), pair.to_pkcs8v1().unwrap());
                let key = PrivateKey::new(Pair::Ec(pair, curve)).unwrap();
                assert_eq!(key.public_key_info(), public);
                assert_eq!(*key.to_pkcs8().unwrap(), private.as_ref());
            }
        }
    }

    #[test]
    fn what_is_no_usable_key_says_why() {
        let ed25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        for (text, expected) in [
            ("", "no private key found"),
            ("nonsense", "no private key found"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "is encrypted",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
                "is encrypted",
            ),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "neither RSA"),
            (ed25519, "neither RSA"),
        ] {
            let error = PrivateKey::from_pem(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
