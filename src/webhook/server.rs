//! HTTPS for API servers. Anybody who reaches the port may ask, so that everything is bounded: connections, the time of
//! handshakes and requests, and the bytes of all bodies at once.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{Validator, WebhookMetrics, metrics::Verdict, review::Answer};
use crate::workers::Workers;

/// At once. API servers keep one for each question that they ask at the same time.
const CONNECTIONS: usize = 512;
/// For a handshake, and for a request to come. API servers wait no longer than 10 s unless they are told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between requests of a connection. API servers end those that were idle for 90 s, and should be the first to.
const IDLE: Duration = Duration::from_secs(100);
/// Of a question: an object as it is and as it was, of which an API server takes 3 MiB each.
const MOST: usize = 8 << 20;
/// Of the bodies of all questions at once, in units of [`UNIT`].
const MOST_AT_ONCE: usize = 32 << 10;
const UNIT: usize = 1 << 10;

struct Server {
    validator: Validator,
    metrics: WebhookMetrics,
    room: Arc<Semaphore>,
    workers: Workers,
}

/// A status and a body.
type Said = (StatusCode, &'static str, Bytes);

/// Answers API servers on `listener`, for ever. Objects are read on a thread of its own, so that large ones keep nothing waiting but
/// each other.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    validator: Validator,
    metrics: WebhookMetrics,
) -> io::Result<Infallible> {
    let workers = Workers::default();
    workers.add("webhook")?;
    let server =
        Arc::new(Server { validator, metrics, room: Arc::new(Semaphore::new(MOST_AT_ONCE)), workers });
    let (tls, connections) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else {
            return Err(io::Error::other("no more connections"));
        };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let (server, tls) = (server.clone(), tls.clone());
                tokio::spawn(async move {
                    if let Err(error) = server.connection(socket, tls).await {
                        debug!(%peer, %error, "a connection of the webhook ended with an error");
                    }
                    drop(place);
                });
            }
            // Out of file descriptors, or the client was gone before we looked: neither is a reason to stop.
            Err(error) => {
                warn!(%error, "cannot accept a connection of the webhook");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Server {
    async fn connection(self: Arc<Self>, socket: TcpStream, tls: TlsAcceptor) -> Result<(), String> {
        let _ = socket.set_nodelay(true);
        let stream = timeout(PATIENCE, tls.accept(socket)).await;
        let stream = stream.map_err(|_| "no handshake".to_owned())?.map_err(|e| e.to_string())?;
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(|error| error.to_string())
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let (status, kind, body): Said = if path == "/validate" || path.starts_with("/validate/") {
            match self.validate(request).await {
                Ok(answer) => (StatusCode::OK, JSON, answer),
                Err((status, words)) => {
                    self.metrics.answered(Verdict::Garbage);
                    (status, TEXT, Bytes::from(words + "\n"))
                }
            }
        } else if path == "/httpsReady" {
            (StatusCode::OK, TEXT, Bytes::new())
        } else {
            (
                StatusCode::NOT_FOUND,
                TEXT,
                Bytes::from_static(b"this is the webhook of landbridge: ask /validate\n"),
            )
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        response
    }

    /// An error is what is wrong with the question.
    async fn validate(&self, request: Request<Incoming>) -> Result<Bytes, (StatusCode, String)> {
        if request.method() != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "an AdmissionReview comes by POST".to_owned()));
        }
        let kind = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        if kind != Some(JSON.as_bytes()) {
            let words = format!("an AdmissionReview has Content-Type {JSON}");
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
        }
        let too_large = || {
            let words = format!("the AdmissionReview is larger than {} MiB", MOST >> 20);
            (StatusCode::PAYLOAD_TOO_LARGE, words)
        };
        // Who does not say how much comes may send the most.
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or(MOST);
        if length > MOST {
            return Err(too_large());
        }
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let read = async {
            let room = self.room.clone().acquire_many_owned(units).await.ok()?;
            let body = Limited::new(request.into_body(), length).collect().await;
            Some((room, body))
        };
        let late = || (StatusCode::REQUEST_TIMEOUT, "the AdmissionReview did not come in time".to_owned());
        let (room, body) = timeout(PATIENCE, read).await.ok().flatten().ok_or_else(late)?;
        let body = body.map_err(|_| too_large())?.to_bytes();
        let validator = self.validator.clone();
        let answered = self.workers.run_if_awaited(move || {
            let answer = validator.answer(&body);
            drop(room);
            answer
        });
        match answered.await {
            Some(Ok(Answer { body, verdict })) => {
                self.metrics.answered(verdict);
                Ok(body.into())
            }
            Some(Err(words)) => Err((StatusCode::BAD_REQUEST, words)),
            None => Err((StatusCode::INTERNAL_SERVER_ERROR, "landbridge has a bug; see its log".to_owned())),
        }
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests;
