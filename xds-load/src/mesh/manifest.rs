//! A mesh as manifests: which files a cluster has, and their text.
//!
//! What changes is in small files: one for each EndpointSlice with its pods (the first slice's also has the Service and its
//! ServiceAccount), one for each DestinationRule. What stays is in few.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::world::{
    GATEWAY, GATEWAY_PORT, Mesh, Pod, ROOT_NAMESPACE, Rule, SUBSETS, Service, ServiceId, cluster_name,
    network_name,
};
use crate::mesh::{address, seed};

/// Writes to a `String`, which cannot fail.
macro_rules! put {
    ($text:expr, $($arguments:tt)*) => { let _ = writeln!($text, $($arguments)*); };
}

impl Mesh {
    /// Every file of a cluster: its path below the cluster's directory, and its text. In the order of paths of one kind.
    pub fn files(&self, cluster: usize) -> impl Iterator<Item = (PathBuf, String)> + '_ {
        let ground = [(PathBuf::from("mesh.yaml"), self.ground(cluster))];
        let gateway =
            self.gateway.iter().map(move |g| (PathBuf::from("gateway.yaml"), gateway(self, g, cluster)));
        let clients = (0..self.spec.namespaces).filter_map(move |n| self.clients_file(cluster, n));
        let services =
            self.services().flat_map(move |(id, service)| self.service_files(id, service, cluster));
        ground.into_iter().chain(gateway).chain(clients).chain(services)
    }

    fn service_files<'a>(
        &'a self,
        id: ServiceId,
        service: &'a Service,
        cluster: usize,
    ) -> impl Iterator<Item = (PathBuf, String)> + 'a {
        let slices = service.backing.get(&cluster).map_or(0, |b| self.slices(b.pods.len()));
        let slices = (0..slices).filter_map(move |slice| self.slice_file(id, cluster, slice));
        slices.chain(rule_file(service))
    }

    /// Files of a service with so many pods in a cluster.
    pub(super) fn slices(&self, pods: usize) -> usize {
        pods.div_ceil(self.spec.slice).max(1)
    }

    /// One EndpointSlice of a service, and its pods.
    pub(super) fn slice_file(
        &self,
        id: ServiceId,
        cluster: usize,
        slice: usize,
    ) -> Option<(PathBuf, String)> {
        let service = self.service(id)?;
        let backing = service.backing.get(&cluster)?;
        let pods = backing.pods.chunks(self.spec.slice).nth(slice).unwrap_or_default();
        let mut text = String::with_capacity(1_000 + pods.len() * 700);
        if slice == 0 {
            service_account(&mut text, &service.namespace, &service.name);
            let annotations =
                if service.private { ", annotations: {networking.istio.io/exportTo: .}" } else { "" };
            let address = backing.address.map_or("None".into(), |a| a.to_string());
            put!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}{annotations}}}\n\
                 spec:\n  clusterIP: {address}\n  selector: {{app: {name}}}\n  ports:",
                name = service.name,
                ns = service.namespace,
            );
            for port in &service.ports {
                put!(text, "  - {{name: {}, port: {}, targetPort: {}}}", port.name, port.port, port.target);
            }
        }
        for pod in pods {
            let mut labels = format!("app: {}, version: {}", service.name, pod.version());
            if pod.sidecar {
                labels.push_str(", security.istio.io/tlsMode: istio");
            }
            let name = service.pod_name(pod);
            let place = Place { node: pod.node, address: pod.address, ready: pod.ready };
            pod_manifest(&mut text, &name, &service.namespace, &service.name, &labels, place);
        }
        endpoint_slice(&mut text, service, slice, pods);
        Some((slice_path(service, slice), text))
    }

    /// Namespaces, nodes and configuration.
    fn ground(&self, cluster: usize) -> String {
        let spec = &self.spec;
        let mut text = format!(
            "# {}, made by `xds-load mesh generate` with seed {}.\n",
            cluster_name(cluster),
            spec.seed
        );
        let network = network_name(spec.network(cluster));
        put!(
            text,
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {ROOT_NAMESPACE}, labels: {{topology.istio.io/network: {network}}}}}"
        );
        for n in 0..spec.namespaces {
            put!(text, "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: namespace-{n}}}");
        }
        let region = format!("region-{}", cluster % spec.regions);
        for n in 0..spec.nodes {
            let zone = n % spec.zones;
            put!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: node-{n}, labels: {{topology.kubernetes.io/region: {region}, \
                 topology.kubernetes.io/zone: {region}-{zone}}}}}"
            );
        }
        let config = serde_json::Value::Object(spec.mesh_config.clone());
        put!(
            text,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: {ROOT_NAMESPACE}}}\ndata:\n  mesh: |\n    {config}"
        );
        for n in (0..spec.namespaces).filter(|n| seed::chosen(spec.seed, "strict", *n as u64, spec.strict)) {
            put!(
                text,
                "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                 metadata: {{name: default, namespace: namespace-{n}}}\nspec: {{mtls: {{mode: STRICT}}}}"
            );
        }
        text
    }

    /// The pods of a namespace that belong to no service.
    fn clients_file(&self, cluster: usize, namespace: usize) -> Option<(PathBuf, String)> {
        let namespace = format!("namespace-{namespace}");
        let mut clients =
            self.clients.iter().filter(|c| c.cluster == cluster && *c.namespace == *namespace).peekable();
        clients.peek()?;
        let mut text = String::new();
        service_account(&mut text, &namespace, "client");
        for client in clients {
            let labels = "app: client, security.istio.io/tlsMode: istio";
            let place = Place { node: client.node, address: client.address, ready: true };
            pod_manifest(&mut text, &client.name, &namespace, "client", labels, place);
        }
        Some((Path::new(&namespace).join("clients.yaml"), text))
    }
}

/// Where a slice is.
pub fn slice_path(service: &Service, slice: usize) -> PathBuf {
    let name = match slice {
        0 => format!("{}.yaml", service.name),
        n => format!("{}.{n}.yaml", service.name),
    };
    Path::new(&*service.namespace).join(name)
}

/// A service's DestinationRule, the same in every cluster: control planes read their own cluster's.
pub fn rule_file(service: &Service) -> Option<(PathBuf, String)> {
    let Rule { connect_timeout, subsets } = service.rule?;
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  host: {}\n  \
         trafficPolicy:\n    connectionPool: {{tcp: {{connectTimeout: {connect_timeout}ms}}}}\n    \
         outlierDetection: {{consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 5s}}\n",
        service.name,
        service.namespace,
        service.host(),
    );
    if subsets {
        put!(text, "  subsets:");
        for n in 1..=SUBSETS {
            put!(text, "  - {{name: v{n}, labels: {{version: v{n}}}}}");
        }
    }
    Some((Path::new(&*service.namespace).join(format!("{}.rule.yaml", service.name)), text))
}

fn service_account(text: &mut String, namespace: &str, name: &str) {
    put!(text, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}");
}

/// Where a pod runs, and whether it is ready: istiod takes up no pod without that condition.
struct Place {
    node: usize,
    address: std::net::Ipv4Addr,
    ready: bool,
}

fn pod_manifest(text: &mut String, name: &str, namespace: &str, account: &str, labels: &str, place: Place) {
    let Place { node, address, ready } = place;
    let ready = if ready { "True" } else { "False" };
    put!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{serviceAccountName: {account}, nodeName: node-{node}, containers: [{{name: app, image: example.com/app:1}}]}}\n\
         status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"{ready}\"}}]}}"
    );
}

fn endpoint_slice(text: &mut String, service: &Service, slice: usize, pods: &[Pod]) {
    put!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{slice}, namespace: {ns}, \
         labels: {{kubernetes.io/service-name: {name}, endpointslice.kubernetes.io/managed-by: xds-load}}}}\naddressType: IPv4\nports:",
        name = service.name,
        ns = service.namespace,
    );
    for port in &service.ports {
        put!(text, "- {{name: {}, port: {}}}", port.name, port.target);
    }
    if pods.is_empty() {
        put!(text, "endpoints: []");
        return;
    }
    put!(text, "endpoints:");
    for pod in pods {
        put!(
            text,
            "- {{addresses: [{}], nodeName: node-{}, conditions: {{ready: {ready}, serving: {ready}, terminating: false}}, \
             targetRef: {{kind: Pod, name: {}, namespace: {}}}}}",
            pod.address,
            pod.node,
            service.pod_name(pod),
            service.namespace,
            ready = pod.ready,
        );
    }
}

/// The east-west gateway of a cluster.
fn gateway(mesh: &Mesh, service: &Service, cluster: usize) -> String {
    let network = network_name(mesh.spec.network(cluster));
    let mut text = String::new();
    let Some(backing) = service.backing.get(&cluster) else { return text };
    service_account(&mut text, ROOT_NAMESPACE, GATEWAY);
    let labels = format!("app: {GATEWAY}, istio: eastwestgateway, topology.istio.io/network: {network}");
    put!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {GATEWAY}, namespace: {ROOT_NAMESPACE}, labels: {{{labels}}}}}\n\
         spec:\n  type: LoadBalancer\n  clusterIP: {}\n  selector: {{istio: eastwestgateway}}\n  ports:",
        backing.address.map_or("None".into(), |a| a.to_string()),
    );
    for port in &service.ports {
        put!(text, "  - {{name: {}, port: {}, targetPort: {}}}", port.name, port.port, port.target);
    }
    put!(text, "status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}", address::gateway(cluster));
    for pod in &backing.pods {
        let name = service.pod_name(pod);
        let place = Place { node: pod.node, address: pod.address, ready: pod.ready };
        pod_manifest(&mut text, &name, ROOT_NAMESPACE, GATEWAY, &labels, place);
    }
    endpoint_slice(&mut text, service, 0, &backing.pods);
    put!(
        text,
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: cross-network-gateway, namespace: {ROOT_NAMESPACE}}}\n\
         spec:\n  selector: {{istio: eastwestgateway}}\n  servers:\n  - port: {{number: {GATEWAY_PORT}, name: tls, protocol: TLS}}\n    \
         tls: {{mode: AUTO_PASSTHROUGH}}\n    hosts: [\"*.local\"]"
    );
    text
}
