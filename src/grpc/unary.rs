//! Calls of one request and one response.

use std::future::Future;

use http::{Request, Response, request::Parts};
use lean_http2::server::Incoming;
use prost::Message;
use tonic::Status;

use super::{Body, Messages, encode, messages, refuse, response, timeout, too_late};

/// Serves one call: reads a request of up to `limit` bytes, gives it to `call` with the head of its HTTP request, and
/// answers with what comes of it.
pub async fn unary<Q, A, F>(
    request: Request<Incoming>,
    limit: usize,
    call: impl FnOnce(Parts, Q) -> F,
) -> Response<Body>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Status>>,
{
    let (head, body) = request.into_parts();
    let patience = timeout(&head.headers);
    let answered = async {
        let mut messages = Messages::new(&head.headers, body, limit);
        let message = messages::only(&mut messages).await?;
        call(head, message).await
    };
    let answer = match patience {
        None => answered.await,
        Some(patience) => tokio::time::timeout(patience, answered).await.unwrap_or_else(|_| Err(too_late())),
    };
    match answer {
        Ok(answer) => response(Body::message(encode(&answer))),
        Err(status) => refuse(&status),
    }
}
