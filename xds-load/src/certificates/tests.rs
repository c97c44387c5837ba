use std::{sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType, SignatureAlgorithm, string::Ia5String,
};

use super::*;

/// A root, an intermediate, and what they sign.
struct Ca {
    root: String,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A public key from the pool.
struct Key<'a>(&'a [u8]);

impl PublicKeyData for Key<'_> {
    fn der_bytes(&self) -> &[u8] {
        // The last 65 bytes of the info are the point.
        &self.0[self.0.len() - 65..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Ca {
    fn new(name: &str) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = ca_params(&format!("{name} root"));
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let params = ca_params(&format!("{name} intermediate"));
        let intermediate = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap().pem();
        Self { root: root_pem, intermediate, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, public_key: &[u8], identity: &str) -> Box<str> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity).unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(&Key(public_key), &self.issuer).unwrap().pem().into()
    }

    fn issuers(&self) -> Arc<[String]> {
        [self.intermediate.clone(), self.root.clone()].into()
    }
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[test]
fn what_is_wrong_is_found() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let pool = Pool::generate(2).unwrap();
    let key = |n| pool.get(n).public_key.as_slice();
    let answer = |leaf, issuers| Answer { entry: 0, identity: Some(WEB.into()), leaf, issuers };
    let no_roots: Arc<[String]> = [ours.intermediate.clone(), "no PEM".to_owned()].into();
    let cases = [
        (answer(ours.leaf(key(0), WEB), ours.issuers()), None),
        (answer(ours.leaf(key(1), WEB), ours.issuers()), Some("another key")),
        (
            answer(ours.leaf(key(0), "spiffe://cluster.local/ns/shop/sa/thief"), ours.issuers()),
            Some("sa/thief"),
        ),
        (answer(theirs.leaf(key(0), WEB), ours.issuers()), Some("chain")),
        (answer(theirs.leaf(key(0), WEB), theirs.issuers()), Some("other roots")),
        (answer("-----BEGIN".into(), ours.issuers()), Some("no certificate")),
        (answer(ours.leaf(key(0), WEB), no_roots), Some("roots")),
    ];
    for (answer, expected) in &cases {
        let checked = check(std::slice::from_ref(answer), &pool, Some(&ours.root));
        let wrong: Vec<_> = checked.wrong.keys().collect();
        match expected {
            None => assert_eq!(wrong, Vec::<&String>::new()),
            Some(text) => assert!(wrong.len() == 1 && wrong[0].contains(text), "{wrong:?} has no {text:?}"),
        }
    }
    let all: Vec<_> = cases.iter().map(|(answer, _)| answer.clone()).collect();
    let checked = check(&all, &pool, None);
    assert_eq!(checked.answers, cases.len());
    // Without roots to compare with, those of `theirs` are as good as any.
    assert_eq!(checked.wrong.values().sum::<usize>(), cases.len() - 2, "{:?}", checked.wrong);
}

#[test]
fn tokens_say_who_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    std::fs::write(&path, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let key = TokenKey::read(&path, "issuer", "istio-ca", "cluster.local").unwrap();
    let minted = Credentials::minted(&key, 3, "shop", Some("east")).unwrap();
    let identities: Vec<_> = minted.0.iter().map(|caller| caller.identity.as_deref()).collect();
    let expected = [0, 1, 2].map(|n| format!("spiffe://cluster.local/ns/shop/sa/load-{n}"));
    assert_eq!(identities, expected.each_ref().map(|text| Some(text.as_str())));
    assert_eq!(minted.get(4).account(), Some(("shop", "load-1")));

    // The same tokens from a file are understood as the same callers.
    let lines: Vec<_> =
        minted.0.iter().map(|caller| caller.metadata[0].1.strip_prefix("Bearer ").unwrap()).collect();
    let file = dir.path().join("tokens");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let read = Credentials::tokens(&file, "cluster.local", Some("east")).unwrap();
    let facts = |c: &Credentials| {
        c.0.iter().map(|caller| (caller.identity.clone(), caller.metadata.clone())).collect::<Vec<_>>()
    };
    assert_eq!(facts(&read), facts(&minted));
    assert_eq!(minted.0[0].metadata[1], ("clusterid".to_owned(), "east".to_owned()));

    std::fs::write(&path, "no key").unwrap();
    let error = TokenKey::read(&path, "issuer", "istio-ca", "cluster.local").unwrap_err();
    assert!(error.to_string().contains("P-256"), "{error}");
}

#[test]
fn latencies_are_summed_up() {
    let mut recorder = Recorder::default();
    (1..=100).for_each(|ms| recorder.record(Duration::from_millis(ms)));
    let latencies = recorder.latencies();
    assert_eq!(latencies.count, 100);
    let near = |value: f64, expected: f64| (value - expected).abs() < expected / 100.0;
    assert!(near(latencies.p50_ms, 50.0) && near(latencies.p99_ms, 99.0), "{latencies:?}");
    assert!(near(latencies.max_ms, 100.0), "{latencies:?}");
}
