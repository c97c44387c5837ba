//! One load assignment from the registry's tables, built and encoded; its floor is prost encoding the finished message.

mod mesh;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use landbridge::{
    resource::eds,
    view::{EndpointView, Scope},
};
use landbridge_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode_eds");
    for endpoints in [10, 100, 1000, 10_000] {
        let state = mesh::state(1, endpoints);
        let service = state.index.services().next().expect("one service").clone();
        let view = EndpointView {
            kind: landbridge::model::node::ProxyKind::Sidecar,
            scope: Scope::Public,
            cluster: "east".into(),
            network: "".into(),
            requested_networks: None,
            locality: Default::default(),
            labels: Default::default(),
            node: None,
            sni_dnat: false,
        };
        let built = eds::service(&state.index, &view, &service);
        let message = ClusterLoadAssignment::decode(built[0].message.as_slice()).expect("our own bytes");
        assert_eq!(message.endpoints.iter().map(|l| l.lb_endpoints.len()).sum::<usize>(), endpoints);

        group.throughput(Throughput::Elements(endpoints as u64));
        group.bench_function(BenchmarkId::new("landbridge", endpoints), |b| {
            b.iter(|| eds::service(&state.index, &view, &service));
        });
        group.bench_function(BenchmarkId::new("floor_prost_encode", endpoints), |b| {
            b.iter(|| message.encode_to_vec());
        });
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
