//! A small HTTP/1.1 client whose connections start inside a namespace.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::netns::Ns;

/// An HTTP/1.1 connection that can be used for one request after the other.
pub type Connection = SendRequest<Empty<Bytes>>;

/// Speaks HTTP over a stream; the connection is driven by a task of its own until either side closes it.
pub async fn handshake(stream: TcpStream) -> Result<Connection> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("HTTP handshake")?;
    tokio::spawn(async move {
        let _ = connection.await; // a broken connection shows at the request that it breaks
    });
    Ok(sender)
}

/// One request on an open connection; the whole answer.
pub async fn request(
    connection: &mut Connection,
    method: &str,
    host: &str,
    path: &str,
) -> Result<Response<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", host).body(Empty::new())?;
    let (head, body) = connection.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A request on a connection of its own, from inside `ns`; `within` bounds all of it.
pub async fn fetch(
    ns: &Ns,
    to: SocketAddr,
    host: &str,
    path: &str,
    within: Duration,
) -> Result<Response<Bytes>> {
    call(ns, to, "GET", host, path, within).await
}

/// As [`fetch`], with a method.
pub async fn call(
    ns: &Ns,
    to: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    within: Duration,
) -> Result<Response<Bytes>> {
    let attempt = async {
        let mut connection = handshake(ns.connect(to, within).await?).await?;
        request(&mut connection, method, host, path).await
    };
    tokio::time::timeout(within, attempt)
        .await
        .with_context(|| format!("{to}{path}: no answer within {within:?}"))?
        .with_context(|| format!("{method} {to}{path} from {}", ns.name()))
}

/// As [`fetch`], for an administration page: any answer but 200 is an error; text.
pub async fn page(ns: &Ns, at: SocketAddr, path: &str) -> Result<String> {
    let answer = fetch(ns, at, "localhost", path, Duration::from_secs(5)).await?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    if answer.status() != 200 {
        bail!("{at}{path} answered {}: {}", answer.status(), text.trim());
    }
    Ok(text)
}
