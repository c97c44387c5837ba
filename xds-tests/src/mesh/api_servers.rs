//! A mesh whose control planes read real API servers instead of directories: their own, and the other cloud's.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::Mesh;
use crate::kubernetes::{Binaries, Cluster, Login, Place, Settings, crds, kubeconfig, secret_file};
use crate::topology::{API_SERVER, CLOUDS, api_server_address};

/// The account that control planes read with, and its rights: to read.
const READER: (&str, &str) = ("istio-system", "landbridge");
const RIGHTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: landbridge, namespace: istio-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: landbridge}
rules:
- {apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: landbridge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: landbridge}
subjects:
- {kind: ServiceAccount, name: landbridge, namespace: istio-system}
";

/// Longer than anybody plays.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

impl Mesh {
    /// Starts an API server in each cloud with the mesh's objects, and has control planes that are started from now on read
    /// these: each its own at its pod's address, and the other's at its address in the wide-area network.
    pub async fn start_api_servers(&mut self, binaries: &Binaries, lives_on: bool) -> Result<()> {
        for cloud in CLOUDS {
            self.topology.add_api_server(cloud)?;
        }
        let [east, west] = CLOUDS.map(|cloud| self.start_cluster(binaries, cloud, lives_on));
        let (east, west) = tokio::try_join!(east, west)?;
        self.clusters = CLOUDS.into_iter().zip([east, west]).collect();
        for cloud in CLOUDS {
            let mut kubeconfigs = Vec::new();
            for (other, cluster) in &self.clusters {
                let path = self.folder.join(cloud).join(format!("{other}.kubeconfig"));
                secret_file(&path, &reader_kubeconfig(cluster, cloud == *other).await?)?;
                kubeconfigs.push(((*other).to_owned(), path));
            }
            let settings = self.settings.get_mut(cloud).context("every cloud has a control plane")?;
            settings.kubernetes = kubeconfigs;
            settings.files.clear();
        }
        Ok(())
    }

    /// A cloud's cluster, if it has an API server.
    pub fn cluster(&self, cloud: &str) -> Result<&Cluster> {
        self.clusters.get(cloud).with_context(|| format!("no API server runs in {cloud}"))
    }

    /// To stop it, kill it and start it again.
    pub fn cluster_mut(&mut self, cloud: &str) -> Result<&mut Cluster> {
        self.clusters.get_mut(cloud).with_context(|| format!("no API server runs in {cloud}"))
    }

    /// A kubeconfig for administrators of both clusters, to be used in the wide-area network.
    pub fn admin_kubeconfig(&self) -> Result<String> {
        let contexts = self.clusters.values().map(|cluster| remote_context(cluster, cluster.admin()));
        kubeconfig::kubeconfig(&contexts.collect::<Result<Vec<_>>>()?)
    }

    async fn start_cluster(
        &self,
        binaries: &Binaries,
        cloud: &'static str,
        lives_on: bool,
    ) -> Result<Cluster> {
        let pod = self.topology.pod(cloud, API_SERVER.0)?;
        let addresses = vec![pod.ip.into(), api_server_address(cloud).into()];
        let settings = Settings {
            place: Place::Namespace(pod.ns, addresses),
            lives_on,
            ..Settings::new(cloud, self.folder.join(cloud).join("apiserver"))
        };
        let cluster = Cluster::start(binaries, settings).await?;
        cluster.define(crds::ISTIO).await?;
        cluster.apply_folder(&self.config_dir(cloud)).await?;
        cluster.apply(RIGHTS).await?;
        Ok(cluster)
    }
}

async fn reader_kubeconfig(cluster: &Cluster, from_home: bool) -> Result<String> {
    let (namespace, account) = READER;
    let token = cluster.sign_token(namespace, account, SystemTime::now() + LIFETIME).await?;
    let context = match from_home {
        true => cluster.context(Login::Token(token))?,
        false => remote_context(cluster, Login::Token(token))?,
    };
    kubeconfig::kubeconfig(&[context])
}

fn remote_context(cluster: &Cluster, login: Login) -> Result<kubeconfig::Context> {
    cluster.context_at(api_server_address(cluster.name()).into(), login)
}
