//! The gRPC services.

use std::{
    num::NonZeroU32,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{Request, Response};
use landbridge_proto::DESCRIPTORS;
use lean_http2::server::Incoming;
use tonic::{
    Status,
    service::{Routes, RoutesBuilder},
};
use tonic_health::server::HealthReporter;
use tracing::{field::Empty, info_span};

use super::{
    Limits, Shared,
    auth::{Access, Peer, Proven},
    metrics::Metrics,
    overload::Overload,
    rate::Rate,
    secrets::SecretProvider,
    status::Streams,
    stream::{self, Caller, Scope},
    wire::{Delta, Sotw, Wire},
};
use crate::{
    grpc::{self, Messages, Router},
    snapshot::Attacher,
};

/// What reflection lists. The descriptors hold more than is served.
const SERVICES: [&str; 3] = [
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "envoy.service.secret.v3.SecretDiscoveryService",
    "istio.v1.auth.IstioCertificateService",
];

/// Reading the descriptors takes as long as hundreds of proxies that connect, and few ever ask.
static REFLECTION: LazyLock<Routes> = LazyLock::new(|| {
    let reflection = || {
        SERVICES.iter().fold(
            tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS),
            |builder, service| builder.with_service_name(*service),
        )
    };
    let mut routes = RoutesBuilder::default();
    // grpcurl speaks the old version where the new one is missing, others only the old one.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes.add_service(v1).add_service(v1alpha);
    }
    routes.routes().prepare()
});

/// How streams are treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What one stream may ask for.
    pub limits: Limits,
    /// For how long a client may say nothing after it opened a stream.
    pub first_request_timeout: Duration,
    /// How many streams may begin in a second; none: as many as come.
    pub streams_per_second: Option<NonZeroU32>,
    /// Whether Delta proxies that can take virtual hosts one by one get them so, if their metadata does not decide.
    pub enable_vhds: bool,
    /// The same of the endpoints of large assignments.
    pub enable_leds: bool,
    /// Assignments of more endpoints than this are large.
    pub leds_above: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            first_request_timeout: Duration::from_secs(30),
            streams_per_second: None,
            enable_vhds: true,
            enable_leds: true,
            leds_above: 200,
        }
    }
}

/// What all streams share.
pub struct Context {
    /// Where they get snapshots.
    pub attacher: Attacher,
    /// Where they get secrets.
    pub secrets: Arc<dyn SecretProvider>,
    /// Where they are listed.
    pub streams: Arc<Streams>,
    /// What they have in common.
    pub shared: Arc<Shared>,
    /// Where they are counted.
    pub metrics: Metrics,
    /// How many of them there may be.
    pub overload: Arc<Overload>,
    /// How they are treated.
    pub settings: Settings,
}

/// The services for one port: ADS, SDS, health and reflection. More can be added to the router. The reporter says
/// "serving" from the start; set it to "not serving" before a drain.
pub fn routes(context: Arc<Context>, access: Access) -> (Router, HealthReporter) {
    let rate = context.settings.streams_per_second.map(Rate::new).map(Arc::new);
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut others = RoutesBuilder::default();
    others.add_service(health);
    let mut router = Router::new(others.routes());
    router.rare("/grpc.reflection.", &REFLECTION);
    let service = Service { context, access, rate };
    let (ads, sds) = (Scope::Aggregated, Scope::Secrets);
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
    service.mount::<Sotw>(&mut router, path, ads);
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    service.mount::<Delta>(&mut router, path, ads);
    service.mount::<Sotw>(&mut router, "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", sds);
    service.mount::<Delta>(&mut router, "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", sds);
    (router, reporter)
}

#[derive(Clone)]
struct Service {
    context: Arc<Context>,
    access: Access,
    rate: Option<Arc<Rate>>,
}

impl Service {
    fn mount<W: Wire>(&self, router: &mut Router, path: &'static str, scope: Scope) {
        let service = self.clone();
        router.method(path, move |request| {
            let service = service.clone();
            async move { service.open::<W>(scope, request).await.unwrap_or_else(|status| grpc::refuse(&status)) }
        });
    }

    async fn open<W: Wire>(
        self,
        scope: Scope,
        request: Request<Incoming>,
    ) -> Result<Response<grpc::Body>, Status> {
        if let Some(rate) = &self.rate
            && !rate.wait(Duration::from_secs(1)).await
        {
            self.context.metrics.refused_stream("rate");
            return Err(Status::resource_exhausted("too many streams begin at once; connect again later"));
        }
        let (head, body) = request.into_parts();
        let Some(peer) = head.extensions.get::<Peer>().cloned() else {
            return Err(Status::internal("the connection did not come through landbridge's listener"));
        };
        // The connection itself takes memory, too.
        let admitted = self.context.overload.admit().inspect_err(|_| peer.connection.handle.leave())?;
        let proven = match &self.access {
            Access::Anonymous => Proven::plaintext(),
            Access::Authenticated(authenticator) => {
                let found = authenticator.authenticate(&head.headers, &peer).await;
                found.map_err(|reason| {
                    self.context.metrics.refused_stream("authentication");
                    tracing::info!(peer = %peer.address, reason, "a client is not authenticated");
                    Status::unauthenticated(reason)
                })?
            }
        };
        let span = info_span!(
            "xds",
            peer = %peer.address,
            node = Empty,
            identity = proven.identity.as_ref().map(tracing::field::display),
        );
        let requests = Messages::new(&head.headers, body, grpc::MAX_REQUEST_BYTES);
        let (pace, patience) = (peer.connection.call(), grpc::timeout(&head.headers));
        let caller = Caller { peer, proven, admitted, span };
        Ok(grpc::streaming(pace, patience, stream::serve::<W>(self.context, scope, caller, requests)))
    }
}
