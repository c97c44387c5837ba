//! Two clusters, a control plane of one of them, and its proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use landbridge::app::clusters::Place;
use landbridge::app::{self, Config};
use landbridge::snapshot::ResourceType;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use xds_tests::client::{Client, Kind, Options, Protocol};
use xds_tests::kubernetes::{Binaries, Cluster, Login, Settings, crds, secret_file};

use super::serving::{is_ready, own_address, serve_config};

/// Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
const EDS: &str = "outbound|80||backend.production.svc.cluster.local";
const KIND: Kind = Kind::Snapshot(ResourceType::Endpoint);

pub const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: production}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n";
pub const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: backend, namespace: production}\nspec: {ports: [{name: http, port: 80, targetPort: 8080}]}\n";

pub const READERS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: first, namespace: istio-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: second, namespace: istio-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {kind: ServiceAccount, name: first, namespace: istio-system}
- {kind: ServiceAccount, name: second, namespace: istio-system}
";

/// A Secret as istioctl makes it, with these keys.
pub fn secret(name: &str, kubeconfigs: &[(&str, &str)]) -> Result<String> {
    let data: BTreeMap<_, _> = kubeconfigs.iter().copied().collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": "istio-system", "labels": { "istio/multiCluster": "true" } },
        "stringData": data,
    });
    Ok(serde_json::to_string(&secret)?)
}

pub async fn login(cluster: &Cluster, account: &str, lifetime: Duration) -> Result<String> {
    let token = cluster.sign_token("istio-system", account, SystemTime::now() + lifetime).await?;
    cluster.kubeconfig(Login::Token(token))
}

pub fn slice(i: u8) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: backend-1\n  namespace: production\n  labels: {{kubernetes.io/service-name: backend}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.9.0.{i}]}}]\n"
    )
}

fn options() -> Options {
    let mut options = Options::new(Protocol::Delta, "client");
    if let Some(node) = &mut options.node {
        node.id = "sidecar~10.1.0.10~client.production~production.svc.cluster.local".into();
    }
    options
}

/// A control plane of `east`, and a proxy that asked for the endpoints of a service of both clusters.
pub struct World {
    pub admin: String,
    pub grpc: SocketAddr,
    pub proxy: Client,
    /// The last assignment.
    last: Vec<u8>,
}

impl World {
    pub async fn start(east: &Cluster, folder: &std::path::Path) -> Result<Self> {
        let path = folder.join("east.kubeconfig");
        secret_file(&path, &east.kubeconfig(east.admin())?)?;
        Self::serve(Place::Kubeconfig(path), folder).await
    }

    /// Another control plane of `east`, which reads `west` by a kubeconfig file that never changes.
    pub async fn twin(east: &Cluster, west: &Cluster, folder: &std::path::Path) -> Result<Self> {
        let folder = folder.join("twin");
        std::fs::create_dir_all(&folder)?;
        let file = async |name: &str, cluster: &Cluster| {
            let path = folder.join(name);
            secret_file(&path, &cluster.kubeconfig(cluster.admin())?)?;
            anyhow::Ok(Place::Kubeconfig(path))
        };
        let (own, other) = (file("east.kubeconfig", east).await?, file("west.kubeconfig", west).await?);
        Self::serve_with(own, &folder, |config| {
            config.clusters.insert("west".into(), other);
        })
        .await
    }

    pub async fn serve(east: Place, folder: &std::path::Path) -> Result<Self> {
        Self::serve_with(east, folder, |_| {}).await
    }

    pub async fn serve_with(
        east: Place,
        folder: &std::path::Path,
        set: impl FnOnce(&mut Config),
    ) -> Result<Self> {
        let address = own_address()?;
        let clusters = [("east".into(), east)].into();
        let mut config = serve_config(address, &folder.join("state"), clusters);
        set(&mut config);
        let grpc = config.grpc_addr;
        let serving = tokio::spawn(app::serve(config));
        let until = Instant::now() + PATIENCE;
        while !is_ready(address).await {
            ensure!(!serving.is_finished(), "it ended: {:?}", serving.await);
            ensure!(Instant::now() < until, "not ready");
            sleep(Duration::from_millis(20)).await;
        }
        let mut proxy = Client::connect(grpc, options()).await?;
        proxy.request(KIND, &[EDS]).await;
        let first = proxy.expect_ack(KIND, &[EDS]).await;
        let last = first.get(EDS).context("an assignment")?.to_vec();
        Ok(Self { admin: format!("http://{address}:15014"), grpc, proxy, last })
    }

    /// What is known of a cluster that is not the own one.
    pub async fn cluster(&self, id: &str) -> Result<Option<Value>> {
        let all: Vec<Value> = reqwest::get(format!("{}/debug/clusterz", self.admin)).await?.json().await?;
        Ok(all.into_iter().find(|cluster| cluster["id"] == id))
    }

    pub async fn until(&self, what: &str, holds: impl Fn(Option<&Value>) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let west = self.cluster("west").await?;
            if holds(west.as_ref()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what}: {west:#?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_synced(&self) -> Result<()> {
        let well = |west: &Value| west["syncStatus"] == "synced" && west["problem"].is_null();
        self.until("synced", |west| west.is_some_and(well)).await
    }

    /// The next response is the one that has this address.
    pub async fn next(&mut self, address: &str) -> Result<()> {
        self.take().await?;
        ensure!(self.has(address), "a response that is none of {address}");
        Ok(())
    }

    /// A cluster that comes or goes is told in as many responses as it takes: until the address is there, or is not.
    pub async fn settle(&mut self, address: &str, there: bool) -> Result<()> {
        while self.has(address) != there {
            self.take().await?;
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<()> {
        let response = self.proxy.expect(KIND).await;
        self.proxy.ack(&response).await;
        self.last = response.get(EDS).context("the assignment")?.to_vec();
        Ok(())
    }

    /// The last assignment.
    pub fn assignment(&self) -> &[u8] {
        &self.last
    }

    /// What a proxy is sent that comes anew: each resource of the types that do not hold its own certificate.
    pub async fn everything(&self) -> Result<BTreeMap<(Kind, String), Vec<u8>>> {
        let mut proxy = Client::connect(self.grpc, options()).await?;
        let mut all = BTreeMap::new();
        for (kind, names) in [
            (ResourceType::Cluster, &[][..]),
            (ResourceType::Endpoint, &[EDS][..]),
            (ResourceType::Listener, &[][..]),
            (ResourceType::Route, &["80"][..]),
        ] {
            let kind = Kind::Snapshot(kind);
            proxy.request(kind, names).await;
            let response = proxy.expect(kind).await;
            proxy.ack(&response).await;
            ensure!(!response.resources.is_empty(), "{kind:?}: nothing was sent");
            all.extend(response.resources.into_iter().map(|(name, bytes)| ((kind, name), bytes)));
        }
        Ok(all)
    }

    pub fn has(&self, address: &str) -> bool {
        self.last.windows(address.len()).any(|w| w == address.as_bytes())
    }
}

pub async fn two_clusters(binaries: &Binaries, folder: &std::path::Path) -> Result<[Cluster; 2]> {
    let start = |name: &str| Cluster::start(binaries, Settings::new(name, folder.join(name)));
    let (east, west) = tokio::try_join!(start("east"), start("west"))?;
    east.define(crds::ISTIO).await?;
    for (cluster, i) in [(&east, 1), (&west, 2)] {
        cluster.apply(NAMESPACES).await?;
        cluster.apply(SERVICE).await?;
        cluster.apply(&slice(i)).await?;
    }
    west.apply(READERS).await?;
    Ok([east, west])
}
