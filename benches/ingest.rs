//! EndpointSlices as API servers send them, into the registry: 200,000 endpoints in 20,000 slices of 5 clusters. Per
//! endpoint: time on one core (lines of a watch, decoded and taken in by the index) and memory (what the allocator holds
//! more of than before). The floor is serde_json reading the same lines into a struct of the same fields, and nothing
//! kept of it. Pods are measured by themselves: an endpoint names one, but a registry reads them once.
//!
//! `cargo bench --bench ingest` prints a table and `--json` one line of JSON for the report.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use landbridge::{
    index::{Index, Options},
    model::{Change, Kind},
    registry::convert::{
        Outcome, Settings,
        watched::{Decoder, Event},
    },
};
use serde::Deserialize;

const CLUSTERS: usize = 5;
const SLICES: usize = 20_000;
const ENDPOINTS_OF_SLICE: usize = 10;
const PODS: usize = 20_000;
const ROUNDS: usize = 5;
/// What a source hands over at once.
const BATCH: usize = 500;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn metadata(kind: &str, name: &str, service: usize, labels: &str) -> String {
    format!(
        r#""metadata":{{"name":"{name}","generateName":"svc{service}-","namespace":"ns{}","uid":"6b7f9f9e-3a52-4be5-9c3a-{service:012}","resourceVersion":"{}","generation":3,"creationTimestamp":"2026-08-01T00:00:10Z","labels":{{{labels}}},"annotations":{{"endpoints.kubernetes.io/last-change-trigger-time":"2026-08-01T00:00:10Z"}},"ownerReferences":[{{"apiVersion":"v1","kind":"{kind}","name":"svc{service}-7f9c8d5b6","uid":"6b7f9f9e-3a52-4be5-9c3a-{service:012}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"discovery.k8s.io/v1","time":"2026-08-01T00:00:10Z","fieldsType":"FieldsV1","fieldsV1":{{"f:addressType":{{}},"f:endpoints":{{}},"f:metadata":{{"f:annotations":{{".":{{}},"f:endpoints.kubernetes.io/last-change-trigger-time":{{}}}},"f:generateName":{{}},"f:labels":{{".":{{}},"f:kubernetes.io/service-name":{{}}}}}},"f:ports":{{}}}}}}]}}"#,
        service % 50,
        700_000 + service,
    )
}

fn slice(number: usize) -> String {
    let service = number / CLUSTERS;
    let labels = format!(
        r#""app":"svc{service}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"svc{service}""#
    );
    let endpoint = |i: usize| {
        let n = service * ENDPOINTS_OF_SLICE + i;
        let [_, a, b, c] = (n as u32).to_be_bytes();
        format!(
            r#"{{"addresses":["10.{a}.{b}.{c}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"ip-10-0-{}-{}.eu-central-1.compute.internal","targetRef":{{"kind":"Pod","name":"svc{service}-7f9c8d5b6-{:05x}","namespace":"ns{}","uid":"6b7f9f9e-3a52-4be5-9c3a-{n:012}"}},"zone":"eu-central-1a"}}"#,
            n % 4,
            n % 200,
            n % 0xf_ffff,
            service % 50,
        )
    };
    let endpoints: Vec<_> = (0..ENDPOINTS_OF_SLICE).map(endpoint).collect();
    format!(
        r#"{{"type":"ADDED","object":{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1",{},"addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}}}"#,
        metadata("Service", &format!("svc{service}-x7k2p"), service, &labels),
        endpoints.join(","),
    )
}

fn pod(number: usize) -> String {
    let service = number / ENDPOINTS_OF_SLICE;
    let labels = format!(
        r#""app":"svc{service}","version":"v1","pod-template-hash":"7f9c8d5b6","security.istio.io/tlsMode":"istio","service.istio.io/canonical-name":"svc{service}""#
    );
    let env: Vec<_> =
        (0..20).map(|i| format!(r#"{{"name":"VARIABLE_{i}","value":"value of {i}"}}"#)).collect();
    let container = format!(
        r#"{{"name":"main","image":"registry/app:1","ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],"env":[{}],"resources":{{"requests":{{"cpu":"1"}}}}}}"#,
        env.join(",")
    );
    let [_, a, b, c] = (number as u32).to_be_bytes();
    format!(
        r#"{{"type":"ADDED","object":{{"kind":"Pod","apiVersion":"v1",{},"spec":{{"containers":[{container},{container}],"serviceAccountName":"svc{service}","nodeName":"ip-10-0-{}-{}.eu-central-1.compute.internal"}},"status":{{"phase":"Running","podIP":"10.{a}.{b}.{c}","podIPs":[{{"ip":"10.{a}.{b}.{c}"}}]}}}}}}"#,
        metadata(
            "ReplicaSet",
            &format!("svc{service}-7f9c8d5b6-{:05x}", number % 0xf_ffff),
            service,
            &labels
        ),
        number % 4,
        number % 200,
    )
}

/// What a line becomes.
fn change(event: Event) -> Change {
    match event {
        Event::Now(Outcome::Object(key, object, _)) => Change::Upsert(key, object),
        other => panic!("a line of the bench is not read: {other:?}"),
    }
}

/// Reads all lines; gives the seconds it took and the bytes that are held for it afterwards.
fn ingest(lines: &[String], read: impl Fn(&mut Decoder, &str) -> Event) -> (f64, usize) {
    let options = Options {
        config_cluster: "c0".into(),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    };
    let before = HELD.load(Ordering::Relaxed);
    let started = Instant::now();
    let decoder = |i| Decoder::new(format!("c{i}").as_str().into(), Settings::default());
    let mut decoders: Vec<_> = (0..CLUSTERS).map(decoder).collect();
    let mut index = Index::new(options);
    for batch in lines.chunks(BATCH) {
        let changes =
            batch.iter().enumerate().map(|(i, line)| change(read(&mut decoders[i % CLUSTERS], line)));
        index.update(changes);
    }
    let seconds = started.elapsed().as_secs_f64();
    (seconds, HELD.load(Ordering::Relaxed) - before)
}

// === the floor ===

#[derive(Deserialize)]
struct Floor<'a> {
    #[serde(borrow)]
    object: FloorSlice<'a>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "what is read and forgotten")]
struct FloorSlice<'a> {
    #[serde(borrow)]
    metadata: FloorMeta<'a>,
    #[serde(borrow)]
    endpoints: Vec<FloorEndpoint<'a>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "what is read and forgotten")]
struct FloorMeta<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is read and forgotten")]
struct FloorEndpoint<'a> {
    #[serde(borrow)]
    addresses: Vec<&'a str>,
    conditions: FloorConditions,
    node_name: &'a str,
    #[serde(borrow)]
    target_ref: FloorRef<'a>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "what is read and forgotten")]
struct FloorConditions {
    ready: bool,
    serving: bool,
    terminating: bool,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "what is read and forgotten")]
struct FloorRef<'a> {
    kind: &'a str,
    name: &'a str,
}

fn floor(lines: &[String]) -> f64 {
    let started = Instant::now();
    let read =
        |line: &String| serde_json::from_str::<Floor>(line).expect("our own line").object.endpoints.len();
    let endpoints: usize = lines.iter().map(read).sum();
    assert_eq!(endpoints, lines.len() * ENDPOINTS_OF_SLICE);
    started.elapsed().as_secs_f64()
}

fn main() {
    // `cargo test --benches` runs it, too: once and small.
    let benching = std::env::args().any(|arg| arg == "--bench");
    let (slices, pods, rounds) = if benching { (SLICES, PODS, ROUNDS) } else { (100, 100, 1) };
    let lines: Vec<_> = (0..slices).map(slice).collect();
    let pods: Vec<_> = (0..pods).map(pod).collect();
    let (mut best, mut best_floor, mut best_pods) = (f64::MAX, f64::MAX, f64::MAX);
    let (mut held, mut held_pods) = (0, 0);
    for _ in 0..rounds {
        best_floor = best_floor.min(floor(&lines));
        let read = |decoder: &mut Decoder, line: &str| {
            decoder.line(Kind::EndpointSlice, line.as_bytes()).expect("our own line").event
        };
        let (seconds, bytes) = ingest(&lines, read);
        (best, held) = (best.min(seconds), bytes);
        let read = |decoder: &mut Decoder, line: &str| {
            decoder.line(Kind::Pod, line.as_bytes()).expect("our own line").event
        };
        let (seconds, bytes) = ingest(&pods, read);
        (best_pods, held_pods) = (best_pods.min(seconds), bytes);
    }
    let endpoints = (lines.len() * ENDPOINTS_OF_SLICE) as f64;
    let rate = |seconds: f64| endpoints / seconds;
    if std::env::args().any(|arg| arg == "--json") {
        println!(
            r#"{{"endpoints_per_second":{:.0},"floor_endpoints_per_second":{:.0},"bytes_per_endpoint":{:.1},"pods_per_second":{:.0},"bytes_per_pod":{:.1}}}"#,
            rate(best),
            rate(best_floor),
            held as f64 / endpoints,
            pods.len() as f64 / best_pods,
            held_pods as f64 / pods.len() as f64,
        );
        return;
    }
    println!("best of {rounds}:");
    println!("  slices  {:>9.0} endpoints/s, {:.1} bytes each", rate(best), held as f64 / endpoints);
    println!("  floor   {:>9.0} endpoints/s ({:.2}x)", rate(best_floor), best / best_floor);
    println!(
        "  pods    {:>9.0} pods/s, {:.0} bytes each",
        pods.len() as f64 / best_pods,
        held_pods as f64 / pods.len() as f64
    );
}
