//! A scripted API server: lists, pages, streamed lists and watches of a few collections, and everything that goes wrong
//! with them.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

type Body = BoxBody<Bytes, std::io::Error>;
/// Plural, namespace, name.
pub type Id = (String, String, String);

/// What the server holds, and how it behaves.
#[derive(Default)]
pub struct State {
    pub version: u64,
    pub objects: BTreeMap<Id, Value>,
    /// Version, plural, line.
    log: Vec<(u64, String, String)>,
    /// Versions up to it are forgotten.
    pub compacted: u64,
    /// Streamed lists are refused, as old servers do.
    pub no_streams: bool,
    /// Objects of a page, at most.
    pub page: usize,
    /// Collections that are not installed.
    pub missing: Vec<&'static str>,
    /// The next answers, by a part of the path; each is used once.
    pub next: VecDeque<(&'static str, Answer)>,
    /// While it is set, for paths that contain it.
    pub always: Option<(&'static str, Answer)>,
    /// Nothing is said on any connection, and nothing is answered.
    pub frozen: bool,
    /// A watch with another number ends: its connection breaks (odd) or it ends well (even).
    pub epoch: u64,
    /// Every request's path.
    pub requests: Vec<String>,
    /// Credentials of requests.
    pub tokens: Vec<String>,
    bookmarks: BTreeMap<String, u64>,
}

/// What is answered instead.
#[derive(Clone)]
pub enum Answer {
    Status(u16, &'static str, Option<u32>),
    /// With 200.
    Text(String),
}

/// A running server.
pub struct Api {
    state: Arc<Mutex<State>>,
    woken: watch::Sender<u64>,
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn id(plural: &str, namespace: &str, name: &str) -> Id {
    (plural.into(), namespace.into(), name.into())
}

impl Api {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { version: 10, page: 500, ..State::default() }));
        let woken = watch::Sender::new(0);
        let (given, wakes) = (state.clone(), woken.subscribe());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (state, wakes) = (given.clone(), wakes.clone());
                let service =
                    hyper::service::service_fn(move |request| answer(state.clone(), wakes.clone(), request));
                let io = hyper_util::rt::TokioIo::new(stream);
                connections.spawn(async move {
                    // A connection that breaks is what is tested.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        Self { state, woken, address, task }
    }

    /// Changes what is held or how it behaves.
    pub fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.woken.send_modify(|n| *n += 1);
        result
    }

    /// Creates or changes an object; its fields beside the metadata.
    pub fn put(&self, id: &Id, labels: Value, fields: Value) {
        self.set(|state| state.put(id, labels, fields));
    }

    pub fn delete(&self, id: &Id) {
        self.set(|state| state.delete(id));
    }

    /// Every watch breaks.
    pub fn break_watches(&self) {
        self.set(|state| state.epoch = (state.epoch + 1) | 1);
    }

    /// Every watch ends well.
    pub fn end_watches(&self) {
        self.set(|state| state.epoch = (state.epoch + 2) & !1);
    }

    pub fn bookmark(&self, plural: &str) {
        self.set(|state| {
            state.bookmarks.insert(plural.into(), state.version);
        });
    }

    /// A line on the watches of a collection.
    pub fn say(&self, plural: &str, line: &str) {
        self.set(|state| {
            state.version += 1;
            state.log.push((state.version, plural.into(), line.into()));
        });
    }

    /// How often a path was asked for.
    pub fn asked(&self, part: &str) -> usize {
        self.state.lock().requests.iter().filter(|path| path.contains(part)).count()
    }
}

impl State {
    pub fn put(&mut self, id: &Id, labels: Value, fields: Value) {
        self.version += 1;
        let kind = if self.objects.contains_key(id) { "MODIFIED" } else { "ADDED" };
        let mut object = json!({ "metadata": { "name": id.2, "namespace": id.1, "labels": labels,
            "resourceVersion": self.version.to_string() } });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.log.push((self.version, id.0.clone(), json!({ "type": kind, "object": object }).to_string()));
        self.objects.insert(id.clone(), object);
    }

    pub fn delete(&mut self, id: &Id) {
        self.version += 1;
        if let Some(mut object) = self.objects.remove(id) {
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            let line = json!({ "type": "DELETED", "object": object }).to_string();
            self.log.push((self.version, id.0.clone(), line));
        }
    }

    /// Without telling anybody.
    pub fn forget(&mut self) {
        self.compacted = self.version;
        self.log.clear();
    }
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

fn status(code: u16, reason: &str, after: Option<u32>) -> Response<Body> {
    let body = json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("scripted: {reason}") });
    let mut response = Response::new(whole(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    if let Some(seconds) = after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

async fn answer(
    state: Arc<Mutex<State>>,
    wakes: watch::Receiver<u64>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let uri = request.uri().clone();
    let path = uri.path_and_query().unwrap().as_str().to_owned();
    if state.lock().frozen {
        let mut wakes = wakes.clone();
        let thawed = async { while state.lock().frozen && wakes.changed().await.is_ok() {} };
        thawed.await;
    }
    let query: BTreeMap<_, _> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let plural = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let mut held = state.lock();
    held.requests.push(path.clone());
    let token = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
    held.tokens.extend(token);
    let scripted = match held.next.iter().position(|(part, _)| path.contains(part)) {
        Some(at) => held.next.remove(at),
        None => held.always.clone().filter(|(part, _)| path.contains(part)),
    };
    match scripted {
        Some((_, Answer::Status(code, reason, after))) => return Ok(status(code, reason, after)),
        Some((_, Answer::Text(text))) => return Ok(Response::new(whole(text))),
        None => {}
    }
    if held.missing.contains(&plural.as_str())
        || held.missing.iter().any(|m| plural.starts_with(&format!("{m}.")))
    {
        return Ok(status(404, "NotFound", None));
    }
    if uri.path().contains("/customresourcedefinitions/") {
        return Ok(Response::new(whole("{}")));
    }
    let objects = held.objects.iter().filter(|(id, _)| id.0 == plural);
    let text = |name: &str| query.get(name).copied().unwrap_or_default();
    if text("watch") == "1" {
        let streamed = text("sendInitialEvents") == "true";
        if streamed && held.no_streams {
            return Ok(status(422, "Invalid", None));
        }
        let mut first = String::new();
        let from = if streamed {
            objects.for_each(|(_, o)| first += &format!("{}\n", json!({ "type": "ADDED", "object": o })));
            first += &format!("{}\n", bookmark(held.version, true));
            held.version
        } else {
            text("resourceVersion").parse().unwrap()
        };
        if from < held.compacted {
            // As a line: a watch was accepted before.
            let error = json!({ "kind": "Status", "code": 410, "reason": "Expired", "status": "Failure" });
            return Ok(Response::new(whole(format!("{}\n", json!({ "type": "ERROR", "object": error })))));
        }
        let epoch = held.epoch;
        drop(held);
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(follow(state, wakes, plural, from, epoch, first, sender));
        return Ok(Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed()));
    }
    let skip: usize = text("continue").parse().unwrap_or_default();
    let limit = text("limit").parse().unwrap_or(usize::MAX).min(held.page);
    let total = objects.clone().count();
    let items: Vec<_> = objects.skip(skip).take(limit).map(|(_, o)| o.clone()).collect();
    let next = if skip + items.len() < total { (skip + items.len()).to_string() } else { String::new() };
    let metadata = json!({ "resourceVersion": held.version.to_string(), "continue": next });
    Ok(Response::new(whole(json!({ "kind": "List", "metadata": metadata, "items": items }).to_string())))
}

fn bookmark(version: u64, listed: bool) -> Value {
    let annotations = if listed { json!({ "k8s.io/initial-events-end": "true" }) } else { json!({}) };
    let metadata = json!({ "resourceVersion": version.to_string(), "annotations": annotations });
    json!({ "type": "BOOKMARK", "object": { "metadata": metadata } })
}

type Sent = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

async fn follow(
    state: Arc<Mutex<State>>,
    mut wakes: watch::Receiver<u64>,
    plural: String,
    mut from: u64,
    epoch: u64,
    first: String,
    sender: Sent,
) {
    let mut told = from;
    let mut text = first;
    loop {
        let ended = {
            let state = state.lock();
            if !state.frozen {
                for (version, of, line) in &state.log {
                    if *version > from && *of == plural {
                        text += line;
                        text.push('\n');
                    }
                }
                from = from.max(state.version);
                if let Some(version) = state.bookmarks.get(&plural).filter(|v| **v > told) {
                    told = *version;
                    text += &format!("{}\n", bookmark(*version, false));
                }
            }
            (state.epoch != epoch).then_some(state.epoch)
        };
        // In two parts, anywhere in a line.
        let bytes = Bytes::from(std::mem::take(&mut text));
        let half = bytes.len() / 2;
        for part in [bytes.slice(..half), bytes.slice(half..)] {
            if !part.is_empty() && sender.send(Ok(Frame::data(part))).await.is_err() {
                return;
            }
        }
        match ended {
            Some(epoch) if epoch % 2 == 1 => {
                drop(sender.send(Ok(Frame::data(Bytes::from_static(b"{\"type\":\"ADD")))).await);
                drop(sender.send(Err(std::io::Error::other("broken"))).await);
                return;
            }
            Some(_) => return,
            None => {}
        }
        tokio::select! {
            woken = wakes.changed() => if woken.is_err() { return },
            () = sender.closed() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => return,
        }
    }
}
