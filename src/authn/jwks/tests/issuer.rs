//! An OpenID issuer in the test process: an HTTPS server with an authority of its own, and keys that really sign.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, Uri},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A key that signs tokens.
pub struct Signer {
    id: String,
    key: KeyPair,
}

impl Signer {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), key: KeyPair::generate().unwrap() }
    }

    /// An ES256 token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    fn public(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let (x, y) = self.key.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y })
    }
}

pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.public()).collect::<Vec<_>>() }).to_string()
}

/// What the server says.
#[derive(Clone)]
pub enum Says {
    Text(String),
    Status(u16),
    Redirect(String),
    /// Without an end, as fast as it is read.
    Endless,
    /// Without an end, a byte every tenth of a second.
    Drip,
}

struct Content {
    document: Mutex<Says>,
    keys: Mutex<Says>,
    requests: AtomicUsize,
}

pub struct Issuer {
    /// Its address, the `iss` of its tokens.
    pub name: String,
    /// The authority of its certificate, PEM.
    pub authority: String,
    content: Arc<Content>,
    away: Arc<AtomicBool>,
    server: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    /// Listens; its keys are those of this signer.
    pub async fn start(signer: &Signer) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let (authority, acceptor) = certified();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("https://{}", listener.local_addr().unwrap());
        let document = json!({ "issuer": name, "jwks_uri": format!("{name}/keys") }).to_string();
        let content = Arc::new(Content {
            document: Mutex::new(Says::Text(document)),
            keys: Mutex::new(Says::Text(jwks(&[signer]))),
            requests: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(content.clone());
        let away = Arc::new(AtomicBool::new(false));
        let secure = Secure { listener, acceptor, away: away.clone() };
        let server = tokio::spawn(async move { axum::serve(secure, router).await.unwrap() });
        Self { name, authority, content, away, server }
    }

    /// The claims of a good token.
    pub fn claims(&self) -> Value {
        let exp = time::OffsetDateTime::now_utc().unix_timestamp() + 600;
        json!({ "iss": self.name, "sub": "system:serviceaccount:a:b", "aud": ["istio-ca"], "exp": exp })
    }

    pub fn says(&self, keys: Says) {
        *self.content.keys.lock() = keys;
    }

    /// Gives the document before.
    pub fn documents(&self, document: Says) -> Says {
        std::mem::replace(&mut self.content.document.lock(), document)
    }

    /// Cuts connections before a byte is said, or no more.
    pub fn away(&self, away: bool) {
        self.away.store(away, SeqCst);
    }

    pub fn requests(&self) -> usize {
        self.content.requests.load(SeqCst)
    }
}

async fn answer(State(content): State<Arc<Content>>, uri: Uri) -> Response<Body> {
    content.requests.fetch_add(1, SeqCst);
    let says = match uri.path() {
        "/.well-known/openid-configuration" => content.document.lock().clone(),
        "/keys" => content.keys.lock().clone(),
        _ => Says::Status(404),
    };
    let chunks = |chunk: &'static [u8], pause: Duration| {
        Body::from_stream(stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk))
        }))
    };
    // Whoever goes away is to be missed at once.
    let response = Response::builder().header("connection", "close");
    match says {
        Says::Text(text) => response.body(Body::from(text)),
        Says::Status(status) => response.status(status).body(Body::from("hush")),
        Says::Redirect(to) => response.status(302).header("location", to).body(Body::empty()),
        Says::Endless => response.body(chunks(&[b' '; 65536], Duration::ZERO)),
        Says::Drip => response.body(chunks(b" ", Duration::from_millis(100))),
    }
    .unwrap()
}

/// A certificate for this machine's loopback address, and who vouches for it.
fn certified() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// TLS in front of axum.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    away: Arc<AtomicBool>,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, address) = self.listener.accept().await.unwrap();
            if self.away.load(SeqCst) {
                continue;
            }
            // A client that does not trust us ends the handshake.
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
