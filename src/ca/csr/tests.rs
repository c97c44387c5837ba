use proptest::prelude::*;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::*;

fn mk_csr(key: &KeyPair) -> String {
    CertificateParams::new(vec!["evil.example".to_owned()])
        .unwrap()
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap()
}

fn reencode(pem_text: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut der = pem::parse(pem_text).unwrap().into_contents();
    change(&mut der);
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
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
        ("bytes after", reencode(&good, |der| der.push(0)), "1 bytes follow"),
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

/// Keys that openssl still makes and nobody should use.
#[test]
fn weak_keys_and_hashes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("openssl genrsa -out k 1024", "-sha256", "RSA with 1024 bits"),
        ("openssl genrsa -out k 2048", "-sha1", "is signed with"),
        ("openssl ecparam -name secp521r1 -genkey -noout -out k", "-sha256", "ECDSA with"),
        ("openssl ecparam -name secp256k1 -genkey -noout -out k", "-sha256", "does not match"),
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
        let _ = parse(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes)).as_bytes());
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
