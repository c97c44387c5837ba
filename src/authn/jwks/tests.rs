use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex as SyncMutex;

use super::*;
use crate::authn::dev_issuer::{DevIssuer, Subject};
use crate::authn::jwt::inspect;

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
    let jwks = Jwks::from_source(path.display().to_string().parse().unwrap()).unwrap();
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
        let jwks = Jwks::from_source(url.parse().unwrap()).unwrap();
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

#[test]
fn a_source_is_a_file_or_a_url() {
    assert_eq!("/a/b".parse(), Ok(Source::File("/a/b".into())));
    assert_eq!("https://a/b".parse(), Ok(Source::Url("https://a/b".into())));
    assert!("ftp://a".parse::<Source>().is_err());
    assert!("".parse::<Source>().is_err());
}
