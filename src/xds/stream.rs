//! One stream at work: it moves requests, snapshots and secrets into the session, and frames out of it.
//!
//! A stream of futures and not an async block, and with little between its fields: with ten thousand streams, what each of them
//! touches when it wakes is not in the processor's cache, and costs more than what it does.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context as Task, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use lean_http2::{alarm::Alarm, fetch, server::Handle};
use tokio::{task::coop::consume_budget, time::sleep_until};
use tonic::Status;
use tracing::{Instrument, Span, debug, info, warn};

use super::{
    Frame, Heard, Kind, Nonce, Protocol, Session,
    auth::{Peer, Proven},
    node,
    overload::Admitted,
    payload::Payload,
    secrets::Secrets,
    server::Context,
    status::{Connected, Mark},
    wire::Wire,
};
use crate::{
    grpc::Messages,
    model::node::Proxy,
    snapshot::{Attachment, Filter, Nack, ResourceType, Snapshot},
    text::{printable, shorten},
};

/// Istio's agent reports its workload's health this way; it expects no answer.
const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// How many bytes of a proxy's words are kept.
const MAX_REASON: usize = 4096;
/// For how many unknown types a stream is worth a line in the log.
const MAX_IGNORED: usize = 16;

/// A client that starts asks a few times until it has all.
const FREE_SHARES: u8 = 16;
const SPACING: Duration = Duration::from_secs(10);

/// What a stream serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All types.
    Aggregated,
    /// Only secrets: the proxy has another stream for the rest.
    Secrets,
}

/// Who opened a stream.
pub struct Caller {
    /// The connection.
    pub peer: Peer,
    /// Who it has proved to be.
    pub proven: Proven,
    /// Its place among all streams.
    pub admitted: Admitted,
    /// What is told about it belongs to this. Entered where something is told, and not whenever a stream wakes: that is often,
    /// and nearly never tells anything.
    pub span: Span,
}

/// One stream: what it sends, until it ends. Dropped when the client is gone.
pub struct Serving<W: Wire> {
    connection: Handle,
    /// Until it is known who asks.
    opening: Option<BoxFuture<'static, Result<Option<Stream<W>>, Status>>>,
    stream: Option<Stream<W>>,
    ended: Ended,
}

/// Serves a stream.
pub fn serve<W: Wire>(context: Arc<Context>, scope: Scope, caller: Caller, requests: Messages) -> Serving<W> {
    let (connection, span) = (caller.peer.connection.handle.clone(), caller.span.clone());
    let ended = Ended { span: span.clone(), opened: Instant::now(), status: None };
    let opening = Stream::open(context, scope, caller, requests).instrument(span).boxed();
    Serving { connection, opening: Some(opening), stream: None, ended }
}

impl<W: Wire> futures::Stream for Serving<W> {
    type Item = Result<Payload, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.poll_frame(cx));
        self.ended.status = next.as_ref().err().cloned();
        Poll::Ready(next.map(|frame| frame.map(|frame| Payload::new(W::PROTOCOL, frame))).transpose())
    }
}

impl<W: Wire> Serving<W> {
    /// The next frame to send; none when the client wants no more.
    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Result<Option<Frame>, Status>> {
        if self.connection.is_leaving() {
            return Poll::Ready(Err(going_away()));
        }
        if let Some(opening) = &mut self.opening {
            self.stream = ready!(opening.as_mut().poll(cx))?;
            self.opening = None;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
        stream.fetch();
        // What the client says first: it may change what it is sent.
        while let Poll::Ready(request) = stream.requests.poll_next(cx) {
            let Some(request) = request? else { return Poll::Ready(Ok(None)) };
            stream.hear(&W::read(&request)?)?;
            // Others have their turn, too.
            ready!(pin!(consume_budget()).poll(cx));
        }
        stream.poll_frame(cx).map_ok(Some)
    }
}

/// Tells about a stream's end.
struct Ended {
    span: Span,
    opened: Instant,
    status: Option<Status>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let seconds = self.opened.elapsed().as_secs();
        match &self.status {
            None => info!(parent: &self.span, seconds, "the stream ended"),
            Some(status) => {
                info!(parent: &self.span, code = ?status.code(), reason = status.message(), seconds, "stream closed");
            }
        }
    }
}

/// A stream whose proxy is known.
struct Stream<W> {
    context: Arc<Context>,
    requests: Messages,
    scope: Scope,
    node_id: String,
    trusted: bool,
    session: Session,
    attachment: Option<Attachment>,
    secrets: Secrets,
    connected: Option<Connected>,
    ignored: BTreeSet<String>,
    /// Whether the session may have a frame.
    dirty: bool,
    /// When it may have one although nothing happened.
    alarm: Alarm,
    /// Whether what the client asks for may have changed since it was shared with other streams.
    unshared: bool,
    /// How often and when it was shared last. It takes time for each name, so that a client which changes its mind all
    /// the time must not make us do it each time.
    shares: u8,
    shared: Instant,
    _counted: super::metrics::ConnectedGuard,
    _admitted: Admitted,
    span: Span,
    wire: std::marker::PhantomData<fn(W)>,
}

impl<W: Wire> Stream<W> {
    /// Asks for the memory that is not in one piece with the stream.
    fn fetch(&self) {
        self.session.fetch();
        self.connected.iter().for_each(|connected| fetch(&*connected.status));
        self.attachment.iter().for_each(|attachment| attachment.snapshots().fetch());
    }

    /// Waits until the client has said who it is. None: it has said nothing, and will not.
    async fn open(
        context: Arc<Context>,
        scope: Scope,
        caller: Caller,
        mut requests: Messages,
    ) -> Result<Option<Self>, Status> {
        let patience = context.settings.first_request_timeout;
        let end = Instant::now() + patience;
        loop {
            let request = tokio::select! {
                request = requests.next() => request?,
                () = sleep_until(end.into()) => return Err(Status::deadline_exceeded(format!(
                    "no request within {} s of the stream's start; send one with the node",
                    patience.as_secs()
                ))),
            };
            let Some(request) = request else { return Ok(None) };
            let first = W::read(&request)?;
            if W::type_url(&first) != HEALTH_INFORMATION {
                return Self::begin(context, scope, caller, requests, &first).await.map(Some);
            }
        }
    }

    /// A stream whose `first` request says who it is from.
    async fn begin(
        context: Arc<Context>,
        scope: Scope,
        caller: Caller,
        requests: Messages,
        first: &W::Request<'_>,
    ) -> Result<Self, Status> {
        let node_id = W::node_id(first).to_owned();
        let Caller { peer, proven, admitted, span } = caller;
        let (attachment, connected, snapshot) = match scope {
            // A secret belongs to an identity, whatever the node says.
            Scope::Secrets => (None, None, Arc::new(Snapshot::empty())),
            Scope::Aggregated => {
                let proxy = admit(&context, W::node(first)?.as_ref(), W::PROTOCOL, &proven)?;
                let attachment = context
                    .attacher
                    .attach(proxy.clone())
                    .await
                    .map_err(|closed| Status::unavailable(closed.to_string()))?;
                let snapshot = attachment.snapshots().newest();
                let (identity, streams) = (proven.identity.clone(), &context.streams);
                let connected = streams.connect(proxy, peer.address, identity, W::PROTOCOL, snapshot.clone());
                (Some(attachment), Some(connected), snapshot)
            }
        };
        span.record("node", tracing::field::display(printable(&node_id)));
        info!(protocol = ?W::PROTOCOL, ?scope, "the proxy is connected");
        let mut stream = Self {
            requests,
            scope,
            node_id,
            trusted: proven.identity.is_some(),
            session: Session::new(W::PROTOCOL, snapshot, context.settings.limits)
                .sharing(context.shared.clone()),
            attachment,
            secrets: Secrets::new(context.secrets.clone(), proven.identity),
            connected,
            ignored: BTreeSet::new(),
            dirty: false,
            alarm: Alarm::default(),
            unshared: false,
            shares: 0,
            shared: Instant::now(),
            _counted: context.metrics.connected(W::PROTOCOL),
            _admitted: admitted,
            span,
            wire: std::marker::PhantomData,
            context,
        };
        stream.hear(first)?;
        Ok(stream)
    }

    /// All requests of a stream are from one node.
    fn check_node(&self, id: &str) -> Result<(), Status> {
        if id.is_empty() || id == self.node_id {
            return Ok(());
        }
        self.context.metrics.refused_stream("node_changed");
        let (was, is) = (shorten(&self.node_id), shorten(id));
        Err(Status::invalid_argument(format!(
            "the node id changed from {was:?} to {is:?}; open another stream for another node"
        )))
    }

    fn hear(&mut self, request: &W::Request<'_>) -> Result<(), Status> {
        self.check_node(W::node_id(request))?;
        let Some(kind) = self.kind(W::type_url(request))? else { return Ok(()) };
        let first = !self.session.watch(kind).started;
        let heard = W::hear(&mut self.session, kind, request).map_err(|violation| {
            self.context.metrics.refused_stream("limits");
            warn!(parent: &self.span, %violation, "the stream asks for too much");
            match violation {
                super::Violation::TooManyNames { .. } => Status::resource_exhausted(violation.to_string()),
                super::Violation::NameLength { .. } => Status::invalid_argument(violation.to_string()),
            }
        })?;
        self.note(kind, heard, W::refusal(request));
        // Most only accept what was sent.
        if first || W::resubscribes(request) {
            self.resubscribed(kind, first, request);
        }
        self.settled(false);
        self.dirty = true;
        Ok(())
    }

    /// The client may want something else now.
    fn resubscribed(&mut self, kind: Kind, first: bool, request: &W::Request<'_>) {
        if kind == Kind::Secret {
            let (names, asked) = (&self.session.watch(kind).subscription.names, W::asked(request, first));
            for (name, why) in self.secrets.follow(names, &asked) {
                self.context.metrics.withheld(why.label());
                let (secret, reason) = (printable(&name), why.reason());
                warn!(parent: &self.span, secret, reason, "a secret is not given");
            }
            self.take_secrets();
        }
        let subscription = &self.session.watch(kind).subscription;
        let (names, wildcard) = (subscription.names.len(), subscription.wildcard);
        if W::resubscribes(request) {
            self.unshared = true;
            self.follow(kind);
        }
        self.update(kind, |status| (status.names, status.wildcard) = (names, wildcard));
    }

    /// The type to serve, if it is one that this stream serves. Others are left unanswered, as xDS asks of servers
    /// that do not know a type.
    fn kind(&mut self, url: &str) -> Result<Option<Kind>, Status> {
        let kind = match (url, self.scope) {
            ("", Scope::Secrets) => Some(Kind::Secret),
            ("", Scope::Aggregated) => {
                self.context.metrics.refused_stream("no_type");
                return Err(Status::invalid_argument(
                    "a request on an aggregated stream has to name its type_url",
                ));
            }
            (HEALTH_INFORMATION, _) => return Ok(None),
            (url, Scope::Aggregated) => Kind::from_type_url(url),
            (url, Scope::Secrets) => Kind::from_type_url(url).filter(|k| *k == Kind::Secret),
        };
        if kind.is_none() && self.ignored.len() < MAX_IGNORED && self.ignored.insert(printable(url)) {
            self.context.metrics.ignored_type();
            info!(parent: &self.span, type_url = %printable(url), "a type that is not served here is left unanswered");
        }
        Ok(kind)
    }

    fn note(&mut self, kind: Kind, heard: Heard, reason: Option<&str>) {
        match heard {
            Heard::Subscribed => {}
            Heard::Stale => self.context.metrics.stale(kind),
            Heard::Acked(response) => {
                if response.push {
                    self.context.metrics.acked(kind, response.step.snapshot.event.elapsed());
                }
                let mark = mark(response.nonce, response.step.snapshot.epoch);
                self.update(kind, |status| status.acked = Some(mark));
            }
            Heard::Nacked(_, culprits) => {
                let reason = reason.unwrap_or_default();
                let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
                self.context.metrics.rejected(kind);
                let short = kind.short();
                warn!(parent: &self.span, kind = short, resources = ?culprits, reason, "the proxy refused resources");
                self.update(kind, |status| {
                    status.refused = Some(Box::new((reason.to_owned(), SystemTime::now())))
                });
                self.report(kind, reason, &culprits);
            }
        }
    }

    /// Tells the pipeline, which may fall back to the last good bytes for everybody: so only on the word of a proxy
    /// that has proved who it is.
    fn report(&self, kind: Kind, reason: &str, culprits: &[Arc<crate::snapshot::Encoded>]) {
        let (Kind::Snapshot(kind), Some(attachment), true) = (kind, &self.attachment, self.trusted) else {
            return;
        };
        let reason: Arc<str> = reason.into();
        for resource in culprits {
            let (name, version, reason) = (resource.name.clone(), resource.version, reason.clone());
            attachment.nack(Nack { kind, name, version, reason });
        }
    }

    fn take_snapshot(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        let snapshot = attachment.snapshots().newest();
        if let Some(connected) = &self.connected {
            connected.status.saw(snapshot.clone());
        }
        self.session.snapshot(snapshot);
        self.dirty = true;
    }

    /// Says what the stream wants to be woken for, and answers from a snapshot that is not older than that.
    fn follow(&mut self, kind: Kind) {
        let Some(attachment) = &self.attachment else { return };
        if kind == Kind::Snapshot(ResourceType::Endpoint) {
            let subscription = &self.session.watch(kind).subscription;
            let everything = subscription.wildcard;
            let names = if everything { &Filter::EVERYTHING } else { subscription.names.filter() };
            attachment.snapshots().follow(names);
        }
        self.take_snapshot();
    }

    fn take_secrets(&mut self) {
        self.session.secrets(self.secrets.resources());
        self.dirty = true;
    }

    /// To be called when the client has all that it wants: most never ask for anything else.
    fn share_names(&mut self) {
        if self.unshared && (self.shares < FREE_SHARES || self.shared.elapsed() > SPACING) {
            self.unshared = false;
            if self.session.share_names() {
                self.shares = self.shares.saturating_add(1);
                self.shared = Instant::now();
            }
        }
    }

    /// Ready when there is a frame to send.
    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Result<Frame, Status>> {
        loop {
            if self.dirty {
                if let Some(frame) = self.next_frame() {
                    return Poll::Ready(Ok(frame));
                }
                if let Some(end) = self.session.deadline(Instant::now()) {
                    self.alarm.set_at_the_latest(end.into());
                }
            }
            let snapshots = self.attachment.as_ref().map(Attachment::snapshots);
            if let Some(Poll::Ready(changed)) = snapshots.map(|snapshots| snapshots.poll_changed(cx)) {
                changed.map_err(|closed| Status::unavailable(closed.to_string()))?;
                self.take_snapshot();
            } else if self.secrets.poll_changed(cx).is_ready() {
                self.take_secrets();
            } else if self.alarm.poll(cx).is_ready() {
                self.dirty = true;
            } else {
                return Poll::Pending;
            }
        }
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let Some(frame) = self.session.next_frame(Instant::now()) else {
            self.dirty = false;
            self.share_names();
            self.settled(true);
            return None;
        };
        let (kind, bytes) = (frame.kind, frame.bytes());
        debug!(
            parent: &self.span,
            kind = kind.short(),
            resources = frame.resources.len(),
            removed = frame.removed.len(),
            bytes,
            "sent"
        );
        self.context.metrics.sent(&frame);
        let mark = mark(frame.nonce, frame.step.snapshot.epoch);
        if let Some(connected) = &self.connected {
            connected.status.sent(kind, mark, bytes);
        }
        Some(frame)
    }

    fn settled(&self, settled: bool) {
        if let Some(connected) = &self.connected {
            connected.status.settled(settled);
        }
    }

    fn update(&self, kind: Kind, change: impl FnOnce(&mut super::status::KindStatus)) {
        if let Some(connected) = &self.connected {
            connected.status.update(kind, change);
        }
    }
}

/// Reads the node and holds it against the identity.
fn admit(
    context: &Context,
    node: Option<&landbridge_proto::envoy::config::core::v3::Node>,
    protocol: Protocol,
    proven: &Proven,
) -> Result<Arc<Proxy>, Status> {
    let read = || {
        let mut proxy = node::proxy(node)?;
        if protocol == Protocol::Delta {
            let settings = &context.settings;
            proxy.virtual_hosts = node::virtual_hosts(node, settings.enable_vhds)?;
            let one_by_one = node::endpoints_one_by_one(node, settings.enable_leds)?;
            proxy.one_by_one_above = one_by_one.then_some(settings.leds_above);
        }
        Ok(proxy)
    };
    let proxy = read().map_err(|error: node::NodeError| {
        context.metrics.refused_stream("node");
        Status::invalid_argument(error.to_string())
    })?;
    let account = proxy.service_account.as_deref().unwrap_or_default();
    proven.authorize(&proxy.namespace, account, proxy.cluster.as_str()).map_err(|forbidden| {
        context.metrics.refused_stream("identity");
        Status::permission_denied(forbidden.to_string())
    })?;
    Ok(Arc::new(proxy))
}

fn going_away() -> Status {
    Status::unavailable("the server ends this connection in an orderly way; connect again")
}

fn mark(nonce: Nonce, epoch: u64) -> Mark {
    Mark { nonce, epoch, at: SystemTime::now() }
}
