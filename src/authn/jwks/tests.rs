mod issuer;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex as SyncMutex;
use prometheus_client::registry::Registry;
use serde_json::json;

use self::issuer::{Issuer, Says, Signer};
use super::source::MAX_BYTES;
use super::*;
use crate::authn::dev_issuer::{DevIssuer, Subject};
use crate::authn::jwt::inspect;
use crate::authn::{Authenticator, PeerCertificate, metrics::AuthnMetrics};

fn mk_issuer() -> (tempfile::TempDir, DevIssuer) {
    let dir = tempfile::tempdir().unwrap();
    let issuer = DevIssuer::load_or_create(dir.path()).unwrap();
    (dir, issuer)
}

fn mk_token(issuer: &DevIssuer) -> String {
    let subject = Subject { namespace: "a", service_account: "b", cluster_id: None };
    issuer
        .mint(&subject, &["x".to_owned()], Duration::from_secs(60), time::OffsetDateTime::now_utc())
        .unwrap()
}

async fn verify(jwks: &Jwks, issuer: &DevIssuer) -> Result<(), TokenError> {
    jwks.verify(&inspect(&mk_token(issuer)).unwrap()).await.map(|keys| assert!(jwks.are(&keys)))
}

#[tokio::test]
async fn keys_of_a_file_are_read_when_needed_and_after_a_rotation() {
    let ((_old_dir, old), (_new_dir, new)) = (mk_issuer(), mk_issuer());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let jwks = Jwks::from_source(path.display().to_string().parse().unwrap(), Fetching::default()).unwrap();
    let error = verify(&jwks, &old).await.unwrap_err().to_string();
    assert!(error.contains("not available") && error.contains("jwks.json"), "{error}");

    std::fs::write(&path, old.jwks()).unwrap();
    jwks.refresh(Instant::now(), |_| Duration::ZERO).await.unwrap();
    verify(&jwks, &old).await.unwrap();

    std::fs::write(&path, new.jwks()).unwrap();
    assert!(matches!(verify(&jwks, &new).await, Err(TokenError::UnknownKey { .. })), "asked a moment ago");
    tokio::time::sleep(MIN_GAP).await;
    verify(&jwks, &new).await.unwrap();
    assert!(matches!(verify(&jwks, &old).await, Err(TokenError::UnknownKey { .. })));

    std::fs::write(&path, "garbage").unwrap();
    jwks.refresh(Instant::now(), |_| Duration::ZERO).await.unwrap_err();
    verify(&jwks, &new).await.unwrap();
}

#[tokio::test]
async fn keys_of_a_url_are_fetched_once_for_many_and_survive_a_bad_server() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (_dir, issuer) = mk_issuer();
    let requests = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(SyncMutex::new((StatusCode::OK, issuer.jwks())));
    let handler = {
        let (requests, answer) = (requests.clone(), answer.clone());
        move || async move {
            requests.fetch_add(1, Ordering::SeqCst);
            answer.lock().clone()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let server = axum::serve(listener, Router::new().route("/jwks", get(handler))).into_future();
    let story = async {
        let jwks = Jwks::from_source(url.parse().unwrap(), Fetching::default()).unwrap();
        let all = (0..20).map(|_| verify(&jwks, &issuer));
        assert!(futures::future::join_all(all).await.into_iter().all(|outcome| outcome.is_ok()));
        assert_eq!(requests.load(Ordering::SeqCst), 1);

        for (status, body, expected) in [
            (StatusCode::INTERNAL_SERVER_ERROR, issuer.jwks(), "500"),
            (StatusCode::OK, "<html>".to_owned(), "not JSON"),
            (StatusCode::OK, "x".repeat(MAX_BYTES + 1), "more than 1 MiB"),
        ] {
            *answer.lock() = (status, body);
            jwks.refresh(Instant::now(), |_| Duration::ZERO).await.unwrap_err();
            let error = jwks.attempts.lock().await.last_error.clone();
            assert!(error.contains(expected), "{error}");
            verify(&jwks, &issuer).await.unwrap();
        }

        // Tokens with unknown keys cannot make us hammer the issuer.
        let (_other_dir, other) = mk_issuer();
        let before = requests.load(Ordering::SeqCst);
        for _ in 0..10 {
            verify(&jwks, &other).await.unwrap_err();
        }
        assert_eq!(requests.load(Ordering::SeqCst), before, "the back-off is on");
    };
    tokio::select! {
        _ = server => unreachable!(),
        () = story => {}
    }
}

#[test]
fn the_back_off_grows_to_a_minute() {
    let seconds: Vec<u64> = [1, 2, 3, 6, 7, 100, u32::MAX].map(|n| back_off(n).as_secs()).to_vec();
    assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
}

/// What trusts an issuer's authority.
struct Trust {
    _dir: tempfile::TempDir,
    fetching: Fetching,
    metrics: Registry,
}

impl Trust {
    fn of(issuer: &Issuer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &issuer.authority).unwrap();
        let mut metrics = Registry::default();
        let fetching = Fetching { ca_file: Some(ca_file), metrics: AuthnMetrics::register(&mut metrics) };
        Self { _dir: dir, fetching, metrics }
    }

    fn keys(&self, source: Source) -> Jwks {
        Jwks::from_source(source, self.fetching.clone()).unwrap()
    }

    fn discovery(&self, issuer: &Issuer) -> Jwks {
        self.keys(Source::discovery(&issuer.name).unwrap())
    }
}

/// Reads the source now, whatever was tried before; the error as it is logged.
async fn refresh(jwks: &Jwks) -> Result<(), String> {
    match jwks.refresh(Instant::now(), |_| Duration::ZERO).await {
        Ok(()) => Ok(()),
        Err(_) => Err(jwks.attempts.lock().await.last_error.clone()),
    }
}

async fn check(jwks: &Jwks, token: &str) -> Result<(), TokenError> {
    jwks.verify(&inspect(token).unwrap()).await.map(drop)
}

#[tokio::test]
async fn an_issuer_is_found_by_discovery_over_tls() {
    let signer = Signer::new("1");
    let issuer = Issuer::start(&signer).await;
    let trust = Trust::of(&issuer);
    let audiences = Some(vec!["istio-ca".to_owned(), "mesh".to_owned()]);
    let authenticator = Authenticator::new("cluster.local", vec!["other".to_owned()]).with_issuer(
        &issuer.name,
        audiences,
        trust.discovery(&issuer),
    );
    let ask = async |change: serde_json::Value| {
        let mut claims = issuer.claims();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", signer.sign(&claims)).parse().unwrap());
        let peer = authenticator.authenticate(&PeerCertificate::default(), None, &headers).await;
        peer.map(|peer| peer.identity.unwrap().to_string()).map_err(|error| error.to_string())
    };
    for good in [json!({}), json!({ "aud": "mesh" }), json!({ "aud": ["x", "mesh"] })] {
        assert_eq!(ask(good).await.unwrap(), "spiffe://cluster.local/ns/a/sa/b");
    }
    for (bad, reason) in [
        (json!({ "aud": ["other"] }), "audience other does not include istio-ca, mesh"),
        (json!({ "sub": "system:node:a" }), "not a service account"),
        (json!({ "sub": "system:serviceaccount:a" }), "not a service account"),
        (json!({ "exp": 1 }), "expired"),
        (json!({ "iss": format!("{}/", issuer.name) }), "is not accepted, expected https://127.0.0.1"),
    ] {
        let said = ask(bad.clone()).await.unwrap_err();
        assert!(said.contains(reason), "{bad}: {said}");
    }
    assert_eq!(issuer.requests(), 2, "its document and its keys, once");
}

#[tokio::test]
async fn a_rotation_is_followed_and_an_outage_changes_nothing() {
    let [old, new] = ["1", "2"].map(Signer::new);
    let issuer = Issuer::start(&old).await;
    let trust = Trust::of(&issuer);
    let jwks = trust.discovery(&issuer);
    issuer.away(true);
    let said = check(&jwks, &old.sign(&issuer.claims())).await.unwrap_err().to_string();
    for part in ["not available", &issuer.name, "openid-configuration", "tried again"] {
        assert!(said.contains(part), "{said}");
    }
    issuer.away(false);
    refresh(&jwks).await.unwrap();
    let (of_old, of_new) = (old.sign(&issuer.claims()), new.sign(&issuer.claims()));
    check(&jwks, &of_old).await.unwrap();

    // Both for a while, as issuers do; found because a token has a key that is not known.
    issuer.says(Says::Text(issuer::jwks(&[&old, &new])));
    tokio::time::sleep(MIN_GAP).await;
    check(&jwks, &of_new).await.unwrap();
    check(&jwks, &of_old).await.unwrap();

    issuer.away(true);
    refresh(&jwks).await.unwrap_err();
    check(&jwks, &of_new).await.unwrap();
    issuer.away(false);
    issuer.says(Says::Text(issuer::jwks(&[&new])));
    refresh(&jwks).await.unwrap();
    check(&jwks, &of_new).await.unwrap();
    assert!(matches!(check(&jwks, &of_old).await, Err(TokenError::UnknownKey { .. })));

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &trust.metrics).unwrap();
    for line in [
        "pilot_jwks_resolver_network_fetch_success_total 3",
        "pilot_jwks_resolver_network_fetch_fail_total 2",
        "landbridge_token_issuer_keys_read_timestamp_seconds{source=\"https://127.0.0.1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn hostile_answers_are_named_and_the_keys_before_them_stay() {
    let signer = Signer::new("1");
    let issuer = Issuer::start(&signer).await;
    let trust = Trust::of(&issuer);
    let jwks = trust.discovery(&issuer);
    let token = signer.sign(&issuer.claims());
    check(&jwks, &token).await.unwrap();
    let good = Says::Text(issuer::jwks(&[&signer]));
    let text = |text: &str| Says::Text(text.to_owned());
    let deep = "[".repeat(100_000);
    let plain = format!(r#"{{"issuer": "{0}", "jwks_uri": "{1}"}}"#, issuer.name, "http://127.0.0.1:1/keys");
    let answers = [
        (Says::Status(500), "500"),
        (Says::Endless, "more than 1 MiB"),
        (Says::Drip, "timed out"),
        (text("<html>"), "not JSON"),
        (text(&deep), "not JSON: recursion limit"),
        (text(r#"{"keys": []}"#), "none of its 0 keys"),
        (Says::Redirect("http://127.0.0.1:1/keys".to_owned()), "redirect"),
        (Says::Redirect("/keys".to_owned()), "redirect"),
    ];
    for (answer, reason) in answers {
        issuer.says(answer);
        let said = refresh(&jwks).await.unwrap_err();
        assert!(said.contains(reason) && !said.contains("hush"), "{reason}: {said}");
        check(&jwks, &token).await.unwrap();
    }
    issuer.says(good);
    for (answer, reason) in [
        (Says::Status(404), "404"),
        (Says::Endless, "more than 1 MiB"),
        (text("<html>"), "no OpenID configuration"),
        (text(&deep), "no OpenID configuration"),
        (
            text(r#"{"issuer": "https://other.example", "jwks_uri": "https://other.example"}"#),
            "is of issuer `https://other.example`",
        ),
        (text(&plain), "is not encrypted"),
    ] {
        let before = issuer.documents(answer);
        let said = refresh(&jwks).await.unwrap_err();
        assert!(
            said.contains(reason) && said.contains("/.well-known/openid-configuration: "),
            "{reason}: {said}"
        );
        check(&jwks, &token).await.unwrap();
        issuer.documents(before);
    }
    refresh(&jwks).await.unwrap();
}

#[tokio::test]
async fn strangers_cannot_make_us_ask_again_and_again() {
    let (signer, stranger) = (Signer::new("1"), Signer::new("2"));
    let issuer = Issuer::start(&signer).await;
    let trust = Trust::of(&issuer);
    let jwks = trust.keys(format!("{}/keys", issuer.name).parse().unwrap());
    let began = Instant::now();
    refresh(&jwks).await.unwrap();
    let token = stranger.sign(&issuer.claims());
    while began.elapsed() < MIN_GAP * 3 / 2 {
        // Half of them do not wait for the answer.
        let _ = tokio::time::timeout(Duration::from_millis(1), check(&jwks, &token)).await;
        let said = check(&jwks, &token).await.unwrap_err();
        assert!(matches!(said, TokenError::UnknownKey { .. }), "{said}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let bound = 1 + began.elapsed().as_millis() / MIN_GAP.as_millis();
    let requests = issuer.requests() as u128;
    assert!((1..=bound).contains(&requests), "{requests} requests in {:?}", began.elapsed());
}

#[tokio::test]
async fn an_authority_that_is_not_ours_is_named_and_a_new_one_taken_over() {
    let signer = Signer::new("1");
    let (issuer, other) = (Issuer::start(&signer).await, Issuer::start(&signer).await);
    let trust = Trust::of(&other);
    let jwks = trust.discovery(&issuer);
    let path = trust.fetching.ca_file.clone().unwrap();
    let said = refresh(&jwks).await.unwrap_err();
    assert!(said.contains(&format!("{} has other authorities", path.display())), "{said}");
    std::fs::write(&path, "half a fi").unwrap();
    let said = refresh(&jwks).await.unwrap_err();
    assert!(said.contains("--jwks-ca-file") && said.contains("no PEM certificate"), "{said}");
    std::fs::write(&path, &issuer.authority).unwrap();
    refresh(&jwks).await.unwrap();
    check(&jwks, &signer.sign(&issuer.claims())).await.unwrap();
}
