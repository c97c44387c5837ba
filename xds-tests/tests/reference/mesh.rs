//! The fixture's two clusters, read and served to a proxy: everything from YAML to encoded resources, in one process.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Instant};

use landbridge::{
    index::Options,
    model::Change,
    pipeline::State,
    registry::convert::{Outcome, Settings, convert},
    registry::yaml,
    snapshot::{Command, Encoded, Resources, Snapshot, StreamId},
    xds::node,
};
use landbridge_proto::envoy::config::core::v3::{Extension, Node};
use prost_types::{Struct, Value as Field, value::Kind};
use serde_json::Value;
use tokio::sync::oneshot;

/// A proxy as the control plane meets it.
pub struct Client {
    pub id: &'static str,
    /// Metadata beside NAMESPACE, CLUSTER_ID and NETWORK.
    pub metadata: &'static [(&'static str, &'static str)],
    pub labels: &'static [(&'static str, &'static str)],
    /// Istio's build with its agent; else a stock Envoy.
    pub istio: bool,
}

/// Reads both clusters.
pub fn state(failover_by_default: bool) -> State {
    let options = Options {
        config_cluster: "cluster1".into(),
        failover_by_default,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    };
    let settings = Settings { failover_by_default, ..Settings::default() };
    let mut changes = Vec::new();
    for cluster in ["cluster1", "cluster2"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/two-clusters").join(cluster);
        for file in fs::read_dir(&folder).expect("the fixture") {
            let text = fs::read_to_string(file.expect("a file").path()).expect("text");
            for document in yaml::documents(&text) {
                let value = yaml::parse(document.text).expect("YAML");
                if value.is_null() {
                    continue;
                }
                match convert(&cluster.into(), &settings, value) {
                    Outcome::Object(key, object, _) => changes.push(Change::Upsert(key, object)),
                    other => panic!("{cluster}: {other:?}"),
                }
            }
        }
    }
    let mut state = State::new(options);
    state.apply(changes, Instant::now());
    state
}

impl Client {
    /// What the control plane has for it.
    pub fn snapshot(&self, state: &mut State) -> Arc<Snapshot> {
        let proxy = node::proxy(Some(&self.node())).expect("a node that is understood");
        let (answer, answered) = oneshot::channel();
        state.command(Command::Attach(StreamId(1), Arc::new(proxy), answer));
        let receiver = answered.blocking_recv().expect("an answer");
        let snapshot = receiver.newest();
        state.command(Command::Detach(StreamId(1)));
        snapshot
    }

    fn node(&self) -> Node {
        let text = |s: &str| Field { kind: Some(Kind::StringValue(s.to_owned())) };
        let fields = |pairs: &[(&str, &str)]| Struct {
            fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect(),
        };
        let mut metadata = fields(self.metadata);
        let labels = Field { kind: Some(Kind::StructValue(fields(self.labels))) };
        metadata.fields.insert("LABELS".to_owned(), labels);
        let mut extensions = Vec::new();
        if self.istio {
            metadata.fields.insert("ISTIO_VERSION".to_owned(), text("1.31.0"));
            let empty = Field { kind: Some(Kind::StructValue(Struct::default())) };
            metadata.fields.insert("PROXY_CONFIG".to_owned(), empty);
            for name in [
                "istio.alpn",
                "istio.metadata_exchange",
                "istio.stats",
                "envoy.filters.http.peer_metadata",
                "envoy.filters.network.metadata_exchange",
            ] {
                extensions.push(Extension { name: name.to_owned(), ..Default::default() });
            }
        }
        Node { id: self.id.to_owned(), metadata: Some(metadata), extensions, ..Default::default() }
    }
}

/// All resources of a type, by name.
pub fn by_name(resources: &Resources, json: impl Fn(&Encoded) -> Value) -> BTreeMap<String, Value> {
    resources.iter().map(|r| (r.name.to_string(), json(r))).collect()
}
