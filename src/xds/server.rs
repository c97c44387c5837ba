//! The gRPC services.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use landbridge_proto::{
    DESCRIPTORS,
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse},
    service::{
        ads::aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
        sds::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};
use tonic_health::server::HealthReporter;
use tracing::{Instrument, field::Empty, info_span};

use super::{
    Limits,
    auth::{Access, Peer, Proven},
    metrics::Metrics,
    rate::Rate,
    secrets::SecretProvider,
    status::Streams,
    stream::{self, Caller, Scope},
    wire::{Delta, Sotw, Wire},
};
use crate::snapshot::Attacher;

/// The largest request. gRPC's default, and istiod's.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// What reflection lists. The descriptors hold more than is served.
const SERVICES: [&str; 3] = [
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "envoy.service.secret.v3.SecretDiscoveryService",
    "istio.v1.auth.IstioCertificateService",
];

/// How streams are treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What one stream may ask for.
    pub limits: Limits,
    /// For how long a client may read nothing while something waits for it.
    pub send_timeout: Duration,
    /// For how long a client may say nothing after it opened a stream.
    pub first_request_timeout: Duration,
    /// How many streams may begin in a second; none: as many as come.
    pub streams_per_second: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            send_timeout: Duration::from_secs(60),
            first_request_timeout: Duration::from_secs(30),
            streams_per_second: None,
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
    /// Where they are counted.
    pub metrics: Metrics,
    /// How they are treated.
    pub settings: Settings,
}

/// The services for one port: ADS, SDS, health and reflection. More can be added to the builder. The reporter says
/// "serving" from the start; set it to "not serving" before a drain.
pub fn routes(context: Arc<Context>, access: Access) -> (RoutesBuilder, HealthReporter) {
    let rate = context.settings.streams_per_second.map(Rate::new).map(Arc::new);
    let service = Service { context, access, rate };
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(
            AggregatedDiscoveryServiceServer::new(service.clone())
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .add_service(SecretDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(health);
    let reflection = || {
        SERVICES.iter().fold(
            tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS),
            |builder, service| builder.with_service_name(*service),
        )
    };
    // grpcurl speaks the old version where the new one is missing, others only the old one.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes.add_service(v1).add_service(v1alpha);
    }
    (routes, reporter)
}

#[derive(Clone)]
struct Service {
    context: Arc<Context>,
    access: Access,
    rate: Option<Arc<Rate>>,
}

type Frames<T> = ReceiverStream<Result<T, Status>>;

impl Service {
    async fn open<W: Wire>(
        &self,
        scope: Scope,
        request: Request<Streaming<W::Request>>,
    ) -> Result<Response<Frames<W::Response>>, Status> {
        if let Some(rate) = &self.rate
            && !rate.wait(Duration::from_secs(1)).await
        {
            self.context.metrics.refused_stream("rate");
            return Err(Status::resource_exhausted("too many streams begin at once; connect again later"));
        }
        let (metadata, extensions, requests) = request.into_parts();
        let Some(peer) = extensions.get::<Peer>().cloned() else {
            return Err(Status::internal("the connection did not come through landbridge's listener"));
        };
        let proven = match &self.access {
            Access::Anonymous => Proven::plaintext(),
            Access::Authenticated(authenticator) => {
                let found = authenticator.authenticate(metadata.as_ref(), &peer).await;
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
        // One frame between the session and HTTP/2: what a slow client has not read yet is not built yet.
        let (out, frames) = mpsc::channel(1);
        let caller = Caller { peer, proven };
        let task = stream::run::<W>(self.context.clone(), scope, caller, requests, out);
        tokio::spawn(task.instrument(span));
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Frames<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Frames<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(Scope::Aggregated, request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(Scope::Aggregated, request).await
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type StreamSecretsStream = Frames<DiscoveryResponse>;
    type DeltaSecretsStream = Frames<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.open::<Sotw>(Scope::Secrets, request).await
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        self.open::<Delta>(Scope::Secrets, request).await
    }
}
