//! Load assignments from the registry's tables, built and encoded, in the shapes of Istio's own benchmark (endpoints of a
//! service x services) and one large one; the floor is prost encoding finished messages. Then one endpoint of a service
//! changes: from the change to the new assignment.

mod mesh;

use std::{sync::Arc, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use landbridge::{
    model::{node::ProxyKind, service::Service},
    resource::eds,
    view::{EndpointView, Scope},
};
use landbridge_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;

/// Endpoints of each service, and services.
const SHAPES: [(usize, usize); 5] = [(1, 100), (10, 10), (100, 10), (1_000, 1), (10_000, 1)];

fn view() -> EndpointView {
    EndpointView {
        kind: ProxyKind::Sidecar,
        scope: Scope::Public,
        cluster: "east".into(),
        network: "".into(),
        requested_networks: None,
        locality: "region/region-1".parse().unwrap_or_default(),
        labels: Default::default(),
        node: None,
        sni_dnat: false,
        workloads: true,
        one_by_one_above: None,
    }
}

fn full(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode_eds");
    for (endpoints, services) in SHAPES {
        let state = mesh::state(services, endpoints);
        let all: Vec<Arc<Service>> = state.index.services().cloned().collect();
        let view = view();
        let build = |service: &Arc<Service>| eds::service(&state.index, &view, service);
        let messages: Vec<_> = all
            .iter()
            .flat_map(build)
            .map(|built| ClusterLoadAssignment::decode(built.message.as_slice()).expect("our own bytes"))
            .collect();
        let members = messages.iter().flat_map(|m| &m.endpoints).map(|l| l.lb_endpoints.len());
        assert_eq!(members.sum::<usize>(), endpoints * services);

        let shape = format!("{endpoints}x{services}");
        group.throughput(Throughput::Elements((endpoints * services) as u64));
        group.bench_function(BenchmarkId::new("landbridge", &shape), |b| {
            b.iter(|| all.iter().map(|s| build(s).len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("floor_prost_encode", &shape), |b| {
            b.iter(|| messages.iter().map(|m| m.encode_to_vec().len()).sum::<usize>());
        });
    }
}

/// The index takes in a slice of which one endpoint differs, and the service's assignment is built.
fn one_endpoint(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_endpoint");
    for endpoints in [100, 1_000, 10_000] {
        let mut state = mesh::state(1, endpoints);
        let service = state.index.services().next().expect("one service").clone();
        let view = view();
        let mut ready = true;
        group.bench_function(BenchmarkId::new("index", endpoints), |b| {
            b.iter_batched(
                || {
                    ready = !ready;
                    vec![mesh::slice(0, endpoints, ready)]
                },
                |changes| state.apply(changes, Instant::now()),
                criterion::BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("assignment", endpoints), |b| {
            b.iter(|| eds::service(&state.index, &view, &service));
        });
    }
}

criterion_group!(benches, full, one_endpoint);
criterion_main!(benches);
