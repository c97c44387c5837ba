use std::os::unix::fs::PermissionsExt;

use super::{format::first_line, *};
use crate::{
    model::{Kind, Object},
    registry::{
        Settings,
        convert::{Outcome, convert},
        yaml,
    },
};

/// One of each kind that is written, with as much said as there can be.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: production, labels: {topology.istio.io/network: "network \"west\""}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/region: west}}
status: {addresses: [{type: ExternalIP, address: 192.0.2.7}, {type: ExternalIP, address: "2001:db8::7"}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: backend, namespace: production}
---
apiVersion: v1
kind: Service
metadata: {name: backend, namespace: production, creationTimestamp: 2026-01-02T03:04:05Z, annotations: {note: "ü\n"}}
spec:
  type: LoadBalancer
  clusterIPs: [10.0.0.1, "fd00::1"]
  selector: {app: backend}
  externalIPs: [192.0.2.9]
  ports: [{name: http, port: 80, targetPort: web, nodePort: 30080, appProtocol: grpc}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: production}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Pod
metadata: {name: backend-1, namespace: production, labels: {app: backend}}
spec: {serviceAccountName: backend, nodeName: node-1, containers: [{ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.1}, {ip: "fd01::1"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: backend-1, namespace: production, labels: {kubernetes.io/service-name: backend}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53}]
endpoints:
- {addresses: [10.1.0.1], nodeName: node-1, targetRef: {kind: Pod, name: backend-1}}
- {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.3], conditions: {ready: false}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: west.example
    connectTimeout: 1.5s
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
    discoverySelectors: [{matchLabels: {a: b}, matchExpressions: [{key: k, operator: In, values: [v]}, {key: l, operator: DoesNotExist}]}]
    localityLbSetting: {failover: [{from: east, to: west}]}
    defaultServiceExportTo: [production]
    defaultHttpRetryPolicy: {attempts: 3, perTryTimeout: 0.25s}
  meshNetworks: |
    networks: {west: {endpoints: [{fromRegistry: west}], gateways: [{address: 192.0.2.1, port: 15443}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: cross, namespace: istio-system}
spec:
  selector: {istio: eastwestgateway}
  servers: [{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ["*.local"]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: backend, namespace: production}
spec:
  host: backend
  exportTo: [".", other]
  workloadSelector: {matchLabels: {app: client}}
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 3, connectTimeout: 0.1s, tcpKeepalive: {probes: 1, time: 2s}}, http: {maxRetries: 4}}
    outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 55}
    loadBalancer:
      consistentHash: {httpCookie: {name: user, path: /x, ttl: 0s}, minimumRingSize: 16}
      localityLbSetting: {distribute: [{from: west/*, to: {"west/*": 80, "east/*": 20}}]}
    tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, sni: s, subjectAltNames: [a]}
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 12.7, aggression: 1.3}}}]
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: backend, namespace: production}
spec: {selector: {matchLabels: {app: backend}}, mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: PERMISSIVE}, "9090": {}}}
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: backend, namespace: production}
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: backend, namespace: production}
spec: {type: ClusterSetIP, ips: [10.96.200.7, "fd00::7"], ports: [{name: http, port: 80, protocol: TCP}]}
"#;

fn items() -> Vec<Item> {
    let item = |text: &str| match convert(&"west".into(), &Settings::default(), yaml::parse(text).unwrap()) {
        Outcome::Object(key, object, _) => Item { namespace: key.namespace, name: key.name, object },
        other => panic!("{text}: {other:?}"),
    };
    OBJECTS.split("---\n").map(item).collect()
}

fn header() -> Header {
    Header {
        control_plane: "east".into(),
        cluster: "west".into(),
        server: "https://192.0.2.1:6443/".into(),
        joined: true,
        taken: 1_790_000_000,
        objects: 13,
    }
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let items = items();
    let bytes = encode(&header(), &items).unwrap();
    let (read, again) = decode(&bytes).unwrap();
    assert_eq!((read, &again), (header(), &items));
    let kinds: std::collections::BTreeSet<_> = items.iter().map(|item| item.object.kind()).collect();
    let all = crate::registry::kube::kinds_for_tests();
    let missing: Vec<_> = all.into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [Kind::RemoteSecret], "what is read and not written");
}

#[test]
fn credentials_are_not_written() {
    let kubeconfigs = [("west".into(), crate::model::remote_secret::Kubeconfig::new(*b"hush"))].into();
    let secret = crate::model::remote_secret::RemoteSecret { created: 0, kubeconfigs };
    let object = Object::RemoteSecret(Arc::new(secret));
    let secret = Item { namespace: "istio-system".into(), name: "hush".into(), object };
    let bytes = encode(&header(), &[secret]).unwrap();
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains("hush"));
    assert!(decode(&bytes).unwrap().1.is_empty());
}

#[test]
fn one_wrong_byte_or_a_missing_end_is_noticed() {
    let bytes = encode(&header(), &items()[..4]).unwrap();
    assert!(decode(&bytes).is_ok());
    for at in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            assert!(decode(&bytes).is_err(), "byte {at} may be {:?}", bytes[at] as char);
        }
        assert!(decode(&bytes[..at]).is_err(), "{at} bytes are enough");
    }
    assert!(decode(&[&bytes[..], b"\n"].concat()).is_err());
}

#[test]
fn what_cannot_be_served_is_named() {
    let said = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    let text = String::from_utf8(encode(&header(), &items()).unwrap()).unwrap();
    assert!(said(text.replace("snapshot/2 ", "snapshot/3 ").as_bytes()).contains("version 3, and this"));
    assert!(said(b"{}\n").contains("not a snapshot") && said(b"").contains("damaged"));
    let (_, body) = text.split_once('\n').unwrap();
    let sealed = |body: &str| first_line(1, body.as_bytes()) + body;
    let unknown = said(sealed(&body.replacen("\"Node\"", "\"Moon\"", 1)).as_bytes());
    assert!(unknown.contains("line 4") && unknown.contains("Moon"), "{unknown}");
    // A field that this landbridge does not know, or that an older one did not write, is none that decides.
    let less = body.replacen("\"externalIps\":[\"192.0.2.7\",\"2001:db8::7\"]", "\"new\":1", 1);
    assert_ne!(less, body);
    assert!(decode(sealed(&less).as_bytes()).is_ok());

    let foreign = |own: &str, cluster: &str, server: Option<&str>| {
        header().check(&own.into(), &cluster.into(), server).map_err(|error| error.to_string())
    };
    assert_eq!(foreign("east", "west", None), Ok(()));
    assert_eq!(foreign("east", "west", Some("https://192.0.2.1:6443/")), Ok(()));
    for (own, cluster, server, word) in [
        ("north", "west", None, "control plane of east, and this is north"),
        ("east", "north", None, "cluster west, and this is north"),
        (
            "east",
            "west",
            Some("https://192.0.2.2/"),
            "https://192.0.2.1:6443/, and this is https://192.0.2.2/",
        ),
    ] {
        let error = foreign(own, cluster, server).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

/// A snapshot that version 1 wrote. If this fails, snapshots of running meshes cannot be read any more: give the format
/// another version, or the new field a default.
#[test]
fn version_1_stays_readable() {
    let body = concat!(
        r#"{"controlPlane":"east","cluster":"west","server":"https://192.0.2.1/","joined":true,"taken":1,"objects":2}"#,
        "\n",
        r#"{"namespace":"p","name":"a","object":{"EndpointSlice":{"namespace":"p","name":"a","service":"s","ports":[{"name":"http","number":80}],"endpoints":[{"address":"10.0.0.1","health":"Healthy","pod":"x"}]}}}"#,
        "\n",
        r#"{"namespace":"p","name":"x","object":{"Pod":{"meta":{"namespace":"p","name":"x","labels":{"a":"b"},"annotations":{},"created":3},"ips":["10.0.0.1"],"serviceAccount":"default","node":null,"namedPorts":[["http",80]],"workload":"w","finished":false}}}"#,
        "\n",
        r#"{"namespace":"p","name":"s","object":{"Service":{"meta":{"namespace":"p","name":"s","labels":{},"annotations":{},"created":0},"kind":"ClusterIp","clusterIps":[],"headless":true,"ports":[{"name":"http","number":80,"transport":"Tcp","appProtocol":null,"target":{"Number":80},"nodePort":0}],"selector":{},"nodeLocal":false,"externalAddresses":[],"publishNotReady":false}}}"#,
        "\n",
    );
    let (header, items) = decode((first_line(1, body.as_bytes()) + body).as_bytes()).unwrap();
    assert_eq!((header.taken, items.len()), (1, 3));
    let Object::EndpointSlice(slice) = &items[0].object else { panic!("{:?}", items[0]) };
    let pod = slice.endpoints.pod(0).map(|pod| pod.to_string());
    assert_eq!((pod.as_deref(), slice.ports[0].number), (Some("x"), 80));
    let Object::Pod(pod) = &items[1].object else { panic!("{:?}", items[1]) };
    assert_eq!((&*pod.meta.labels["a"], pod.named_ports[0].1), ("b", 80));
    let Object::Service(service) = &items[2].object else { panic!("{:?}", items[2]) };
    assert!(service.headless);
}

#[test]
fn files_have_names_that_lead_nowhere_else() {
    let name = |id: &str| file_name(&id.into());
    assert_eq!(name("east-1"), "east-1.snapshot");
    assert_eq!(name("../a b/ü"), "%2E%2E%2Fa%20b%2F%C3%BC.snapshot");
    assert_eq!(name("").as_str(), ".snapshot");
    let long = |end: &str| name(&("x".repeat(300) + end));
    assert!(long("a").len() < 220 && long("a") != long("b"));
}

const SERVER: &str = "https://192.0.2.1:6443/";

#[tokio::test]
async fn a_slot_keeps_the_newest_and_says_since_when_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("clusters");
    let snapshots = Snapshots::open(&dir, "east".into()).unwrap();
    let slot = snapshots.slot(&"west".into(), true);
    assert!(slot.load(Some(SERVER)).await.unwrap().is_none());
    assert!(slot.confirm().await.is_err(), "there is nothing to confirm");
    slot.save(SERVER, 2, items()).await.unwrap();
    slot.save(SERVER, 1, Vec::new()).await.unwrap();
    let path = dir.join("west.snapshot");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = slot.load(Some(SERVER)).await.unwrap().unwrap();
    assert_eq!(loaded.items, items());
    assert!(loaded.as_of.elapsed().unwrap() < Duration::from_secs(60));

    // Its time is that of the file, but neither before its content nor in the future.
    let at = |time: SystemTime| fs::File::options().write(true).open(&path).unwrap().set_modified(time);
    at(SystemTime::now() + Duration::from_secs(9_999)).unwrap();
    assert!(slot.load(Some(SERVER)).await.unwrap().unwrap().as_of <= SystemTime::now());
    at(SystemTime::UNIX_EPOCH).unwrap();
    let age = slot.load(Some(SERVER)).await.unwrap().unwrap().as_of.elapsed().unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    slot.confirm().await.unwrap();

    // Of another address it is not served, unless it is in force already.
    let moved = slot.load(Some("https://192.0.2.2/")).await.unwrap_err();
    let problem = slot.problem(&moved).to_string();
    assert!(problem.starts_with("west: ") && problem.contains("west.snapshot"), "{problem}");
    assert!(problem.contains("is not served: it was taken of the API server at"), "{problem}");
    assert!(slot.clone().of_any_server().load(Some("https://192.0.2.2/")).await.is_ok());

    // What a killed process left goes, other files do not, and only what secrets named is known by itself.
    fs::write(dir.join(".west.snapshot.0123.tmp"), "half").unwrap();
    fs::write(dir.join("notes.snapshot"), "mine").unwrap();
    fs::copy(&path, dir.join("copy.snapshot")).unwrap();
    let given = snapshots.slot(&"north".into(), false);
    given.save(SERVER, 1, items()).await.unwrap();
    let again = Snapshots::open(&dir, "east".into()).unwrap();
    assert_eq!(again.joined(), [ClusterId::from("west")]);
    assert!(Snapshots::open(&dir, "south".into()).unwrap().joined().is_empty());
    assert!(dir.join("notes.snapshot").exists() && !dir.join(".west.snapshot.0123.tmp").exists());

    slot.remove().await.unwrap();
    slot.save(SERVER, 3, items()).await.unwrap();
    assert!(slot.load(None).await.unwrap().is_none(), "it came back");
    fs::write(&path, "garbage\n").unwrap();
    assert!(slot.load(None).await.unwrap_err().to_string().contains("not a snapshot"));
}
