//! Probes of real sockets, with a server that stands for the workload behind a gateway.

use std::sync::Arc;

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    ca::{
        Authority,
        live::{Live, Source},
        server_cert,
        svid::Svid,
    },
    model::identity::Spiffe,
};

const SNI: &str = "outbound_.80_._.backend.production.svc.cluster.local";

struct Mesh {
    authority: watch::Receiver<Arc<Authority>>,
    _live: Live,
    _dir: tempfile::TempDir,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let source =
            Source::SelfSigned { state_dir: dir.path().into(), trust_domain: "cluster.local".into() };
        let (live, authority) = Live::open(source).expect("an authority");
        Self { authority, _live: live, _dir: dir }
    }

    fn client(&self) -> MeshClient {
        let identity = Spiffe::new("cluster.local", "istio-system", "istiod").expect("an identity");
        MeshClient::new(self.authority.clone(), identity, &[ALPN])
    }

    /// As sidecars serve: a client certificate is demanded.
    fn workload(&self) -> Arc<ServerConfig> {
        let authority = self.authority.borrow().clone();
        let identity = Spiffe::new("cluster.local", "production", "backend").expect("an identity");
        let svid = Svid::issue(&identity, &authority, Duration::from_secs(3600)).expect("a certificate");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(svid.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(svid.key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(authority.root_store());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients.expect("a verifier"))
            .with_single_cert(chain, key);
        config.map(Arc::new).expect("a configuration")
    }
}

/// What the server saw: SNI, and the client's identity.
type Saw = JoinHandle<(Option<String>, Option<String>)>;

async fn serve(config: Arc<ServerConfig>) -> (SocketAddr, Saw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("its address");
    let saw = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let Ok(tls) = TlsAcceptor::from(config).accept(stream).await else { return (None, None) };
        let (_, connection) = tls.get_ref();
        let peer = crate::authn::PeerCertificate::new(connection.peer_certificates().unwrap_or_default());
        let identity = peer.identity().and_then(Result::ok).map(ToString::to_string);
        (connection.server_name().map(str::to_owned), identity)
    });
    (at, saw)
}

#[tokio::test]
async fn a_workload_answers_and_sees_who_asks_for_what() {
    let mesh = Mesh::new();
    let client = mesh.client();
    let (at, saw) = serve(mesh.workload()).await;
    let (outcome, took) = probe(&client, at, Some(SNI)).await;
    assert_eq!(outcome, Outcome::Through);
    assert!(took < TIMEOUT);
    let (sni, identity) = saw.await.expect("the server ends");
    assert_eq!(sni.as_deref(), Some(SNI));
    assert_eq!(identity.as_deref(), Some("spiffe://cluster.local/ns/istio-system/sa/istiod"));
    // The same certificate serves many probes.
    let [first, second] = [client.config(), client.config()].map(|config| config.expect("a configuration"));
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn who_is_not_of_the_mesh_is_not_believed() {
    let (mesh, foreign) = (Mesh::new(), Mesh::new());
    let ours = server_cert::server_config(mesh.authority.clone(), &["istiod".to_owned()]).expect("a server");
    for config in [foreign.workload(), ours] {
        let (at, _saw) = serve(config).await;
        let (outcome, _) = probe(&mesh.client(), at, Some(SNI)).await;
        let Outcome::NoWay(why) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("no workload of this mesh") && why.contains(SNI), "{why}");
    }
}

#[tokio::test]
async fn taking_a_connection_is_told_from_silence() {
    let client = Mesh::new().client();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("its address");
    assert_eq!(probe(&client, at, None).await.0, Outcome::Connected);
    drop(listener.accept().await.expect("a connection"));
    // As Envoy does with an SNI that no chain has.
    let closes = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        assert!(stream.read(&mut [0; 64]).await.expect("a greeting") > 0);
    };
    let ((outcome, _), ()) = tokio::join!(probe(&client, at, Some(SNI)), closes);
    assert!(matches!(&outcome, Outcome::NoWay(why) if why.contains("closes them when")), "{outcome:?}");
    // The kernel takes the connection, and the process is stopped.
    let (outcome, took) = probe(&client, at, Some(SNI)).await;
    assert!(matches!(&outcome, Outcome::NoWay(why) if why.contains("nobody answered")), "{outcome:?}");
    assert!(took < TIMEOUT, "the time that it took to connect");
    drop(listener);
    let (outcome, _) = probe(&client, at, Some(SNI)).await;
    assert!(matches!(&outcome, Outcome::Silent(why) if why.contains("refused")), "{outcome:?}");
}
