use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::authn::dev_issuer::{DevIssuer, ISSUER, Subject};

const NOW: i64 = 1_800_000_000;

fn mk_issuer() -> (tempfile::TempDir, DevIssuer, KeySet) {
    let dir = tempfile::tempdir().unwrap();
    let issuer = DevIssuer::load_or_create(dir.path()).unwrap();
    let keys = KeySet::parse(issuer.jwks().as_bytes()).unwrap();
    (dir, issuer, keys)
}

fn mk_token(issuer: &DevIssuer) -> String {
    let subject = Subject { namespace: "a", service_account: "b", cluster_id: Some("east") };
    let now = time::OffsetDateTime::from_unix_timestamp(NOW).unwrap();
    issuer.mint(&subject, &["istio-ca".to_owned()], std::time::Duration::from_secs(3600), now).unwrap()
}

/// A token that nobody signed.
fn unsigned(header: Value, claims: Value) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", encode(header), encode(claims), URL_SAFE_NO_PAD.encode("no signature"))
}

fn claims(change: Value) -> String {
    let mut claims = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:a:b", "aud": ["istio-ca"], "exp": NOW + 600, "nbf": NOW,
    });
    for (key, value) in change.as_object().unwrap() {
        claims[key] = value.clone();
    }
    unsigned(json!({ "alg": "ES256" }), claims)
}

fn check(token: &str) -> Result<(String, String), TokenError> {
    let audiences = ["istio-ca".to_owned(), "other".to_owned()];
    let token = inspect(token)?;
    let account = check_claims(&token, &Expected { audiences: &audiences, now: NOW })?;
    Ok((account.namespace.to_owned(), account.name.to_owned()))
}

#[test]
fn a_minted_token_is_good() {
    let (_dir, issuer, keys) = mk_issuer();
    let text = mk_token(&issuer);
    let token = inspect(&text).unwrap();
    keys.verify(&token).unwrap();
    assert_eq!(token.issuer.as_deref(), Some(ISSUER));
    assert_eq!(token.cluster_id.as_deref(), Some("east"));
    assert_eq!(check(&text), Ok(("a".to_owned(), "b".to_owned())));
}

#[test]
fn each_claim_that_does_not_fit_is_named() {
    for (change, expected) in [
        (json!({ "exp": NOW - 61 }), "expired 61 s ago"),
        (json!({ "exp": null }), "no `exp`"),
        (json!({ "exp": "tomorrow" }), "not base64url JSON of the standard types"),
        (json!({ "nbf": NOW + 61 }), "valid only in 61 s"),
        (
            json!({ "aud": "https://kubernetes.default.svc" }),
            "audience https://kubernetes.default.svc does not include istio-ca, other",
        ),
        (json!({ "aud": [] }), "audience (none)"),
        (json!({ "aud": null }), "audience (none)"),
        (json!({ "sub": "system:serviceaccount:a" }), "`system:serviceaccount:a`, expected"),
        (json!({ "sub": "system:serviceaccount::b" }), "not a service account"),
        (json!({ "sub": "system:serviceaccount:a:b:c" }), "not a service account"),
        (json!({ "sub": "admin" }), "`admin`"),
        (json!({ "sub": null }), "not a service account"),
    ] {
        let error = check(&claims(change.clone())).unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[test]
fn clocks_may_be_a_minute_apart_and_an_audience_may_be_one_string() {
    for change in [
        json!({ "exp": NOW - 60 }),
        json!({ "nbf": NOW + 60 }),
        json!({ "aud": "other" }),
        json!({ "exp": NOW as f64 + 0.5 }),
    ] {
        assert!(check(&claims(change.clone())).is_ok(), "{change}");
    }
}

#[test]
fn what_is_no_token_says_so() {
    let good = claims(json!({}));
    let long = "a.".repeat(MAX_BYTES);
    for (text, expected) in [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        ("a.b.c", "header"),
        (&*format!("{}.!!.c", good.split('.').next().unwrap()), "claims"),
        (&long, "longer than 16 KiB"),
    ] {
        let error = inspect(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:.40}: {error}");
    }
    let critical = unsigned(json!({ "alg": "ES256", "crit": ["b64"], "b64": false }), json!({}));
    assert!(inspect(&critical).unwrap_err().to_string().contains("crit"));
}

#[test]
fn only_public_key_signatures_are_accepted() {
    for algorithm in ["none", "None", "HS256", "HS384", "HS512", "ES512", "", "es256"] {
        let error = inspect(&unsigned(json!({ "alg": algorithm }), json!({}))).unwrap_err().to_string();
        assert!(error.contains(&format!("`{algorithm}` is not accepted")), "{error}");
    }
    let hostile = "x\n".repeat(5000);
    let error = inspect(&unsigned(json!({ "alg": hostile }), json!({}))).unwrap_err().to_string();
    assert!(error.len() < 500 && !error.contains('\n'), "{error}");
}

#[test]
fn a_signature_is_the_issuers_or_it_is_refused() {
    let (_dir, issuer, keys) = mk_issuer();
    let (_other_dir, other, other_keys) = mk_issuer();
    let text = mk_token(&issuer);
    let verify = |keys: &KeySet, text: &str| keys.verify(&inspect(text).unwrap());

    assert!(matches!(verify(&other_keys, &text), Err(TokenError::UnknownKey { .. })));

    // The other issuer's key under this issuer's name.
    let renamed = other.jwks().replace(&key_id(&other), &key_id(&issuer));
    assert_eq!(verify(&KeySet::parse(renamed.as_bytes()).unwrap(), &text), Err(TokenError::Signature));

    // Claims changed after signing.
    let parts: Vec<&str> = text.split('.').collect();
    let forged =
        String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap().replace(":a:b", ":a:c");
    let forged = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(forged), parts[2]);
    assert_eq!(verify(&keys, &forged), Err(TokenError::Signature));

    // No key id: every key of the kind is tried.
    let without = json!({ "alg": "ES256" });
    let unnamed = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(without.to_string()), parts[1], parts[2]);
    assert_eq!(verify(&keys, &unnamed), Err(TokenError::Signature));
}

/// The public key of an issuer is known to all: a token "signed" with it as a shared secret must not pass.
#[test]
fn a_shared_secret_is_never_a_key() {
    let secret = EncodingKey::from_secret(b"public key bytes");
    let text = jsonwebtoken::encode(&Header::default(), &json!({ "iss": ISSUER }), &secret).unwrap();
    assert!(matches!(inspect(&text), Err(TokenError::Algorithm(_))));
    let set = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode("x"), "kid": "1" }] });
    assert!(KeySet::parse(set.to_string().as_bytes()).unwrap_err().contains("none of its 1 keys"));
}

/// Kubernetes signs with RSA; its key set as `kubectl get --raw /openid/v1/jwks` gives it.
#[test]
fn rsa_tokens_as_kubernetes_makes_them() {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
    use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let set = json!({ "keys": [
        { "kty": "RSA", "use": "enc", "kid": "k", "n": "AQAB", "e": "AQAB" },
        { "kty": "future", "kid": "z" },
        { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k",
          "n": URL_SAFE_NO_PAD.encode(parts.n), "e": URL_SAFE_NO_PAD.encode(parts.e) },
    ]});
    let keys = KeySet::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 1, "keys of other kinds are passed over");
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let private = crate::pem::encode("PRIVATE KEY", der.as_ref());
    let signing = EncodingKey::from_rsa_pem(private.as_bytes()).unwrap();
    for (algorithm, is_good) in
        [(Algorithm::RS256, true), (Algorithm::RS512, false), (Algorithm::PS256, false)]
    {
        let mut header = Header::new(algorithm);
        header.kid = Some("k".to_owned());
        let text = jsonwebtoken::encode(&header, &json!({ "sub": "x" }), &signing).unwrap();
        assert_eq!(
            keys.verify(&inspect(&text).unwrap()).is_ok(),
            is_good,
            "{algorithm:?}: the key says RS256"
        );
    }
}

#[test]
fn a_key_set_that_is_none_says_why() {
    for (text, expected) in
        [("", "not JSON"), ("[]", "no list `keys`"), ("{\"keys\": []}", "none of its 0 keys")]
    {
        assert!(KeySet::parse(text.as_bytes()).unwrap_err().contains(expected), "{text}");
    }
}

fn key_id(issuer: &DevIssuer) -> String {
    let set: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    set["keys"][0]["kid"].as_str().unwrap().to_owned()
}

proptest! {
    #[test]
    fn garbage_never_panics(text in ".{0,400}", a in "[A-Za-z0-9_-]{0,80}", b in "[A-Za-z0-9_-]{0,80}", json in ".{0,80}") {
        let _ = inspect(&text);
        let _ = inspect(&format!("{a}.{b}.{a}"));
        let _ = inspect(&format!("{}.{}.x", URL_SAFE_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(&json)));
        let _ = KeySet::parse(json.as_bytes());
    }

    #[test]
    fn strange_times_never_panic(exp in any::<i64>(), nbf in any::<i64>(), now in any::<i64>()) {
        let text = claims(json!({ "exp": exp, "nbf": nbf }));
        let audiences = ["istio-ca".to_owned()];
        let _ = check_claims(&inspect(&text).unwrap(), &Expected { audiences: &audiences, now });
    }
}
