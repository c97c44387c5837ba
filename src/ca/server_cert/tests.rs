use std::io;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authn::PeerCertificate;
use crate::ca::cert::Cert;
use crate::ca::signers::Signers;
use crate::ca::svid::SvidStore;
use crate::ca::testing::{Root, mk_authority, mk_root, mk_rsa_authority, mk_watched};
use crate::model::identity::Spiffe;
use crate::pem;

const NAME: &str = "istiod.istio-system.svc";

/// A client that trusts `root` and may show a workload's certificate.
fn mk_client(root: &Root, svid: Option<(&str, &str)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.cert.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let certs =
                pem::blocks(chain.as_bytes()).unwrap().iter().map(|b| b.decode().unwrap().into()).collect();
            let key = PrivateKeyDer::Pkcs8(pem::blocks(key.as_bytes()).unwrap()[0].decode().unwrap().into());
            builder.with_client_auth_cert(certs, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// One connection: what the server saw of the client, and what the client saw of the server.
async fn connect(
    config: &Arc<ServerConfig>,
    client: &TlsConnector,
    name: &'static str,
) -> io::Result<(Option<Vec<CertificateDer<'static>>>, Vec<CertificateDer<'static>>)> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(config.clone());
    let server = async {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        Ok::<_, io::Error>(
            session.peer_certificates().map(|certs| certs.iter().map(|c| c.clone().into_owned()).collect()),
        )
    };
    let client = async {
        let mut stream = client.connect(ServerName::try_from(name).unwrap(), near).await?;
        // With TLS 1.3 the client learns only by reading that the server refused its certificate.
        stream.read_exact(&mut [0]).await?;
        Ok::<_, io::Error>(stream.get_ref().1.peer_certificates().unwrap().to_vec())
    };
    let (server, client) = tokio::join!(server, client);
    Ok((server?, client?))
}

/// Its handshakes cost what those of an ECDSA authority cost.
#[tokio::test]
async fn under_an_rsa_authority_our_own_certificate_is_ecdsa() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    sender.send_replace(mk_rsa_authority(&root, "rsa"));
    let config = server_config(authority, &[NAME.to_owned()]).unwrap();
    let (_, shown) = connect(&config, &mk_client(&root, None), NAME).await.unwrap();
    let types: Vec<_> =
        shown.into_iter().map(|der| Cert::from_der(der.into_owned()).unwrap().key_type).collect();
    assert_eq!(types, ["ECDSA P-256", "RSA 2048"]);
}

#[tokio::test]
async fn clients_come_with_and_without_a_certificate() {
    let root = mk_root("root");
    let (_sender, authority) = mk_watched(&root);
    let config = server_config(authority.clone(), &dns_names("istio-system", "cluster.local", &[])).unwrap();

    for name in [
        "istiod.istio-system.svc",
        "istiod.istio-system.svc.cluster.local",
        "istiod-remote.istio-system.svc",
        "istio-pilot.istio-system.svc",
    ] {
        let (seen, shown) = connect(&config, &mk_client(&root, None), name).await.unwrap();
        assert_eq!(seen, None);
        assert_eq!(shown.len(), 2, "leaf and intermediate");
    }
    connect(&config, &mk_client(&root, None), "another.name").await.unwrap_err();

    let identity = Spiffe::new("cluster.local", "a", "b").unwrap();
    let store = SvidStore::new(authority, Duration::from_secs(3600), Signers::start());
    let svid = store.subscribe(&identity).unwrap().borrow().clone();
    let (seen, _) =
        connect(&config, &mk_client(&root, Some((&svid.chain_pem, &svid.key_pem))), NAME).await.unwrap();
    assert_eq!(PeerCertificate::new(&seen.unwrap()).identity().unwrap().unwrap(), &identity);
}

#[tokio::test]
async fn a_certificate_of_a_foreign_root_is_refused() {
    let (root, foreign) = (mk_root("root"), mk_root("foreign"));
    let (_sender, authority) = mk_watched(&root);
    let config = server_config(authority, &[NAME.to_owned()]).unwrap();
    let (_foreign_sender, foreign) = mk_watched(&foreign);
    let store = SvidStore::new(foreign, Duration::from_secs(3600), Signers::start());
    let svid = store.subscribe(&Spiffe::new("cluster.local", "a", "b").unwrap()).unwrap().borrow().clone();
    let client = mk_client(&root, Some((&svid.chain_pem, &svid.key_pem)));
    connect(&config, &client, NAME).await.unwrap_err();
}

#[tokio::test]
async fn the_next_handshake_follows_a_new_authority() {
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let config = server_config(authority, &[NAME.to_owned()]).unwrap();
    let client = mk_client(&root, None);
    let (_, before) = connect(&config, &client, NAME).await.unwrap();
    let (_, same) = connect(&config, &client, NAME).await.unwrap();
    assert_eq!(before, same, "no new certificate without a reason");
    let next = mk_authority(&root, "second", time::Duration::days(1));
    sender.send_replace(next.clone());
    let (_, after) = connect(&config, &client, NAME).await.unwrap();
    assert_eq!(after[1], next.signer().der);
}

#[tokio::test]
async fn a_root_that_was_taken_out_no_longer_opens_the_door() {
    let (old, new) = (mk_root("old"), mk_root("new"));
    let (sender, authority) = mk_watched(&old);
    let config = server_config(authority.clone(), &[NAME.to_owned()]).unwrap();
    let store = SvidStore::new(authority, Duration::from_secs(3600), Signers::start());
    let svid = store.subscribe(&Spiffe::new("cluster.local", "a", "b").unwrap()).unwrap().borrow().clone();
    let with_old = mk_client(&old, Some((&svid.chain_pem, &svid.key_pem)));
    connect(&config, &with_old, NAME).await.unwrap();
    sender.send_replace(mk_authority(&new, "ca", time::Duration::days(1)));
    // The same client trusts both roots now, and still shows what the old one signed.
    let client = mk_client(&new, Some((&svid.chain_pem, &svid.key_pem)));
    connect(&config, &client, NAME).await.unwrap_err();
    connect(&config, &mk_client(&new, None), NAME).await.unwrap();
}

#[test]
fn names_that_cannot_be_in_a_certificate_are_refused() {
    let (_sender, authority) = mk_watched(&mk_root("root"));
    assert!(server_config(authority, &["ä.example".to_owned()]).unwrap_err().to_string().contains("xn--"));
}
