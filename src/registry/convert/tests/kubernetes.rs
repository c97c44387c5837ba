use super::*;
use crate::model::{
    endpoint::Health,
    kubernetes::{EndpointSlice, Pod, Service, ServiceType},
    port::{TargetPort, Transport},
};

#[track_caller]
fn service(text: &str) -> (Arc<Service>, Vec<String>) {
    let text =
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: backend, namespace: production}}\n{text}");
    match object(&text) {
        (_, Object::Service(service), said) => (service, said),
        other => panic!("{other:?}"),
    }
}

#[test]
fn services_of_every_type() {
    let (s, said) = service(
        "spec:\n  clusterIP: 10.96.1.10\n  clusterIPs: [10.96.1.10, 'fd00::1']\n  selector: {app: backend, v: 1}\n  \
         internalTrafficPolicy: Local\n  publishNotReadyAddresses: true\n  ports:\n  - {name: http, port: 80, \
         targetPort: web, appProtocol: kubernetes.io/h2c, nodePort: 30080}\n  - {name: dns, port: '53', protocol: UDP}\n",
    );
    assert_eq!(said, [""; 0]);
    assert_eq!(s.kind, ServiceType::ClusterIp);
    assert_eq!(
        s.cluster_ips,
        ["10.96.1.10".parse::<std::net::IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
    );
    assert_eq!(s.selector, labels(&[("app", "backend"), ("v", "1")]));
    assert!(s.node_local && s.publish_not_ready && !s.headless);
    assert_eq!(s.ports[0].target, TargetPort::Name("web".into()));
    assert_eq!(s.ports[0].app_protocol.as_deref(), Some("kubernetes.io/h2c"));
    assert_eq!(s.ports[0].node_port, 30080);
    assert_eq!((s.ports[1].transport, s.ports[1].target.clone()), (Transport::Udp, TargetPort::Number(53)));

    let (s, said) = service("spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 5432}]}");
    assert!(s.headless && s.cluster_ips.is_empty() && said.is_empty());

    let (s, said) =
        service("spec: {type: ExternalName, externalName: Backend.example.com., ports: [{port: 80}]}");
    assert_eq!(s.kind, ServiceType::ExternalName("backend.example.com".into()));
    assert!(said.is_empty());

    let (s, _) = service(
        "spec: {type: LoadBalancer, clusterIP: 10.96.1.30, externalIPs: [1.2.3.4, 172.30.0.1], ports: [{port: 1}]}\n\
         status: {loadBalancer: {ingress: [{ip: 172.30.0.1}, {hostname: lb.cloud.example, ip: ''}]}}",
    );
    assert_eq!(
        s.external_addresses,
        ["172.30.0.1".into(), "lb.cloud.example".into(), Arc::<str>::from("1.2.3.4")]
    );
}

#[test]
fn services_with_mistakes() {
    let (s, said) = service(
        "spec: {clusterIP: 10.96.1.1, ports: [{name: a, port: 1, protocol: SCTP}, {name: b, port: 2}]}",
    );
    assert_eq!(s.ports.len(), 1);
    assert_said(&said, &["spec.ports[0].protocol", "SCTP port 1 is left out"]);
    let (_, said) = service("spec: {ports: [{port: 80}]}");
    assert_said(&said, &["spec.clusterIP", "clusterIP: None"]);
    let spec = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}");
    assert_refused(&[
        (&spec("{clusterIP: None, ports: [{port: 0}]}"), &["spec.ports[0].port: 0 is no port", "1 to 65535"]),
        (&spec("{clusterIP: None, ports: [{port: 70000}]}"), &["spec.ports[0].port: 70000 is no port"]),
        (&spec("{clusterIP: None, ports: [{port: 80, targetPort: 70000}]}"), &["targetPort: 70000"]),
        (
            &spec("{clusterIP: None, ports: [{port: http}]}"),
            &["spec.ports[0].port: \"http\" is not a whole number"],
        ),
        (&spec("{clusterIP: None, ports: [{port: 1}, {port: 2}]}"), &["spec.ports[0].name", "several ports"]),
        (
            &spec("{clusterIP: None, ports: [{name: a, port: 1}, {name: a, port: 2}]}"),
            &["spec.ports[1].name: \"a\" is there twice"],
        ),
        (
            &spec("{clusterIP: None, ports: [{name: a, port: 1}, {name: b, port: 1}]}"),
            &["spec.ports[1].port: TCP port 1 is there twice"],
        ),
        (&spec("{clusterIP: None, ports: [{port: 1, protocol: tcp}]}"), &["protocol", "did you mean TCP?"]),
        (
            &spec("{clusterIP: 10.0.0.256, ports: [{port: 1}]}"),
            &["spec.clusterIP", "10.0.0.256", "no IP address"],
        ),
        (&spec("{type: Loadbalancer, ports: [{port: 1}]}"), &["spec.type", "did you mean LoadBalancer?"]),
        (&spec("{type: ExternalName}"), &["spec.externalName: is missing"]),
        (&spec("{clusterIP: 10.0.0.1, ports: []}"), &["spec.ports: is empty"]),
        (
            &spec("{clusterIP: None, internalTrafficPolicy: local, ports: [{port: 1}]}"),
            &["did you mean Local?"],
        ),
    ]);
}

fn slice(text: &str) -> Outcome {
    read(&format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{text}"))
}

#[track_caller]
fn endpoints(text: &str) -> Arc<EndpointSlice> {
    let metadata = "metadata: {name: s, labels: {kubernetes.io/service-name: backend}}\naddressType: IPv4\n";
    match slice(&format!("{metadata}{text}")) {
        Outcome::Object(_, Object::EndpointSlice(slice), said) if said.is_empty() => slice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn conditions_of_endpoints() {
    for (conditions, expected) in [
        ("{}", Health::Healthy),
        ("{ready: true}", Health::Healthy),
        ("{ready: false}", Health::Unhealthy),
        ("{ready: null, serving: null, terminating: null}", Health::Healthy),
        ("{ready: false, serving: true, terminating: true}", Health::Draining),
        ("{ready: false, terminating: true}", Health::Terminating),
    ] {
        let s = endpoints(&format!("endpoints: [{{addresses: [10.1.0.1], conditions: {conditions}}}]"));
        assert_eq!(s.endpoints.health(0), expected, "{conditions}");
    }
    let s = endpoints(
        "endpoints: [{addresses: [10.1.0.1], nodeName: n, zone: z, targetRef: {kind: Pod, name: p}}, \
         {addresses: ['fd00::1'], targetRef: {kind: Other, name: p}}]\nports: [{name: http, port: 8080}, {name: all}]",
    );
    assert_eq!(s.service, "backend".into());
    assert_eq!(s.endpoints.node(0).map(|node| &**node), Some("n"));
    assert_eq!([0, 1].map(|row| s.endpoints.pod(row).map(|pod| pod.to_string())), [Some("p".into()), None]);
    assert_eq!(s.ports.len(), 1);
}

#[test]
fn slices_that_are_passed_over_or_refused() {
    let imported = "{kubernetes.io/service-name: a, multicluster.kubernetes.io/service-name: a}";
    for metadata in ["{name: s}", &format!("{{name: s, labels: {imported}}}")] {
        let passed_over = slice(&format!("metadata: {metadata}"));
        assert!(matches!(passed_over, Outcome::Skipped(_, said) if said.is_empty()), "{metadata}");
    }
    let named = "metadata: {name: s, labels: {kubernetes.io/service-name: a}}\n";
    let Outcome::Skipped(_, said) =
        slice(&format!("{named}addressType: FQDN\nendpoints: [{{addresses: [a.b]}}]"))
    else {
        panic!("an FQDN slice was not passed over")
    };
    assert!(say(&said[0]).contains("ExternalName"));
    let whole = |text: &str| format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{named}{text}");
    assert_refused(&[
        (
            &whole("endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0]}]"),
            &["endpoints[1].addresses[0]"],
        ),
        (&whole("endpoints: [{addresses: []}]"), &["endpoints[0].addresses: is empty"]),
        (&whole("ports: [{port: 70000}]"), &["ports[0].port: 70000"]),
    ]);
}

#[track_caller]
fn pod(text: &str) -> Arc<Pod> {
    match object(&format!("apiVersion: v1\nkind: Pod\n{text}")) {
        (_, Object::Pod(pod), _) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pods_and_who_made_them() {
    let p = pod(
        "metadata: {name: backend-0, namespace: production, creationTimestamp: '2026-08-01T00:00:10Z'}\n\
         spec: {serviceAccountName: backend, nodeName: n0, containers: [{ports: [{name: web, containerPort: 8080}, \
         {containerPort: 1}]}]}\nstatus: {phase: Running, podIP: 10.1.0.10, podIPs: [{ip: 10.1.0.10}]}",
    );
    assert_eq!(p.meta.created, 1_785_542_410);
    assert_eq!((&*p.service_account, p.node.as_deref(), p.ips.len()), ("backend", Some("n0"), 1));
    assert_eq!(p.named_ports, [(Arc::from("web"), 8080)]);
    assert!(!p.finished && &*p.workload == "backend-0");
    let p = pod("metadata: {name: job-1-x}\nstatus: {phase: Failed, podIP: 10.1.0.11}");
    assert!(
        p.finished && p.ips.len() == 1 && &*p.service_account == "default" && &*p.meta.namespace == "default"
    );
    for (labels, kind, name, workload) in [
        ("{pod-template-hash: 7d9f}", "ReplicaSet", "web-7d9f", "web"),
        ("{}", "ReplicaSet", "web-7d9f", "web-7d9f"),
        ("{}", "StatefulSet", "db", "db"),
        ("{}", "Job", "nightly-28412345", "nightly"),
        ("{}", "Job", "once", "once"),
    ] {
        let owner = format!("[{{kind: Other, name: no}}, {{kind: {kind}, name: {name}, controller: true}}]");
        let p = pod(&format!("metadata: {{name: p, labels: {labels}, ownerReferences: {owner}}}"));
        assert_eq!(&*p.workload, workload);
    }
    assert_refused(&[(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: x}",
        &["status.podIP", "\"x\""],
    )]);
}

#[test]
fn nodes_and_namespaces() {
    let (key, node, _) = object(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n0, namespace: ignored, labels: {topology.kubernetes.io/zone: a}}\n\
         status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: ExternalIP, address: 5.6.7.8}]}",
    );
    assert_eq!(key.to_string(), "east/Node/n0");
    let Object::Node(node) = node else { panic!("no node") };
    assert_eq!(node.external_ips, ["5.6.7.8".parse::<std::net::IpAddr>().unwrap()]);
    let (_, namespace, _) = object(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, labels: {topology.istio.io/network: n1}}",
    );
    let Object::Namespace(namespace) = namespace else { panic!("no namespace") };
    assert_eq!(namespace.meta.labels, labels(&[("topology.istio.io/network", "n1")]));
}

/// Whoever serves the API in another group has the same objects there, and nobody reads the others.
#[test]
fn exports_and_imports_are_read_where_they_are_told_to_be() {
    let import = |api: &str, kind: &str| {
        format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {{ips: [10.9.0.2, 10.9.0.1, 10.9.0.2]}}\n"
        )
    };
    let told = crate::model::mcs::Api { group: "net.example".into(), version: "v1".into() };
    let told = Settings { mcs_api: told, ..Settings::default() };
    for (settings, own, other) in [
        (&Settings::default(), "multicluster.x-k8s.io/v1alpha1", "net.example/v1"),
        (&told, "net.example/v1", "multicluster.x-k8s.io/v1alpha1"),
    ] {
        let outcome = read_with(settings, &import(own, "ServiceImport"));
        let Outcome::Object(_, Object::ServiceImport(read), _) = outcome else { panic!("{outcome:?}") };
        assert_eq!(read.ips, [[10, 9, 0, 1], [10, 9, 0, 2]].map(std::net::IpAddr::from));
        let outcome = read_with(settings, &import(own, "ServiceExport"));
        assert!(matches!(outcome, Outcome::Object(_, Object::ServiceExport(_), _)), "{outcome:?}");
        let outcome = read_with(settings, &import(other, "ServiceImport"));
        assert_eq!(outcome, Outcome::NotRead(format!("{other}/ServiceImport")));
        let version = format!("{own}beta7");
        let Outcome::Invalid(_, invalid) = read_with(settings, &import(&version, "ServiceExport")) else {
            panic!()
        };
        assert!(invalid.to_string().contains(&format!("write {own}")), "{invalid}");
    }
}
