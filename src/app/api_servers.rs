//! The API servers of registered clusters, where they are asked about tokens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{authn::review::Reviewers, model::ClusterId, registry::kubernetes::Access};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// How long an API server may take over a review. A proxy waits for it, and tries again by itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reviews at a time: when a whole cluster's proxies come back, its API server is not to be flooded.
const AT_ONCE: usize = 64;

/// The ways to API servers that are in use, shared with the sources that read from them.
#[derive(Clone, Debug)]
pub struct ApiServers {
    own: ClusterId,
    all: Arc<Mutex<BTreeMap<String, Access>>>,
    turns: Arc<Semaphore>,
}

impl ApiServers {
    /// None yet. `own`: the cluster of callers that name none.
    pub fn new(own: ClusterId) -> Self {
        Self { own, all: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// A cluster is read by this way from now on.
    pub fn insert(&self, cluster: &ClusterId, access: Access) {
        self.all.lock().insert(cluster.to_string(), access);
    }

    /// The way to the own cluster, if it is read from an API server.
    pub fn own_access(&self) -> Option<Access> {
        self.all.lock().get(self.own.as_str()).cloned()
    }

    /// A cluster is not read from an API server any more.
    pub fn remove(&self, cluster: &ClusterId) {
        self.all.lock().remove(cluster.as_str());
    }
}

impl Reviewers for ApiServers {
    fn own(&self) -> &str {
        self.own.as_str()
    }

    fn clusters(&self) -> Vec<String> {
        self.all.lock().keys().cloned().collect()
    }

    fn ask<'a>(&'a self, cluster: &'a str, review: Vec<u8>) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        async move {
            let _turn = self.turns.acquire().await.map_err(|_| "the control plane is ending")?;
            let access = self.all.lock().get(cluster).cloned();
            let client = access.ok_or("it is not registered any more")?.client();
            let answer = client.post(REVIEWS, review, PATIENCE).await;
            answer.map(|bytes| bytes.to_vec()).map_err(|failure| failure.to_string())
        }
        .boxed()
    }
}
