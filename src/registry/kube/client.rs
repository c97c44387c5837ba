//! HTTP to one API server. Kubeconfigs, TLS and credentials are the `kube` crate's; the transport below is our own stack
//! of the same parts: HTTP/2, so that a cluster's watches share one connection, with pings that notice a dead one within
//! 25 s, and every task in a scope that ends with the client.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Builder, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt},
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{BoxError, ServiceBuilder};

use super::{
    failure::{Failure, Refusal, retry_after, with_causes},
    kubeconfig::KubeconfigError,
};
use crate::registry::convert::watched::Status;

/// Until TCP is connected.
const CONNECT: Duration = Duration::from_secs(10);
/// Between pings of a connection that has requests on it, and how long an answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// Of one request's answer that waits to be read, and of all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 16 << 20);
/// Of an answer that is not a success.
const MAX_REFUSAL: usize = 64 << 10;
/// Of a page or an object.
const MAX_ANSWER: usize = 256 << 20;

/// Objects of a page.
const PAGE: usize = 500;

/// The answer is JSON.
pub const JSON: &str = "application/json";
/// The answer is only the metadata of the objects of a list.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// The answer is only the metadata of an object.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A way to an API server. Dropping the last one ends its connections.
#[derive(Clone)]
pub struct Client {
    client: kube::Client,
    server: Arc<str>,
    _scope: Arc<DropGuard>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.server)
    }
}

impl Client {
    /// Connects when the first request is made. Needs a runtime around it.
    pub fn new(config: &Config) -> Result<Self, KubeconfigError> {
        let credentials = |e: kube::Error| KubeconfigError::Credentials(with_causes(&e));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(PING.0));
        tcp.set_keepalive_interval(Some(PING.1));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(PING.0 + PING.1));
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config.rustls_client_config().map_err(credentials)?)
            .https_or_http();
        let https = match &config.tls_server_name {
            Some(name) => {
                let name = name.clone().try_into().map_err(|_| KubeconfigError::Unsupported {
                    what: "tls-server-name",
                    why: "is neither a DNS name nor an address; write the name in the API server's certificate",
                })?;
                tls.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
                    .enable_all_versions()
                    .wrap_connector(tcp)
            }
            None => tls.enable_all_versions().wrap_connector(tcp),
        };
        let scope = CancellationToken::new();
        let http = Builder::new(Scope(scope.clone()))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(2)
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .http2_initial_stream_window_size(WINDOWS.0)
            .http2_initial_connection_window_size(WINDOWS.1)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(credentials)?)
            .layer(config.extra_headers_layer().map_err(credentials)?)
            .map_err(BoxError::from)
            .service(http);
        Ok(Self {
            client: kube::Client::new(service, config.default_namespace.clone()),
            server: config.cluster_url.to_string().into(),
            _scope: Arc::new(scope.drop_guard()),
        })
    }

    /// The API server's address, for people.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks, and waits `patience` for the head of the answer; anything but success is a failure.
    pub async fn get(&self, path: &str, accept: &str, patience: Duration) -> Result<Response<Body>, Failure> {
        self.send(Request::get(path).header(header::ACCEPT, accept), Body::empty(), patience).await
    }

    /// Creates something, such as a review; gives the API server's answer.
    pub async fn post(&self, path: &str, object: Vec<u8>, patience: Duration) -> Result<Bytes, Failure> {
        let request = Request::post(path).header(header::ACCEPT, JSON).header(header::CONTENT_TYPE, JSON);
        let response = self.send(request, Body::from(object), patience).await?;
        collect(response, MAX_ANSWER, patience).await
    }

    /// Creates an object or makes its fields these, as `kubectl apply --server-side --field-manager landbridge` does; with the
    /// object as it is now.
    pub async fn apply(&self, path: &str, object: &Value, patience: Duration) -> Result<Value, Failure> {
        let request = Request::patch(format!("{path}?fieldManager=landbridge&force=true"))
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml");
        let answer = self.send(request, Body::from(object.to_string().into_bytes()), patience).await?;
        json(&collect(answer, MAX_ANSWER, patience).await?)
    }

    /// Makes some fields of an object what they are in `fields`, as `kubectl patch --type merge` does; with the object as it is now.
    pub async fn merge(&self, path: &str, fields: &Value, patience: Duration) -> Result<Value, Failure> {
        let request = Request::patch(format!("{path}?fieldManager=landbridge"))
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, "application/merge-patch+json");
        let answer = self.send(request, Body::from(fields.to_string().into_bytes()), patience).await?;
        json(&collect(answer, MAX_ANSWER, patience).await?)
    }

    /// Makes an object what it should be, if it is still the version that is written in it; with the object as it is now.
    pub async fn put(&self, path: &str, object: &Value, patience: Duration) -> Result<Value, Failure> {
        let request = Request::put(path).header(header::ACCEPT, JSON).header(header::CONTENT_TYPE, JSON);
        let answer = self.send(request, Body::from(object.to_string().into_bytes()), patience).await?;
        json(&collect(answer, MAX_ANSWER, patience).await?)
    }

    /// Deletes an object; with a UID, only if it still has that.
    pub async fn delete(&self, path: &str, uid: Option<&str>, patience: Duration) -> Result<(), Failure> {
        let request = Request::delete(path).header(header::ACCEPT, JSON).header(header::CONTENT_TYPE, JSON);
        let options = serde_json::json!({ "preconditions": { "uid": uid } });
        let answer = self.send(request, Body::from(options.to_string().into_bytes()), patience).await?;
        collect(answer, MAX_ANSWER, patience).await.map(drop)
    }

    /// Asks for an object.
    pub async fn get_json(&self, path: &str, patience: Duration) -> Result<Value, Failure> {
        json(&self.get_all(path, JSON, patience).await?)
    }

    /// What tells a cluster from all others: the UID of its namespace kube-system, if it may be known.
    pub async fn cluster_uid(&self, patience: Duration) -> Option<Box<str>> {
        let namespace = self.get_json("/api/v1/namespaces/kube-system", patience).await.ok()?;
        namespace.pointer("/metadata/uid").and_then(Value::as_str).map(Into::into)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Body,
        patience: Duration,
    ) -> Result<Response<Body>, Failure> {
        let request = request
            .header(header::USER_AGENT, concat!("landbridge/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|e| Failure::Garbage(e.to_string()))?;
        let response = match timeout(patience, self.client.send(request)).await {
            Err(_) => return Err(Failure::Silent(patience)),
            Ok(Err(error)) => return Err(Failure::Unreachable(with_causes(&error))),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response, patience).await)
    }

    /// Asks for all of an answer; it may pause for `patience`.
    pub async fn get_all(&self, path: &str, accept: &str, patience: Duration) -> Result<Bytes, Failure> {
        collect(self.get(path, accept, patience).await?, MAX_ANSWER, patience).await
    }

    /// One page of a list: `path` with `continue`.
    pub async fn get_page(
        &self,
        path: &str,
        accept: &str,
        next: &str,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        self.get_all(&format!("{path}limit={PAGE}&continue={}", escaped(next)), accept, patience).await
    }
}

/// The tasks of connections end with the client, whatever is still on them.
#[derive(Clone)]
struct Scope(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Scope {
    fn execute(&self, task: F) {
        let scope = self.0.clone();
        TokioExecutor::new().execute(async move {
            let _ = scope.run_until_cancelled(task).await;
        });
    }
}

/// Tokens of pages are made of these characters today.
fn escaped(token: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    token.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn json(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::Garbage(e.to_string()))
}

async fn refusal(response: Response<Body>, patience: Duration) -> Failure {
    let code = response.status();
    let after = retry_after(response.headers());
    let body = collect(response, MAX_REFUSAL, patience).await.unwrap_or_default();
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    let mut failure = Failure::of_status(&Status { code: code.as_u16(), ..status });
    if let Failure::Refused(refusal) = &mut failure {
        refusal.retry_after = after.or(refusal.retry_after);
        complete(refusal, code, &body);
    }
    failure
}

/// What is in front of an API server answers in words of its own.
fn complete(refusal: &mut Refusal, code: http::StatusCode, body: &[u8]) {
    if refusal.reason.is_empty() {
        refusal.reason = code.canonical_reason().unwrap_or_default().into();
    }
    if refusal.message.is_empty() {
        let text = String::from_utf8_lossy(body);
        // `/readyz` lists what is well and what is not.
        let line = text.lines().find(|line| line.starts_with("[-]")).or(text.lines().next());
        refusal.message = line.unwrap_or_default().chars().take(200).collect::<String>().into();
    }
}

async fn collect(response: Response<Body>, most: usize, patience: Duration) -> Result<Bytes, Failure> {
    let mut body = response.into_body();
    let mut all = BytesMut::new();
    loop {
        match timeout(patience, body.frame()).await {
            Err(_) => return Err(Failure::Silent(patience)),
            Ok(None) => return Ok(all.freeze()),
            Ok(Some(Err(error))) => return Err(Failure::Unreachable(with_causes(&error))),
            Ok(Some(Ok(frame))) => all.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
        }
        if all.len() > most {
            return Err(Failure::Garbage(format!("it is longer than {} MiB", most >> 20)));
        }
    }
}
