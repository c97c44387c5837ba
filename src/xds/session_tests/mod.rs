//! The protocol, request by request: each scenario is a script of what the client says and what it must get.

mod order;
mod refusals;
mod requests;

use std::time::Duration;

use landbridge_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};

use super::*;
use crate::{
    snapshot::ResourceSet,
    xds::{
        kind::{LDS, RDS},
        payload::Payload,
    },
};

fn resource(kind: Kind, name: &str, content: &str) -> Arc<Encoded> {
    let waits_for = (kind == CDS && name.starts_with('e')).then(|| name.into());
    Arc::new(Encoded::new(name.into(), kind.type_url(), content.as_bytes(), waits_for, Arc::new([])))
}

/// `name=content` pairs; the content is the name where it is missing.
fn set(kind: Kind, items: &str) -> Resources {
    let set: ResourceSet = items
        .split_whitespace()
        .map(|item| item.split_once('=').unwrap_or((item, item)))
        .map(|(name, content)| (Arc::<str>::from(name), resource(kind, name, content)))
        .collect();
    Resources::new(vec![set])
}

fn snapshot([clusters, endpoints, listeners, routes]: [&str; 4]) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        clusters: set(CDS, clusters),
        endpoints: set(EDS, endpoints),
        listeners: set(LDS, listeners),
        routes: set(RDS, routes),
        ..Snapshot::empty()
    })
}

/// A client that writes down what it gets.
struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    fn new(protocol: Protocol, resources: [&str; 4]) -> Self {
        Self { session: Session::new(protocol, snapshot(resources), Limits::default()), now: Instant::now() }
    }

    /// Everything that is sent now, unanswered: `cds +a -b`.
    fn frames(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_frame(self.now)).map(|f| describe(&f)).collect()
    }

    /// Everything that is sent, with an ACK for each.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) = self.session.next_frame(self.now) {
            all.push(describe(&frame));
            self.ack(frame.kind);
        }
        all
    }

    fn push(&mut self, resources: [&str; 4]) {
        self.session.snapshot(snapshot(resources));
    }

    fn delta(&mut self, kind: Kind, subscribe: &[&str], unsubscribe: &[&str], nonce: &str) -> Heard {
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        delta(&mut self.session, kind, &request).unwrap()
    }

    fn sotw(&mut self, kind: Kind, names: &[&str], nonce: &str) -> Heard {
        let request = DiscoveryRequest {
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        self.session.sotw(kind, &request).unwrap()
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        self.session.watch(kind).subscription.names.iter().map(ToString::to_string).collect()
    }

    fn nonce(&self, kind: Kind) -> String {
        self.session.watch(kind).last_nonce.map(|nonce| nonce.to_string()).unwrap_or_default()
    }

    fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        match self.session.protocol {
            Protocol::Delta => self.delta(kind, names, &[], ""),
            Protocol::Sotw => {
                let nonce = self.nonce(kind);
                self.sotw(kind, names, &nonce)
            }
        };
    }

    fn ack(&mut self, kind: Kind) -> Heard {
        self.answer(kind, None)
    }

    fn answer(&mut self, kind: Kind, refusal: Option<&str>) -> Heard {
        let error_detail = refusal.map(|m| Status { code: 13, message: m.into(), ..Default::default() });
        let response_nonce = self.nonce(kind);
        match self.session.protocol {
            Protocol::Delta => {
                let request = DeltaDiscoveryRequest { response_nonce, error_detail, ..Default::default() };
                delta(&mut self.session, kind, &request)
            }
            Protocol::Sotw => {
                let resource_names = self.names(kind);
                let request =
                    DiscoveryRequest { resource_names, response_nonce, error_detail, ..Default::default() };
                self.session.sotw(kind, &request)
            }
        }
        .unwrap()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

fn describe(frame: &Frame) -> String {
    let mut text = frame.kind.short().to_owned();
    for resource in frame.resources.iter() {
        text += &format!(" +{}", content(resource));
    }
    for name in &frame.removed {
        text += &format!(" -{name}");
    }
    text
}

/// `name`, `name=content`, or `name=` for an empty stand-in.
fn content(resource: &Encoded) -> String {
    use prost::Message;
    let any = prost_types::Any::decode(resource.any()).unwrap();
    match std::str::from_utf8(&any.value) {
        Ok(text) if *text == *resource.name => text.to_owned(),
        Ok(text) if !text.starts_with('\n') => format!("{}={text}", resource.name),
        _ => format!("{}=", resource.name),
    }
}

const BOTH: [Protocol; 2] = [Protocol::Delta, Protocol::Sotw];

/// As Envoy begins: clusters, their endpoints, listeners, routes.
fn envoy(protocol: Protocol, resources: [&str; 4], endpoints: &[&str], routes: &[&str]) -> Client {
    let mut client = Client::new(protocol, resources);
    for (kind, names) in [(CDS, [].as_slice()), (EDS, endpoints), (LDS, &[]), (RDS, routes)] {
        if kind.is_wildcard() || !names.is_empty() {
            client.subscribe(kind, names);
        }
        client.settle();
    }
    client
}
