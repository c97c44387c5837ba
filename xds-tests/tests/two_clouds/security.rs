//! Who may talk to whom, seen on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use xds_tests::http;
use xds_tests::mesh::{SERVICE, Workload};
use xds_tests::netns::Ns;
use xds_tests::topology::gateway_address;

use crate::lab::{PATIENCE, mesh_test, within};

const SHORT: Duration = Duration::from_secs(3);

#[test]
fn strict_takes_mutual_tls_and_nothing_else() {
    let plain = Workload::plain("plain", 30);
    mesh_test("security::strict_takes_mutual_tls_and_nothing_else", vec![plain], async |mesh| {
        let backend = SocketAddr::from((mesh.topology.pod("east", "backend-a")?.ip, 8080));
        let client = mesh.topology.pod("east", "client")?;
        let answer = http::fetch(&client.ns, mesh.target().to, SERVICE, "/", SHORT).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let identity = "URI=spiffe://cluster.local/ns/production/sa/client";
        ensure!(text.contains(identity), "the backend does not see the client's identity: {text}");
        ensure!(text.contains("src=127.0.0.6"), "the backend is not called by its own proxy: {text}");

        let plain = mesh.topology.pod("east", "plain")?;
        if let Ok(answer) = http::fetch(&plain.ns, backend, SERVICE, "/", SHORT).await {
            bail!("plaintext was answered with {}", answer.status());
        }
        // A TLS client without a certificate gets through its own half of the handshake, and not an answer.
        let seen = hello(&plain.ns, backend, SERVICE).await?;
        ensure!(!seen.answered, "a client without a certificate was answered");
        Ok(())
    });
}

#[test]
fn the_gateway_passes_only_names_of_the_mesh() {
    let plain = Workload::plain("plain", 30);
    mesh_test("security::the_gateway_passes_only_names_of_the_mesh", vec![plain], async |mesh| {
        let gateway = SocketAddr::from((gateway_address("west"), 15443));
        let outside = mesh.topology.pod("east", "plain")?;
        let right = hello(&outside.ns, gateway, &format!("outbound_.80_._.{SERVICE}")).await?;
        // The gateway does not terminate TLS: it is the backend's certificate that is seen.
        let backend = "spiffe://cluster.local/ns/production/sa/backend";
        ensure!(right.server.as_deref() == Some(backend), "behind the right name: {:?}", right.server);
        ensure!(!right.answered, "a client without a certificate was answered");
        for name in ["outbound_.80_._.nobody.production.svc.cluster.local", "example.com", SERVICE] {
            let wrong = hello(&outside.ns, gateway, name).await?;
            ensure!(wrong.server.is_none(), "{name} leads to {:?}", wrong.server);
        }
        Ok(())
    });
}

#[test]
fn a_proxy_gets_its_own_identity_and_no_other() {
    let intruder = Workload {
        namespace: "evil",
        service_account: "intruder",
        labels: "app=intruder",
        ..Workload::client("intruder", 31)
    };
    // Says that it is the client, with a token of the intruder.
    let impostor = Workload { token_of: Some(("evil", "intruder")), ..Workload::client("impostor", 32) };
    let name = "security::a_proxy_gets_its_own_identity_and_no_other";
    crate::lab::prepared_test(name, vec![intruder, impostor], async |mesh| {
        mesh.start_control_planes().await?;
        mesh.start_pods(&["east/client", "east/backend-a", "east/intruder"].map(str::to_owned)).await?;
        for (pod, namespace, account) in [
            ("client", "production", "client"),
            ("backend-a", "production", "backend"),
            ("intruder", "evil", "intruder"),
        ] {
            let certs = mesh.envoy("east", pod)?.admin("/certs").await?;
            let names: Vec<&str> = certs
                .split('"')
                .filter(|word| word.starts_with("spiffe://") && word.contains("/sa/"))
                .collect();
            let own = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
            ensure!(!names.is_empty() && names.iter().all(|name| *name == own), "{pod} has {names:?}");
        }

        mesh.launch_pods(&["east/impostor".to_owned()]).await?;
        let envoy = mesh.envoy("east", "impostor")?;
        // Envoy logs the reason with which its stream was closed.
        let log = envoy.process.log().to_owned();
        within(PATIENCE, "the impostor is refused with a reason", async || {
            let text = std::fs::read_to_string(&log).context("read the impostor's log")?;
            Ok(text.lines().any(|line| line.contains("config stream") && line.contains("intruder")))
        })
        .await?;
        let certs = envoy.admin("/certs").await?;
        ensure!(!certs.contains("/sa/"), "the impostor was given a certificate: {certs}");
        Ok(())
    });
}

/// What a TLS client without a certificate sees.
struct Seen {
    /// The SPIFFE name in the certificate of the other side; none if there was no handshake.
    server: Option<String>,
    /// Whether anything was answered to a request.
    answered: bool,
}

/// Says hello as a mesh client would (SNI, ALPN `istio`), but has no certificate; then asks for `/`.
async fn hello(ns: &Ns, to: SocketAddr, sni: &str) -> Result<Seen> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"istio".to_vec()];
    let stream = ns.connect(to, SHORT).await?;
    let name = ServerName::try_from(sni.to_owned())?;
    let shaken =
        tokio::time::timeout(SHORT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let Ok(mut tls) = shaken.context("neither a handshake nor a refusal")? else {
        return Ok(Seen { server: None, answered: false });
    };
    let certificate =
        tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).context("a certificate")?;
    let server = spiffe_name(certificate)?;
    // With TLS 1.3 the server's refusal comes after the client's side of the handshake.
    let _ = tls.write_all(format!("GET / HTTP/1.1\r\nhost: {SERVICE}\r\n\r\n").as_bytes()).await;
    let mut answer = [0; 64];
    let read = tokio::time::timeout(SHORT, tls.read(&mut answer))
        .await
        .context("neither an answer nor a refusal")?;
    Ok(Seen { server, answered: read.is_ok_and(|bytes| bytes > 0) })
}

fn spiffe_name(certificate: &CertificateDer) -> Result<Option<String>> {
    let (_, parsed) = X509Certificate::from_der(certificate)?;
    let names = parsed.subject_alternative_name()?.map(|extension| extension.value.general_names.as_slice());
    let uri =
        |name: &GeneralName| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
    Ok(names.unwrap_or_default().iter().find_map(uri))
}

/// Takes any certificate: the test wants to see it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
