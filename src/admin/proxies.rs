//! Finding a connected proxy by what a person types.

use std::sync::Arc;

use super::{
    AdminState,
    answer::{Params, Refusal},
};
use crate::{
    model::node::Proxy,
    pipeline::State,
    snapshot::{Snapshot, StreamId},
    view::EndpointView,
};

/// istiod's words, which `istioctl` looks for in answers.
pub const NO_PROXY_ID: &str = "You must provide a proxyID in the query string\n";
/// As above.
pub const NOT_CONNECTED: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";

/// A connected proxy with what is published for it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// What its load assignments depend on.
    pub view: EndpointView,
    /// Its resources. Without secrets: they are not part of snapshots.
    pub snapshot: Arc<Snapshot>,
}

/// The proxy that the request names; istiod's refusals when there is none.
pub async fn find(admin: &AdminState, params: &Params) -> Result<Found, Refusal> {
    let wanted =
        params.proxy_id.clone().filter(|id| !id.is_empty()).ok_or_else(|| Refusal::bad(NO_PROXY_ID))?;
    let found = admin.inspector.ask(move |state| find_in(state, &wanted)).await;
    found.ok_or_else(Refusal::no_pipeline)?.ok_or_else(|| Refusal::not_found(NOT_CONNECTED))
}

/// As at istiod, a part of the connection's id (`<node id>-<n>`) is enough. The best match wins: the whole proxy id, then
/// the pod's name, then any part, so that `web` does not find `web-admin` where both exist; the youngest stream first,
/// for a proxy that reconnects has two for a moment.
pub fn find_in(state: &State, wanted: &str) -> Option<Found> {
    let rank = |proxy: &Proxy, stream: StreamId| -> Option<u8> {
        if *proxy.id == *wanted || *proxy.node_id == *wanted {
            Some(0)
        } else if *proxy.name == *wanted {
            Some(1)
        } else if format!("{}-{}", proxy.node_id, stream.0).contains(wanted) || proxy.id.contains(wanted) {
            Some(2)
        } else {
            None
        }
    };
    state
        .classes
        .proxies()
        .filter_map(|(id, proxy, views, snapshot)| Some((rank(proxy, id)?, id, proxy, views, snapshot)))
        .min_by_key(|(rank, id, proxy, ..)| (*rank, proxy.id.clone(), std::cmp::Reverse(*id)))
        .map(|(_, _, proxy, views, snapshot)| Found {
            proxy: proxy.clone(),
            view: views.endpoints.clone(),
            snapshot,
        })
}
