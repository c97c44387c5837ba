use futures::FutureExt;

use super::*;
use crate::ca::testing::{mk_authority, mk_root, mk_watched};
use crate::ca::{cert::Cert, secret as sds};

fn mk_identity(name: &str) -> Spiffe {
    Spiffe::new("cluster.local", "production", name).unwrap()
}

const TTL: Duration = Duration::from_secs(100);

#[tokio::test]
async fn a_workload_gets_its_own_certificate_and_streams_share_it() {
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = SvidStore::new(authority, TTL, Signers::start());
    let first = store.subscribe(&mk_identity("a")).unwrap();
    let again = store.subscribe(&mk_identity("a")).unwrap();
    let other = store.subscribe(&mk_identity("b")).unwrap();
    assert!(Arc::ptr_eq(&first.borrow(), &again.borrow()));
    assert_ne!(first.borrow().chain_pem, other.borrow().chain_pem);
    let chain = Cert::all_from_pem(first.borrow().chain_pem.as_bytes()).unwrap();
    assert_eq!(chain[0].sans, ["URI:spiffe://cluster.local/ns/production/sa/a"]);
    assert_eq!(chain.len(), 2, "leaf and intermediate, no root");
    let key = PrivateKey::from_pem(first.borrow().key_pem.as_bytes()).unwrap();
    assert_eq!(key.public_key_info(), chain[0].public_key_info);
    assert!(format!("{:?}", first.borrow().clone()).ends_with("secret)"));
    assert!(!format!("{store:?}").contains("BEGIN"));
}

#[tokio::test]
async fn it_is_renewed_at_half_life_with_a_new_key() {
    const SHORT: Duration = Duration::from_secs(3);
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = SvidStore::new(authority, SHORT, Signers::start());
    let story = async {
        let mut svid = store.subscribe(&mk_identity("a")).unwrap();
        let first = svid.borrow_and_update().clone();
        let began = Instant::now();
        svid.changed().await.unwrap();
        let part = began.elapsed().as_secs_f64() / SHORT.as_secs_f64();
        // The upper bound leaves room for a busy machine: what counts is that the old one is still good.
        assert!((0.3..0.9).contains(&part), "renewed after {part} of its life");
        assert_ne!(svid.borrow().key_pem, first.key_pem);
        assert!(first.not_after > OffsetDateTime::now_utc());
    };
    tokio::select! { () = store.run() => unreachable!(), () = story => {} }
}

#[tokio::test]
async fn half_lives_are_spread() {
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = SvidStore::new(authority, TTL, Signers::start());
    let svid = store.subscribe(&mk_identity("a")).unwrap().borrow().clone();
    let parts: Vec<f64> = (0..200).map(|_| renew_after(&svid).as_secs_f64() / TTL.as_secs_f64()).collect();
    assert!(parts.iter().all(|part| (0.4..0.56).contains(part)), "{parts:?}");
    let (least, most) = parts.iter().fold((1.0f64, 0.0f64), |(a, b), &part| (a.min(part), b.max(part)));
    assert!(most - least > 0.05, "{least} to {most}");
}

/// Plays a story beside the renewal, which has so many seconds.
async fn while_it_runs(store: &SvidStore, seconds: u64, story: impl Future<Output = ()>) {
    tokio::select! {
        () = store.run() => unreachable!(),
        outcome = tokio::time::timeout(Duration::from_secs(seconds), story) => outcome.expect("renewed at once"),
    }
}

#[tokio::test]
async fn a_new_authority_renews_all_at_once() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let store = SvidStore::new(authority, Duration::from_secs(24 * 3600), Signers::start());
    let story = async {
        let mut svids: Vec<_> =
            (0..40).map(|n| store.subscribe(&mk_identity(&format!("w{n}"))).unwrap()).collect();
        sender.send_replace(mk_authority(&root, "second", time::Duration::days(1)));
        for svid in &mut svids {
            svid.changed().await.unwrap();
            let chain = Cert::all_from_pem(svid.borrow_and_update().chain_pem.as_bytes()).unwrap();
            assert_eq!(chain[1].subject, "O=mesh, CN=second");
        }
    };
    while_it_runs(&store, 20, story).await;
}

#[tokio::test]
async fn an_authority_that_comes_in_the_middle_of_a_renewal_is_the_last_one() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let store = SvidStore::new(authority, Duration::from_secs(24 * 3600), Signers::start());
    let issuer = |svid: &watch::Receiver<Arc<Svid>>| {
        Cert::all_from_pem(svid.borrow().chain_pem.as_bytes()).unwrap()[1].subject.clone()
    };
    let story = async {
        let mut svids: Vec<_> =
            (0..500).map(|n| store.subscribe(&mk_identity(&format!("w{n}"))).unwrap()).collect();
        sender.send_replace(mk_authority(&root, "second", time::Duration::days(1)));
        // What is due first is renewed first, so this one comes among the first.
        futures::future::select_all(svids.iter_mut().map(|svid| Box::pin(svid.changed()))).await.0.unwrap();
        let renewed = svids.iter().filter(|svid| issuer(svid) == "O=mesh, CN=second").count();
        assert!(renewed < 500, "{renewed}");
        sender.send_replace(mk_authority(&root, "third", time::Duration::days(1)));
        for svid in &mut svids {
            svid.wait_for(|svid| svid.authority.signer().subject == "O=mesh, CN=third").await.unwrap();
        }
    };
    while_it_runs(&store, 30, story).await;
}

/// What signs is not under the lock: an authority that was replaced meanwhile has signed what comes after the renewal.
#[tokio::test]
async fn what_an_earlier_authority_signed_is_renewed_although_it_comes_late() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let store = SvidStore::new(authority, Duration::from_secs(24 * 3600), Signers::start());
    let story = async {
        let mut others = store.subscribe(&mk_identity("a")).unwrap();
        let late = Made::new(&mk_identity("late"), &sender.borrow().clone(), store.ttl).unwrap();
        sender.send_replace(mk_authority(&root, "second", time::Duration::days(50)));
        others.changed().await.unwrap();
        // `run` waits again.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut svid = store.add(&mk_identity("late"), late, |entry| entry.sender.subscribe());
        svid.changed().await.unwrap();
        let chain = Cert::all_from_pem(svid.borrow_and_update().chain_pem.as_bytes()).unwrap();
        assert_eq!(chain[1].subject, "O=mesh, CN=second");
    };
    while_it_runs(&store, 20, story).await;
}

#[tokio::test]
async fn a_new_certificate_wakes_the_renewal_only_if_it_is_due_first() {
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = SvidStore::new(authority, TTL, Signers::start());
    let mut wakes = 0;
    for n in 0..200 {
        store.subscribe(&mk_identity(&format!("w{n}"))).unwrap();
        if store.added.notified().now_or_never().is_some() {
            wakes += 1;
            store.next_renewal();
        }
    }
    // Half lives are spread, so the nth is the first one to be due once in n times: 6 of 200.
    assert!((1..40).contains(&wakes), "{wakes}");
    let first = store.entries.lock().values().map(|entry| entry.renew_at).min();
    assert_eq!(*store.wakes_at.lock(), first, "none was missed");
}

#[tokio::test]
async fn new_roots_alone_renew_nothing() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let store = SvidStore::new(authority, Duration::from_secs(24 * 3600), Signers::start());
    let svid = store.subscribe(&mk_identity("a")).unwrap();
    let current = sender.borrow().clone();
    let key = PrivateKey::from_pem(current.key().to_pem().unwrap().as_bytes()).unwrap();
    let roots = vec![root.cert.clone(), mk_root("another").cert];
    let wider =
        Authority::new(key, current.signer().clone(), &[], roots, "wider".into(), OffsetDateTime::now_utc());
    let wider = Arc::new(wider.unwrap());
    let mut roots = store.roots.subscribe();
    let before = roots.borrow_and_update().clone().unwrap();
    store.publish_roots(&current);
    assert!(!roots.has_changed().unwrap(), "the same roots wake nobody");
    store.publish_roots(&wider);
    store.renew_due(&wider).await;
    assert!(!svid.has_changed().unwrap());
    assert!(roots.has_changed().unwrap());
    assert_ne!(roots.borrow().as_ref().unwrap().version, before.version);
}

#[tokio::test]
async fn what_nobody_holds_is_forgotten_but_not_between_two_connections() {
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = Arc::new(SvidStore::new(authority, Duration::from_secs(24 * 3600), Signers::start()));
    let held = store.subscribe(&mk_identity("held")).unwrap();
    let before = store.subscribe(&mk_identity("reconnects")).unwrap().borrow().clone();
    let after = store.subscribe(&mk_identity("reconnects")).unwrap();
    assert!(Arc::ptr_eq(&before, &after.borrow()));
    drop(after);
    assert_eq!(store.len(), 2);
    store.forget_unheld();
    assert_eq!(store.len(), 1);
    let secret = store.secret(&mk_identity("by-its-secret"), sds::CERTIFICATE, None).unwrap();
    store.forget_unheld();
    assert_eq!(store.len(), 2);
    drop(secret);
    assert!(store.secret(&mk_identity("a"), "kubernetes://tls", None).is_none());
    assert_eq!(held.borrow().identity, mk_identity("held"));
}

#[tokio::test]
async fn an_authority_at_its_end_makes_no_busy_loop_and_breaks_nothing() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let store = SvidStore::new(authority, TTL, Signers::start());
    let svid = store.subscribe(&mk_identity("a")).unwrap();
    let before = svid.borrow().clone();
    let dying = mk_authority(&root, "dying", time::Duration::seconds(1));
    while OffsetDateTime::now_utc() < dying.not_after() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sender.send_replace(dying.clone());
    store.renew_due(&dying).await;
    assert!(Arc::ptr_eq(&before, &svid.borrow()), "the old certificate stays");
    let renew_at = store.entries.lock()[&mk_identity("a")].renew_at;
    assert!(renew_at > Instant::now() + RETRY / 2);
    // Again before that time: nothing is tried, although the certificate is of another authority.
    store.renew_due(&dying).await;
    assert_eq!(store.entries.lock()[&mk_identity("a")].renew_at, renew_at);
    let error = store.subscribe(&mk_identity("b")).unwrap_err().to_string();
    assert!(error.contains("ended on"), "{error}");
}

#[tokio::test]
async fn secrets_are_what_envoy_expects() {
    use landbridge_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
    use prost::Message;
    let (_sender, authority) = mk_watched(&mk_root("root"));
    let store = SvidStore::new(authority, TTL, Signers::start());
    let svid = store.subscribe(&mk_identity("a")).unwrap().borrow().clone();
    let inline = |source: Option<landbridge_proto::envoy::config::core::v3::DataSource>| match source
        .unwrap()
        .specifier
        .unwrap()
    {
        landbridge_proto::envoy::config::core::v3::data_source::Specifier::InlineBytes(bytes) => {
            bytes.to_vec()
        }
        other => panic!("{other:?}"),
    };
    let secret = Secret::decode(&sds::certificate(sds::CERTIFICATE, &svid)[..]).unwrap();
    assert_eq!(secret.name, "default");
    let Some(Type::TlsCertificate(cert)) = secret.r#type else { panic!("no certificate") };
    assert_eq!(inline(cert.certificate_chain), svid.chain_pem.as_bytes());
    assert_eq!(inline(cert.private_key), svid.key_pem.as_bytes());
    let roots = store.authority().borrow().roots_pem().to_owned();
    let secret = Secret::decode(&sds::roots(sds::ROOTS, &roots)[..]).unwrap();
    assert_eq!(secret.name, "ROOTCA");
    let Some(Type::ValidationContext(context)) = secret.r#type else { panic!("no roots") };
    assert_eq!(inline(context.trusted_ca), roots.as_bytes());
}
