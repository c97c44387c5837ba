use std::net::{Ipv4Addr, SocketAddr};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    ca::{
        server_cert,
        testing::{Root, mk_root, mk_watched},
    },
    registry::Settings,
};

struct Served {
    address: SocketAddr,
    root: Root,
}

async fn serve_one() -> Served {
    let root = mk_root("root");
    let (_sender, authority) = mk_watched(&root);
    let names = ["istiod.istio-system.svc".to_owned(), "127.0.0.1".to_owned()];
    let xds = server_cert::server_config(authority, &names).expect("a certificate");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let validator = Validator::new("east".into(), Settings::default());
    let tls = server_cert::https_config(&xds);
    tokio::spawn(async move { serve(listener, tls, validator, WebhookMetrics::default()).await.map(|_| ()) });
    Served { address, root }
}

/// A request by hand; the answer's status and body.
async fn ask(served: &Served, head: &str, body: &str) -> (u16, String) {
    let mut roots = RootCertStore::empty();
    roots.add(served.root.cert.der.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As API servers offer it.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = TcpStream::connect(served.address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = format!("{head}Host: istiod\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    // How the connection ends is of no interest.
    let _ = stream.read_to_string(&mut answer).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
}

fn post(path: &str, kind: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n")
}

#[tokio::test]
async fn questions_are_answered_and_everything_else_is_named() {
    let served = serve_one().await;
    let question = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE",
        "object":{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"a","namespace":"b"},"spec":{"host":""}}}}"#;
    for path in ["/validate", "/validate/", "/validate/istio?timeout=10s"] {
        let (status, body) = ask(&served, &post(path, JSON, question.len()), question).await;
        assert!(status == 200 && body.contains(r#""uid":"u-1","allowed":false"#), "{path}: {status} {body}");
        assert!(body.contains("configuration is invalid: spec.host: "), "{body}");
    }
    let large = 9 << 20;
    for (head, body, expected, words) in [
        (post("/validate", JSON, 0), "", 400, "no body found"),
        (post("/validate", JSON, 1), "{", 400, "no AdmissionReview"),
        (post("/validate", "text/plain", 2), "{}", 415, "application/json"),
        (post("/validate", JSON, large), "", 413, "8 MiB"),
        ("GET /validate HTTP/1.1\r\n".to_owned(), "", 405, "POST"),
        ("GET /httpsReady HTTP/1.1\r\n".to_owned(), "", 200, ""),
        (post("/inject", JSON, 2), "{}", 404, "/validate"),
    ] {
        let (status, said) = ask(&served, &head, body).await;
        assert!(status == expected && said.contains(words), "{head}: {status} {said}");
    }
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_waiting() {
    let served = serve_one().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(served.address).await.expect("a connection"));
    }
    let (status, _) = ask(&served, "GET /httpsReady HTTP/1.1\r\n", "").await;
    assert_eq!(status, 200);
}
