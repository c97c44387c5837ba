use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use tonic::Status;

use super::*;
use dev_issuer::{DevIssuer, Subject};

fn mk_authenticator() -> (tempfile::TempDir, DevIssuer, Authenticator) {
    let dir = tempfile::tempdir().unwrap();
    let issuer = DevIssuer::load_or_create(dir.path()).unwrap();
    let authenticator =
        Authenticator::new("cluster.local", vec!["istio-ca".to_owned()]).with_dev_issuer(&issuer);
    (dir, issuer, authenticator)
}

fn mk_token(issuer: &DevIssuer, audience: &str, cluster_id: Option<&str>) -> String {
    let subject = Subject { namespace: "a", service_account: "b", cluster_id };
    let audiences = [audience.to_owned()];
    issuer.mint(&subject, &audiences, Duration::from_secs(60), OffsetDateTime::now_utc()).unwrap()
}

fn mk_metadata(values: &[(&'static str, String)]) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (key, value) in values {
        metadata.append(*key, value.parse().unwrap());
    }
    metadata
}

pub fn mk_keys() -> Arc<jwt::KeySet> {
    let dir = tempfile::tempdir().unwrap();
    let issuer = DevIssuer::load_or_create(dir.path()).unwrap();
    Arc::new(jwt::KeySet::parse(issuer.jwks().as_bytes()).unwrap())
}

fn nobody() -> PeerCertificate {
    PeerCertificate::default()
}

fn mk_cert(uris: &[&str]) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

const SVID: &str = "spiffe://cluster.local/ns/a/sa/b";

#[tokio::test]
async fn a_token_proves_a_service_account() {
    let (_dir, issuer, authenticator) = mk_authenticator();
    for scheme in ["Bearer", "bearer"] {
        let token = mk_token(&issuer, "istio-ca", Some("east"));
        let metadata = mk_metadata(&[("authorization", format!("{scheme} {token}"))]);
        let peer = authenticator.authenticate(&nobody(), None, &metadata).await.unwrap();
        assert_eq!(peer.identity.unwrap().to_string(), SVID);
        assert_eq!((peer.method, peer.cluster_id.as_deref()), (Method::Token, Some("east")));
    }
}

#[tokio::test]
async fn a_client_certificate_comes_before_a_token() {
    let (_dir, _issuer, authenticator) = mk_authenticator();
    let metadata = mk_metadata(&[("authorization", "Bearer nonsense".to_owned())]);
    let peer = authenticator
        .authenticate(&PeerCertificate::new(&[mk_cert(&[SVID])]), None, &metadata)
        .await
        .unwrap();
    assert_eq!(peer.identity.unwrap().to_string(), SVID);
    assert_eq!(peer.method, Method::ClientCertificate);
}

#[tokio::test]
async fn a_token_helps_where_the_certificate_does_not() {
    let (_dir, issuer, authenticator) = mk_authenticator();
    let token = mk_token(&issuer, "istio-ca", None);
    let metadata = mk_metadata(&[("authorization", format!("Bearer {token}"))]);
    let peer =
        authenticator.authenticate(&PeerCertificate::new(&[mk_cert(&[])]), None, &metadata).await.unwrap();
    assert_eq!(peer.method, Method::Token);
}

#[tokio::test]
async fn every_refusal_has_a_reason_and_no_secret() {
    let (_dir, issuer, authenticator) = mk_authenticator();
    let (_other_dir, other, _) = mk_authenticator();
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let good = mk_token(&issuer, "istio-ca", Some("east"));
    let foreign = mk_token(&other, "istio-ca", None);
    let elsewhere = mk_token(&issuer, "elsewhere", None);
    let mut in_west = bearer(&good);
    in_west.push((CLUSTER_METADATA, "west".to_owned()));
    let mut twice = bearer(&good);
    twice.extend(bearer(&good));
    let cases: Vec<(Vec<_>, Option<CertificateDer<'static>>, &str)> = vec![
        (vec![], None, "no credential: send"),
        (vec![("authorization", "Basic abc".to_owned())], None, "not one `Bearer TOKEN`"),
        (vec![("authorization", "Bearer ".to_owned())], None, "not one `Bearer TOKEN`"),
        (twice, None, "not one `Bearer TOKEN`"),
        (bearer("abc"), None, "not a JSON Web Token"),
        (bearer(&foreign), None, "has no ES256 key"),
        (bearer(&elsewhere), None, "audience elsewhere does not include istio-ca"),
        (in_west, None, "for cluster `east`, and the caller says that it is in `west`"),
        (vec![], Some(mk_cert(&[])), "it has 0 URI names"),
        (vec![], Some(mk_cert(&[SVID, SVID])), "it has 2 URI names"),
        (vec![], Some(mk_cert(&["spiffe://other.org/ns/a/sa/b"])), "is not of trust domain `cluster.local`"),
        (vec![], Some(mk_cert(&["https://cluster.local/ns/a/sa/b"])), "is not a workload identity"),
        (
            bearer("abc"),
            Some(mk_cert(&[])),
            "URI names, and a workload's certificate has exactly one, its SPIFFE id; token refused: ",
        ),
    ];
    for (metadata, cert, expected) in cases {
        let peer = PeerCertificate::new(cert.as_slice());
        let error = authenticator.authenticate(&peer, None, &mk_metadata(&metadata)).await.unwrap_err();
        let status = Status::from(error);
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert!(status.message().contains(expected), "{expected}: {}", status.message());
        for token in [&good, &foreign, &elsewhere] {
            assert!(!status.message().contains(token.rsplit('.').next().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_token_is_verified_once_and_believed_until_it_ends() {
    let (_dir, issuer, authenticator) = mk_authenticator();
    let ask = async |token: &str, cluster: &str| {
        let bearer = ("authorization", format!("Bearer {token}"));
        let metadata = mk_metadata(&[bearer, (CLUSTER_METADATA, cluster.to_owned())]);
        authenticator
            .authenticate(&nobody(), None, &metadata)
            .await
            .map(|peer| peer.identity.unwrap().to_string())
    };
    let token = mk_token(&issuer, "istio-ca", Some("east"));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for bad in ["nonsense", &format!("{token}x")] {
        assert!(ask(bad, "east").await.is_err());
        assert!(
            authenticator.verified.get(&Verified::hash(bad), now).is_none(),
            "only good ones are remembered"
        );
    }
    assert_eq!(ask(&token, "east").await.unwrap(), SVID);
    let known = authenticator.verified.get(&Verified::hash(&token), now).unwrap();
    assert_eq!((known.identity.to_string().as_str(), known.cluster_id.as_deref()), (SVID, Some("east")));
    assert!((now + 60..now + 130).contains(&known.good_until), "its own end and the leeway");
    // What is remembered is not verified: this is no token at all.
    authenticator.verified.insert(Verified::hash("remembered"), known.clone());
    assert_eq!(ask("remembered", "east").await.unwrap(), SVID);
    assert!(ask("remembered", "west").await.unwrap_err().to_string().contains("for cluster `east`"));
    let over = Account { good_until: now, ..(*known).clone() };
    authenticator.verified.insert(Verified::hash("remembered"), Arc::new(over));
    assert!(ask("remembered", "east").await.is_err(), "its time is over");
    let foreign = Account { voucher: Voucher::Keys(mk_keys()), ..(*known).clone() };
    authenticator.verified.insert(Verified::hash("remembered"), Arc::new(foreign));
    assert!(ask("remembered", "east").await.is_err(), "the issuer has other keys now");
}

/// Two clusters; the API server of `east` knows every token, that of `west` is away.
#[derive(Debug)]
struct TwoClusters {
    known: parking_lot::Mutex<Vec<String>>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Reviewers for TwoClusters {
    fn own(&self) -> &str {
        "east"
    }

    fn clusters(&self) -> Vec<String> {
        self.known.lock().clone()
    }

    fn ask<'a>(
        &'a self,
        cluster: &'a str,
        review: Vec<u8>,
    ) -> futures::future::BoxFuture<'a, Result<Vec<u8>, String>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let review: serde_json::Value = serde_json::from_slice(&review).unwrap();
        assert_eq!(review["spec"]["audiences"], serde_json::json!(["istio-ca"]));
        let status = serde_json::json!({ "authenticated": true, "audiences": ["istio-ca"], "user": {
            "username": "system:serviceaccount:a:b", "groups": ["system:serviceaccounts"] } });
        let answer = serde_json::json!({ "status": status }).to_string().into_bytes();
        Box::pin(std::future::ready(if cluster == "east" { Ok(answer) } else { Err("timed out".into()) }))
    }
}

#[tokio::test]
async fn other_tokens_are_reviewed_by_the_callers_cluster() {
    let (_dir, issuer, _) = mk_authenticator();
    let known = parking_lot::Mutex::new(vec!["east".to_owned(), "west".to_owned()]);
    let clusters = Arc::new(TwoClusters { known, asked: Default::default() });
    let authenticator = Authenticator::new("cluster.local", vec!["istio-ca".to_owned()]);
    let authenticator = authenticator.with_reviewers(clusters.clone());
    let ask = async |token: &str, cluster: &str| {
        let bearer = ("authorization", format!("Bearer {token}"));
        let metadata = mk_metadata(&[bearer, (CLUSTER_METADATA, cluster.to_owned())]);
        authenticator.authenticate(&nobody(), None, &metadata).await.map_err(|error| error.to_string())
    };
    let token = mk_token(&issuer, "istio-ca", None);
    for claimed in ["east", ""] {
        let peer = ask(&token, claimed).await.unwrap();
        assert_eq!(peer.identity.unwrap().to_string(), SVID);
        assert_eq!(peer.cluster_id.as_deref(), Some("east"));
    }
    let asked = || clusters.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked(), 1, "a review is believed for a while");
    let other = mk_token(&issuer, "other", None);
    for (token, claimed, reason) in [
        (&token, "west", "it is for cluster `east`"),
        (&other, "west", "the API server of cluster `west` did not review it: timed out"),
        (&other, "wset", "`wset`, which is not registered here (east, west); `west` is;"),
    ] {
        let said = ask(token, claimed).await.unwrap_err();
        assert!(said.contains(reason), "{said}");
    }
    // A cluster that is not registered any more vouches for nobody.
    clusters.known.lock().retain(|cluster| cluster != "east");
    assert!(ask(&token, "").await.unwrap_err().contains("`east`, which is not registered"));
    clusters.known.lock().push("east".to_owned());
    assert!(ask(&token, "").await.is_ok());
}

/// The same name for an issuer of ours and of a cluster: either may vouch.
#[tokio::test]
async fn a_token_that_its_issuer_refuses_is_reviewed() {
    let (_dir, issuer, _) = mk_authenticator();
    let known = parking_lot::Mutex::new(vec!["east".to_owned(), "west".to_owned()]);
    let clusters = Arc::new(TwoClusters { known, asked: Default::default() });
    let keys = || jwks::Jwks::fixed(jwt::KeySet::parse(issuer.jwks().as_bytes()).unwrap());
    let (other, _other_dir) = {
        let (dir, other, _) = mk_authenticator();
        (jwks::Jwks::fixed(jwt::KeySet::parse(other.jwks().as_bytes()).unwrap()), dir)
    };
    let authenticator = Authenticator::new("cluster.local", vec!["istio-ca".to_owned()])
        .with_issuer(dev_issuer::ISSUER, None, other)
        .with_issuer(dev_issuer::ISSUER, Some(vec!["mesh".to_owned()]), keys())
        .with_reviewers(clusters.clone());
    let ask = async |audience: &str, cluster: &str| {
        let bearer = ("authorization", format!("Bearer {}", mk_token(&issuer, audience, None)));
        let metadata = mk_metadata(&[bearer, (CLUSTER_METADATA, cluster.to_owned())]);
        let peer = authenticator.authenticate(&nobody(), None, &metadata).await;
        peer.map(|peer| peer.cluster_id).map_err(|error| error.to_string())
    };
    assert_eq!(ask("mesh", "east").await, Ok(None), "the second of the name vouches");
    assert_eq!(ask("istio-ca", "east").await, Ok(Some("east".to_owned())), "the API server vouches");
    let said = ask("istio-ca", "west").await.unwrap_err();
    for part in
        ["audience istio-ca does not include mesh", "; and the API server of cluster `west` did not review"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn a_trusted_gateways_word_counts_after_all_else() {
    let (_dir, issuer, authenticator) = mk_authenticator();
    let networks = vec!["10.1.0.0/16".parse().unwrap()];
    let strict = mk_authenticator().2;
    let authenticator = authenticator.with_trusted_gateways(gateways::TrustedGateways::new(networks));
    let forwarded = (gateways::HEADER, "By=x;URI=spiffe://cluster.local/ns/a/sa/forwarded".to_owned());
    let ask = async |authenticator: &Authenticator, from: &str, more: &[(&'static str, String)]| {
        let metadata = mk_metadata(&[std::slice::from_ref(&forwarded), more].concat());
        let peer = authenticator.authenticate(&nobody(), from.parse().ok(), &metadata).await;
        peer.map(|peer| (peer.identity.unwrap().to_string(), peer.method)).map_err(|error| error.to_string())
    };
    let by_word = ("spiffe://cluster.local/ns/a/sa/forwarded".to_owned(), Method::Forwarded);
    assert_eq!(ask(&authenticator, "10.1.0.1", &[]).await.unwrap(), by_word);
    let token = mk_token(&issuer, "istio-ca", None);
    let good = [("authorization", format!("Bearer {token}"))];
    assert_eq!(ask(&authenticator, "10.1.0.1", &good).await.unwrap(), (SVID.to_owned(), Method::Token));
    let bad = [("authorization", "Bearer nonsense".to_owned())];
    assert_eq!(ask(&authenticator, "10.1.0.1", &bad).await.unwrap(), by_word);
    let said = ask(&authenticator, "10.2.0.1", &bad).await.unwrap_err();
    for part in ["not a JSON Web Token", "; `x-forwarded-client-cert` refused: 10.2.0.1 is no gateway"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(ask(&strict, "127.0.0.1", &[]).await.unwrap_err().contains("no credential"), "off by default");
}

#[tokio::test]
async fn without_an_issuer_no_token_is_good() {
    let (_dir, issuer, _) = mk_authenticator();
    let strict = Authenticator::new("cluster.local", vec!["istio-ca".to_owned()]);
    let metadata =
        mk_metadata(&[("authorization", format!("Bearer {}", mk_token(&issuer, "istio-ca", None)))]);
    let error = strict.authenticate(&nobody(), None, &metadata).await.unwrap_err().to_string();
    assert!(error.contains("`landbridge-development-issuer` is not accepted"), "{error}");
    assert!(error.contains("--dev-token-issuer"), "{error}");
}

#[test]
fn a_proxy_can_only_be_what_its_credential_says() {
    let identity: Spiffe = SVID.parse().unwrap();
    for (namespace, service_account, expected) in [
        ("a", "b", None),
        ("", "", None),
        ("a", "", None),
        ("x", "b", Some("NAMESPACE `x`: the node's metadata must name the credential's a")),
        ("a", "x", Some("SERVICE_ACCOUNT `x`")),
    ] {
        let outcome = authorize_node(&identity, namespace, service_account);
        match expected {
            None => assert_eq!(outcome, Ok(())),
            Some(text) => {
                let status = Status::from(outcome.unwrap_err());
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                assert!(status.message().contains(text), "{}", status.message());
            }
        }
    }
}

#[test]
fn a_credential_of_one_cluster_is_good_only_there() {
    let peer =
        Peer { identity: SVID.parse().ok(), method: Method::Token, cluster_id: Some("east".to_owned()) };
    assert!(peer.authorize("a", "b", "east").is_ok());
    assert!(peer.authorize("a", "b", "").is_ok());
    let error = peer.authorize("a", "b", "west").unwrap_err().to_string();
    assert!(error.contains("CLUSTER_ID `west`"), "{error}");
    assert!(Peer::plaintext().authorize("any", "thing", "west").is_ok());
}
