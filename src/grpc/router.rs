//! Which code serves which path.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, LazyLock},
};

use futures::future::BoxFuture;
use http::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    request::Parts,
};
use lean_http2::server::Incoming;
use prost::Message;
use tonic::{Status, service::Routes};
use tower::Service;

use super::{Body, refuse, unary};

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Methods by path, and tonic's services for every other path. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    methods: Arc<HashMap<&'static str, Handler>>,
    rare: Option<(&'static str, &'static LazyLock<Routes>)>,
    others: Routes,
}

impl Router {
    /// Tonic's services, to which methods may be added.
    pub fn new(others: Routes) -> Self {
        Self { methods: Arc::default(), rare: None, others: others.prepare() }
    }

    /// Serves all paths that begin like this with services of tonic that are made when somebody asks for them. Only
    /// one beginning: another one takes its place.
    pub fn rare(&mut self, prefix: &'static str, routes: &'static LazyLock<Routes>) {
        self.rare = Some((prefix, routes));
    }

    /// Serves `path` (`/package.Service/Method`) with `handler`.
    pub fn method<F>(
        &mut self,
        path: &'static str,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let boxed: Handler = Arc::new(move |request| Box::pin(handler(request)));
        Arc::make_mut(&mut self.methods).insert(path, boxed);
    }

    /// Serves `path` with a function from one request, of up to `limit` bytes, to one response.
    pub fn unary<Q, A, F>(
        &mut self,
        path: &'static str,
        limit: usize,
        call: impl Fn(Parts, Q) -> F + Clone + Send + Sync + 'static,
    ) where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.method(path, move |request| unary(request, limit, call.clone()));
    }

    /// Serves a request.
    pub fn call(&self, request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
        if let Some(handler) = self.methods.get(request.uri().path()) {
            return match unfit(&request) {
                None => handler(request),
                Some(refusal) => Box::pin(std::future::ready(refusal)),
            };
        }
        let rare = self.rare.filter(|(prefix, _)| request.uri().path().starts_with(prefix));
        let mut others = rare.map_or(&self.others, |(_, routes)| routes).clone();
        Box::pin(async move {
            match others.call(request).await {
                Ok(response) => response.map(Body::from),
                Err(never) => match never {},
            }
        })
    }
}

/// What gRPC answers to HTTP that is no gRPC.
fn unfit(request: &Request<Incoming>) -> Option<Response<Body>> {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let code = if request.method() != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !kind.starts_with(b"application/grpc") || kind.starts_with(b"application/grpc-web") {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    let mut response = refuse(&Status::unknown("this is a gRPC service: POST application/grpc to it"));
    *response.status_mut() = code;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    Some(response)
}
