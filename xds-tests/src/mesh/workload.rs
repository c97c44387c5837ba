//! What runs in a pod, and the landbridge commands that give it an identity and a configuration.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use crate::topology::{GATEWAY, Pod};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A proxy that the pod's connections are captured into.
    Sidecar,
    /// The cloud's east-west gateway.
    Gateway,
    /// A pod outside of the mesh: no proxy.
    Plain,
}

/// A pod of the lab.
#[derive(Clone)]
pub struct Workload {
    pub cloud: &'static str,
    pub pod: String,
    /// Last byte of its address.
    pub host: u8,
    pub kind: Kind,
    pub namespace: &'static str,
    pub service_account: &'static str,
    pub labels: &'static str,
    /// Whether the application runs in it.
    pub app: bool,
    /// Variant of the xDS protocol: `delta`, `sotw`.
    pub protocol: &'static str,
    /// Whether it says that it wants virtual hosts one by one, or not.
    pub enable_vhds: Option<bool>,
    /// The same of endpoints.
    pub enable_leds: Option<bool>,
    /// Namespace and service account of its token, where that is another's: an impostor.
    pub token_of: Option<(&'static str, &'static str)>,
}

/// The pods of `deploy/examples/two-clouds`.
pub fn example() -> Vec<Workload> {
    let mut all = vec![Workload::client("client", 10)];
    for cloud in crate::topology::CLOUDS {
        for (pod, host) in [("backend-a", 11), ("backend-b", 12)] {
            all.push(Workload {
                cloud,
                pod: pod.to_owned(),
                host,
                service_account: "backend",
                labels: "app=backend,security.istio.io/tlsMode=istio",
                app: true,
                ..Workload::client("", 0)
            });
        }
        all.push(Workload {
            cloud,
            pod: GATEWAY.0.to_owned(),
            host: GATEWAY.1,
            kind: Kind::Gateway,
            namespace: "istio-system",
            service_account: "istio-eastwestgateway",
            labels: "app=istio-eastwestgateway,istio=eastwestgateway",
            app: false,
            ..Workload::client("", 0)
        });
    }
    all
}

impl Workload {
    /// A caller in the home cloud: a sidecar without an application.
    pub fn client(pod: &str, host: u8) -> Self {
        Self {
            cloud: crate::topology::CLOUDS[0],
            pod: pod.to_owned(),
            host,
            kind: Kind::Sidecar,
            namespace: "production",
            service_account: "client",
            labels: "app=client,security.istio.io/tlsMode=istio",
            app: false,
            protocol: "delta",
            enable_vhds: None,
            enable_leds: None,
            token_of: None,
        }
    }

    /// A pod outside of the mesh.
    pub fn plain(pod: &str, host: u8) -> Self {
        Self { kind: Kind::Plain, ..Self::client(pod, host) }
    }

    /// Arguments of the command that mints its service account's token.
    pub fn token_args(&self, state_dir: &Path) -> Vec<OsString> {
        let (namespace, service_account) = self.token_of.unwrap_or((self.namespace, self.service_account));
        let mut args: Vec<OsString> = vec!["token".into(), "--state-dir".into(), state_dir.into()];
        args.extend(["--namespace", namespace, "--service-account", service_account].map(OsString::from));
        args
    }

    /// Arguments of the command that prints its Envoy's bootstrap.
    pub fn bootstrap_args(
        &self,
        pod: &Pod,
        discovery: SocketAddr,
        root: &Path,
        token: &Path,
    ) -> Vec<OsString> {
        let kind = if self.kind == Kind::Gateway { "gateway" } else { "sidecar" };
        let region = format!("us-{}1", self.cloud);
        let pairs = [
            ("--name", self.pod.clone()),
            ("--namespace", self.namespace.to_owned()),
            ("--service-account", self.service_account.to_owned()),
            ("--cluster-id", self.cloud.to_owned()),
            ("--network", format!("network-{}", self.cloud)),
            ("--ip", pod.ip.to_string()),
            ("--discovery-address", discovery.to_string()),
            ("--labels", self.labels.to_owned()),
            ("--protocol", self.protocol.to_owned()),
            ("--zone", format!("{region}-a")),
            ("--region", region),
            ("--node", format!("{}-node-1", self.cloud)),
        ];
        let mut args: Vec<OsString> = vec!["bootstrap".into(), kind.into()];
        args.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        args.extend(self.enable_vhds.map(|on| format!("--enable-vhds={on}").into()));
        args.extend(self.enable_leds.map(|on| format!("--enable-leds={on}").into()));
        args.extend(["--root-cert".into(), root.into(), "--token-file".into(), token.into()]);
        args
    }
}
