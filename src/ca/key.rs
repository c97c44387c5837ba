//! Private keys that sign: made here, or read as openssl writes them.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use zeroize::Zeroizing;

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
enum Curve {
    P256,
    P384,
    P521,
}

/// What kind of key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA P-256: about 35 times as fast to sign with as RSA 2048 (`performance.md` B1).
    #[default]
    EcdsaP256,
    /// RSA 2048, what istiod makes for its own certificates.
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
    Pem(String),
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
        let blocks = pem::parse_many(text).map_err(|error| KeyError::Pem(error.to_string()))?;
        let keys: Vec<_> = blocks.iter().filter(|block| block.tag().ends_with("PRIVATE KEY")).collect();
        let [key] = keys[..] else {
            return Err(if keys.is_empty() { KeyError::Missing } else { KeyError::Several(keys.len()) });
        };
        let encrypted = key.tag() == "ENCRYPTED PRIVATE KEY"
            || key.headers().get("Proc-Type").is_some_and(|value| value.contains("ENCRYPTED"));
        if encrypted {
            return Err(KeyError::Encrypted);
        }
        Self::from_der(key.contents()).ok_or_else(|| KeyError::Unsupported(key.tag().to_owned()))?
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
        let failed = |_| KeyError::Crypto("encode a public key");
        let public: PublicKeyX509Der<'_> = match &pair {
            Pair::Rsa(pair) => pair.public_key().as_der().map_err(failed)?,
            Pair::Ec(pair, _) => pair.public_key().as_der().map_err(failed)?,
        };
        let public = public.as_ref().to_vec();
        Ok(Self { pair, public })
    }

    /// The public key as a DER `SubjectPublicKeyInfo`.
    pub fn public_key_info(&self) -> &[u8] {
        &self.public
    }

    /// The key as PKCS#8 PEM; wiped from memory when dropped.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.to_pkcs8()?;
        // LF line ends, as everybody but Windows expects; the block's own copy of the key is wiped with it.
        let block = pem::Pem::new("PRIVATE KEY", der.as_slice());
        let text = pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF));
        drop(Zeroizing::new(block.into_contents()));
        Ok(Zeroizing::new(text))
    }

    /// The key as PKCS#8 DER; wiped from memory when dropped.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::Crypto("encode a private key");
        Ok(Zeroizing::new(match &self.pair {
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
            Pair::Ec(pair, _) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
        }))
    }

    /// Signs `message` with the algorithm of [`PrivateKey::signature_oid`].
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

    /// The X.509 signature algorithm: its object identifier, and whether it carries NULL parameters (RSA does).
    pub fn signature_oid(&self) -> (&'static [u64], bool) {
        match &self.pair {
            Pair::Rsa(_) => (&[1, 2, 840, 113549, 1, 1, 11], true),
            Pair::Ec(_, Curve::P256) => (&[1, 2, 840, 10045, 4, 3, 2], false),
            Pair::Ec(_, Curve::P384) => (&[1, 2, 840, 10045, 4, 3, 3], false),
            Pair::Ec(_, Curve::P521) => (&[1, 2, 840, 10045, 4, 3, 4], false),
        }
    }

    /// The kind of key to use for certificates next to this one: istiod's own certificate is RSA unless its CA is not.
    pub fn companion_type(&self) -> KeyType {
        match &self.pair {
            Pair::Rsa(_) => KeyType::Rsa2048,
            Pair::Ec(..) => KeyType::EcdsaP256,
        }
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
