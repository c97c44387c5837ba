use proptest::prelude::*;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::ca::der::{self, tag};

fn mk_csr(key: &KeyPair) -> String {
    CertificateParams::new(vec!["evil.example".to_owned()])
        .unwrap()
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap()
}

fn reencode(pem_text: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut der = pem::blocks(pem_text.as_bytes()).unwrap()[0].decode().unwrap();
    change(&mut der);
    pem::encode("CERTIFICATE REQUEST", &der)
}

#[test]
fn good_requests_give_their_public_key_unchanged() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = parse(mk_csr(&key).as_bytes()).unwrap();
        assert_eq!(csr.public_key_info, rcgen::PublicKeyData::subject_public_key_info(&key));
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let good = mk_csr(&KeyPair::generate().unwrap());
    let ed25519 = mk_csr(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let cert = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let cases = [
        ("empty", String::new(), "found 0 blocks"),
        ("garbage", "garbage".to_owned(), "found 0 blocks"),
        ("two", format!("{good}{good}"), "found 2 blocks"),
        ("another block", cert, "found `CERTIFICATE`"),
        ("huge", format!("{good}{}", " ".repeat(MAX_BYTES)), "more than the 16384 allowed"),
        ("no PKCS#10", reencode(&good, |der| der.truncate(der.len() / 2)), "not a PKCS#10"),
        ("bytes after", reencode(&good, |der| der.push(0)), "something follows"),
        (
            "name changed",
            reencode(&good, |der| {
                let at = der.windows(4).position(|w| w == b"evil").unwrap();
                der[at] = b'E';
            }),
            "does not match",
        ),
        (
            "signature changed",
            reencode(&good, |der| {
                let last = der.len() - 1;
                der[last] ^= 1;
            }),
            "does not match",
        ),
        ("ed25519", ed25519, "use RSA with 2048"),
    ];
    for (name, text, expected) in cases {
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// A request in pieces, so that each of them can be made wrong and the whole still be signed by its key.
struct Pieces {
    version: Vec<u8>,
    subject: Vec<u8>,
    algorithm: Vec<u8>,
    point: Vec<u8>,
    after_key: Vec<u8>,
    attributes: Vec<u8>,
    signed_with: Vec<u8>,
    after_signature: Vec<u8>,
}

impl Pieces {
    /// The request's text and the public key that it should give.
    fn sign(&self, key: &EcdsaKeyPair) -> (String, Vec<u8>) {
        let mut public_key_info = Vec::new();
        der::nest(&mut public_key_info, tag::SEQUENCE, |out| {
            der::nest(out, tag::SEQUENCE, |out| out.extend(&self.algorithm));
            der::bits(out, &self.point);
            out.extend(&self.after_key);
        });
        let mut info = Vec::new();
        der::nest(&mut info, tag::SEQUENCE, |out| {
            out.extend(&self.version);
            out.extend(&self.subject);
            out.extend(&public_key_info);
            out.extend(&self.attributes);
        });
        let signature = key.sign(&SystemRandom::new(), &info).unwrap();
        let mut request = Vec::new();
        der::nest(&mut request, tag::SEQUENCE, |out| {
            out.extend(&info);
            der::nest(out, tag::SEQUENCE, |out| out.extend(&self.signed_with));
            der::bits(out, signature.as_ref());
            out.extend(&self.after_signature);
        });
        (pem::encode("CERTIFICATE REQUEST", &request), public_key_info)
    }
}

const EC_P256: &[u8] =
    &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const SECP256K1: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x0a];

/// Requests whose signature is good and whose content is not.
#[test]
fn what_is_signed_and_hostile_is_refused_all_the_same() {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let mk_good = || Pieces {
        version: vec![tag::INTEGER, 1, 0],
        subject: vec![tag::SEQUENCE, 0],
        algorithm: EC_P256.to_vec(),
        point: key.public_key().as_ref().to_vec(),
        after_key: vec![],
        attributes: vec![tag::context_constructed(0), 0],
        signed_with: vec![tag::OBJECT_IDENTIFIER, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        after_signature: vec![],
    };
    let (text, public_key_info) = mk_good().sign(&key);
    assert_eq!(parse(text.as_bytes()).unwrap().public_key_info, public_key_info, "the rest is the same");

    type Change = (&'static str, fn(&mut Pieces));
    let changes: [Change; 18] = [
        ("no version", |p| p.version.clear()),
        ("a version of text", |p| p.version = vec![tag::UTF8_STRING, 1, b'0']),
        ("no subject", |p| p.subject.clear()),
        ("a subject that is a set", |p| p.subject[0] = tag::SET),
        ("a subject of indefinite length", |p| p.subject = vec![tag::SEQUENCE, 0x80, 0, 0]),
        ("a subject longer than the request", |p| {
            p.subject = vec![tag::SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]
        }),
        ("no algorithm", |p| p.algorithm.clear()),
        ("another curve's name", |p| p.algorithm = SECP256K1.to_vec()),
        ("no curve", |p| p.algorithm.truncate(9)),
        ("a curve and more", |p| p.algorithm.extend([5, 0])),
        ("something after the key", |p| p.after_key = vec![5, 0]),
        ("half a key", |p| p.point.truncate(33)),
        ("no key", |p| p.point.clear()),
        ("a key that is not on the curve", |p| p.point[64] ^= 1),
        ("the point at infinity", |p| p.point = vec![0]),
        ("no attributes", |p| p.attributes.clear()),
        ("attributes that are none", |p| p.attributes = vec![tag::context_constructed(0), 2, 5, 0]),
        ("a signature named SHA-1", |p| p.signed_with = vec![6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]),
    ];
    for (what, change) in changes {
        let mut pieces = mk_good();
        change(&mut pieces);
        assert!(parse(pieces.sign(&key).0.as_bytes()).is_err(), "{what}");
    }
    let mut pieces = mk_good();
    pieces.after_signature = vec![5, 0];
    let error = parse(pieces.sign(&key).0.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("something follows"), "{error}");
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let (foreign, _) = mk_good().sign(&other);
    assert_eq!(parse(foreign.as_bytes()), Err(CsrError::Signature), "a key that the sender does not hold");
}

/// Keys that openssl still makes and nobody should use.
#[test]
fn weak_keys_and_hashes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("openssl genrsa -out k 1024", "-sha256", "RSA with 1024 bits"),
        ("openssl genrsa -out k 2048", "-sha1", "is signed with"),
        ("openssl ecparam -name secp521r1 -genkey -noout -out k", "-sha256", "ECDSA with"),
        ("openssl ecparam -name secp256k1 -genkey -noout -out k", "-sha256", "of another curve"),
    ];
    for (make_key, hash, expected) in cases {
        let script = format!("{make_key}; openssl req -new {hash} -key k -subj /O=x -out csr");
        let status = std::process::Command::new("bash")
            .args(["-ec", &script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{script}");
        let error = parse(&std::fs::read(dir.path().join("csr")).unwrap()).unwrap_err().to_string();
        assert!(error.contains(expected), "{script}: {error}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let _ = parse(pem::encode("CERTIFICATE REQUEST", &bytes).as_bytes());
    }

    /// The parser forgives a strange outer tag, which the signature does not cover; the key it gives is still the right one.
    #[test]
    fn a_damaged_request_never_gives_another_key(at in 0usize..200, bit in 0u8..8) {
        let key = KeyPair::generate().unwrap();
        let damaged = reencode(&mk_csr(&key), |der| {
            let at = at % der.len();
            der[at] ^= 1 << bit;
        });
        if let Ok(csr) = parse(damaged.as_bytes()) {
            prop_assert_eq!(csr.public_key_info, rcgen::PublicKeyData::subject_public_key_info(&key));
        }
    }
}
