use landbridge_proto::service::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::{Struct, Value};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};

use super::*;
use crate::authn::dev_issuer::{DevIssuer, Subject};
use crate::ca::cert::Cert;
use crate::ca::server_cert::server_config;
use crate::ca::signers::Signers;
use crate::ca::svid::SvidStore;
use crate::ca::testing::{Root, mk_root, mk_rsa_authority, mk_watched};
use crate::grpc::Router;
use crate::model::identity::Spiffe;
use crate::xds::{
    listener::{ConnectionSettings, serve},
    metrics::Metrics,
    overload::{Bounds, Overload},
};

const NAME: &str = "istiod.istio-system.svc";

/// The service behind real TLS on a local port, and all that a client needs.
struct World {
    _dir: tempfile::TempDir,
    sender: watch::Sender<Arc<Authority>>,
    authority: watch::Receiver<Arc<Authority>>,
    issuer: DevIssuer,
    root: Root,
    address: std::net::SocketAddr,
    metrics: CaMetrics,
}

async fn in_world<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let dir = tempfile::tempdir().unwrap();
    let root = mk_root("root");
    let (sender, authority) = mk_watched(&root);
    let issuer = DevIssuer::load_or_create(dir.path()).unwrap();
    let authenticator =
        Authenticator::new("cluster.local", vec!["istio-ca".to_owned()]).with_dev_issuer(&issuer);
    let metrics = CaMetrics::default();
    let service = CertificateService::new(
        authority.clone(),
        Arc::new(authenticator),
        Lifetimes::default(),
        metrics.clone(),
        Signers::start(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(authority.clone(), &[NAME.to_owned()]).unwrap();
    let mut router = Router::new(tonic::service::Routes::default());
    service.mount(&mut router);
    let counters = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let overload = Arc::new(Overload::new(Bounds::default(), counters));
    let settings = ConnectionSettings::default();
    let server = serve(listener, Some(config), router, settings, overload, CancellationToken::new());
    let world = World { _dir: dir, sender, authority, issuer, root, address, metrics };
    tokio::select! {
        () = server => unreachable!("never shut down"),
        () = story(world) => {}
    }
}

impl World {
    async fn client(&self, identity: Option<Identity>) -> IstioCertificateServiceClient<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.root.cert.to_pem()))
            .domain_name(NAME);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        IstioCertificateServiceClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
    }

    fn token(&self) -> String {
        let subject = Subject { namespace: "a", service_account: "b", cluster_id: None };
        let now = time::OffsetDateTime::now_utc();
        self.issuer.mint(&subject, &["istio-ca".to_owned()], Duration::from_secs(60), now).unwrap()
    }

    fn request(&self, message: IstioCertificateRequest) -> Request<IstioCertificateRequest> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token()).parse().unwrap());
        request
    }
}

/// A request in which the sender asks to be somebody else.
fn mk_csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()]).unwrap();
    let uri = "spiffe://cluster.local/ns/istio-system/sa/admin".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn mk_message(seconds: i64) -> IstioCertificateRequest {
    // The empty CertSigner is what Istio's agent sends.
    IstioCertificateRequest {
        csr: mk_csr(),
        validity_duration: seconds,
        metadata: mk_metadata("CertSigner", ""),
    }
}

fn mk_metadata(key: &str, value: &str) -> Option<Struct> {
    let value = Value { kind: Some(Kind::StringValue(value.to_owned())) };
    Some(Struct { fields: [(key.to_owned(), value)].into() })
}

#[tokio::test]
async fn an_agent_gets_a_certificate_of_its_own_identity_only() {
    in_world(async |world| {
        let mut client = world.client(None).await;
        let chain = client
            .create_certificate(world.request(mk_message(86_400)))
            .await
            .unwrap()
            .into_inner()
            .cert_chain;
        assert_eq!(chain.len(), 3, "leaf, intermediate, root");
        let certs: Vec<_> =
            chain.iter().map(|pem| Cert::all_from_pem(pem.as_bytes()).unwrap().remove(0)).collect();
        assert_eq!(
            certs[0].sans,
            ["URI:spiffe://cluster.local/ns/a/sa/b"],
            "what the CSR wished is not in it"
        );
        assert_eq!(certs[0].subject, "");
        assert!(!certs[0].is_ca);
        assert!(certs[0].is_signed_by(&certs[1]) && certs[1].is_signed_by(&certs[2]));
        assert_eq!((certs[0].not_after - certs[0].not_before).whole_seconds(), 86_400 + 120);
        assert_eq!(certs[2].der, world.root.cert.der);
        assert!(chain.iter().all(|pem| pem.ends_with("-----\n")));
        assert_eq!(world.metrics.issued.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_with_itself() {
    in_world(async |world| {
        let store = SvidStore::new(world.authority.clone(), Duration::from_secs(3600), Signers::start());
        let svid =
            store.subscribe(&Spiffe::new("cluster.local", "a", "b").unwrap()).unwrap().borrow().clone();
        let mut client = world.client(Some(Identity::from_pem(&svid.chain_pem, svid.key_pem.as_str()))).await;
        let chain = client.create_certificate(mk_message(0)).await.unwrap().into_inner().cert_chain;
        let leaf = Cert::all_from_pem(chain[0].as_bytes()).unwrap().remove(0);
        assert_eq!(leaf.sans, ["URI:spiffe://cluster.local/ns/a/sa/b"]);
        assert_eq!((leaf.not_after - leaf.not_before).whole_hours(), 24, "the default");
    })
    .await;
}

/// On one thread: while the certificates are signed, others get their turn.
#[tokio::test]
async fn an_rsa_authority_signs_beside_what_is_served() {
    in_world(async |world| {
        world.sender.send_replace(mk_rsa_authority(&world.root, "rsa"));
        let client = world.client(None).await;
        let ask = || {
            let (mut client, request) = (client.clone(), world.request(mk_message(0)));
            async move { client.create_certificate(request).await.unwrap().into_inner().cert_chain }
        };
        // Where others keep the processors busy, this thread may get its turn when all is signed.
        let (mut chains, mut turns) = (Vec::new(), 0);
        for round in 1..=10 {
            let signing = futures::future::join_all((0..20).map(|_| ask()));
            let counting = async {
                let mut turns = 0;
                loop {
                    tokio::task::yield_now().await;
                    turns += 1;
                    if world.metrics.issued.get() >= 20 * round {
                        return turns;
                    }
                }
            };
            (chains, turns) = tokio::join!(signing, counting);
            if turns > 100 {
                break;
            }
        }
        assert!(turns > 100, "{turns} turns in which nobody signed");
        for chain in chains {
            let certs: Vec<_> =
                chain.iter().map(|pem| Cert::all_from_pem(pem.as_bytes()).unwrap().remove(0)).collect();
            assert_eq!(certs[1].key_type, "RSA 2048");
            assert!(certs[0].is_signed_by(&certs[1]) && certs[1].is_signed_by(&certs[2]));
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_have_the_code_that_agents_understand_and_a_reason() {
    in_world(async |world| {
        let mut client = world.client(None).await;
        let status = client.create_certificate(mk_message(0)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().starts_with("request authenticate failure: no credential"), "{status}");

        let with = |change: fn(&mut IstioCertificateRequest)| {
            let mut message = mk_message(0);
            change(&mut message);
            world.request(message)
        };
        let max = Lifetimes::default().max.as_secs() as i64;
        for (request, code, expected) in [
            (
                with(|m| m.csr = "garbage".into()),
                Code::InvalidArgument,
                "CSR refused: expected one PEM block",
            ),
            (with(|m| m.csr = "x".repeat(20_000)), Code::InvalidArgument, "more than the 16384"),
            (with(|m| m.csr = "x".repeat(100_000)), Code::ResourceExhausted, "too large"),
            (
                with(|m| m.validity_duration = 2160 * 3600 + 1),
                Code::InvalidArgument,
                "--max-workload-cert-ttl",
            ),
            (with(|m| m.validity_duration = i64::MAX), Code::InvalidArgument, "greater than"),
            (
                with(|m| {
                    m.metadata = mk_metadata("ImpersonatedIdentity", "spiffe://cluster.local/ns/x/sa/y")
                }),
                Code::Unauthenticated,
                "impersonation",
            ),
            (with(|m| m.metadata = mk_metadata("CertSigner", "vault")), Code::InvalidArgument, "`vault`"),
        ] {
            let status = client.create_certificate(request).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(expected), "{expected}: {}", status.message());
        }
        client.create_certificate(world.request(mk_message(max))).await.unwrap();
        client.create_certificate(world.request(mk_message(-1))).await.unwrap();
        assert_eq!(world.metrics.authentication_failures.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn nobody_speaks_plaintext_to_it() {
    in_world(async |world| {
        let endpoint = Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
        let outcome = match endpoint.connect().await {
            Ok(channel) => IstioCertificateServiceClient::new(channel)
                .create_certificate(world.request(mk_message(0)))
                .await
                .is_err(),
            Err(_) => true,
        };
        assert!(outcome);
    })
    .await;
}
