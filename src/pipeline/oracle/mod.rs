//! The oracle: whatever happened, in whatever order, what is published incrementally equals what a fresh control plane
//! builds from the objects as they are now, byte for byte.

mod gateways;
mod histories;
mod stale;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use landbridge_proto::envoy::config::{
    endpoint::v3::{ClusterLoadAssignment, locality_lb_endpoints::LbConfig},
    route::v3::{RouteConfiguration, VirtualHost},
};
use proptest::prelude::*;
use prost::Message;
use tokio::sync::oneshot;

use self::{
    gateways::{dead, resolved},
    histories::{CLUSTERS, NAMESPACES, Step, Thing, identify, key, mcs, object, proxy, service, steps},
};
use super::State;
use crate::{
    index::Options,
    model::{Change, ClusterId, Kind, Object, ObjectKey, mcs::Mcs, staleness::Treatment},
    resource::eds::{Assignment, assign},
    snapshot::{Command, Encoded, Nack, ResourceType, Snapshot, StreamId},
};

fn options() -> Options {
    Options {
        config_cluster: ClusterId::from("east"),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Default::default(),
    }
}

fn attach(state: &mut State, id: u64, variant: u8) {
    let (answer, _answered) = oneshot::channel();
    state.command(Command::Attach(StreamId(id), Arc::new(proxy(variant)), answer));
}

fn snapshots(state: &State) -> HashMap<StreamId, Arc<Snapshot>> {
    state.classes.proxies().map(|(id, _, _, snapshot)| (id, snapshot)).collect()
}

fn put(state: &mut State, cluster: usize, thing: Thing, variant: u8) {
    let change = Change::Upsert(identify(cluster, thing), object(cluster, thing, variant));
    state.apply(vec![change], Instant::now());
}

/// What a history makes there be, with proxies of all kinds.
fn mesh(history: Vec<Step>, mcs: Mcs) -> State {
    let mut state = State::new(Options { mcs, ..options() });
    for step in history {
        if let Step::Put(cluster, thing, variant) = step {
            put(&mut state, cluster, thing, variant);
        }
    }
    for variant in 0..6 {
        attach(&mut state, u64::from(variant), variant);
    }
    state
}

/// A stream, a service and its port.
type Place = (StreamId, String, u16);

/// What every proxy gets of every service.
fn given<T>(state: &State, seen: impl Fn(&Assignment<'_>) -> T) -> BTreeMap<Place, T> {
    let mut given = BTreeMap::new();
    for (id, _, views, _) in state.classes.proxies() {
        for service in state.index.visible(&views.endpoints.scope) {
            for port in &service.ports {
                let assignment = assign(&state.index, &views.endpoints, service, port, None, false);
                given.insert((id, service.key.host.to_string(), port.number), seen(&assignment));
            }
        }
    }
    given
}

/// Whether members that are late have a larger priority than all others.
fn late_is_last(members: impl Iterator<Item = (bool, u32)> + Clone) -> bool {
    let of = |wanted| members.clone().filter(move |(late, _)| *late == wanted).map(|(_, priority)| priority);
    of(true).min().zip(of(false).max()).is_none_or(|(late, other)| late > other)
}

/// Nobody gets anything else than what was published, and no builder has failed.
fn is_as_before(state: &State, published: &HashMap<StreamId, Arc<Snapshot>>) -> Result<(), TestCaseError> {
    for (id, snapshot) in snapshots(state) {
        for kind in ResourceType::ALL {
            let changed = snapshot.get(kind).diff(published[&id].get(kind));
            prop_assert!(changed.is_empty(), "{:?} of {:?}", kind, id);
        }
    }
    prop_assert_eq!(state.totals.failed_builds, 0);
    Ok(())
}

fn play(history: Vec<Step>, mcs: Mcs) -> Result<(), TestCaseError> {
    let options = || Options { mcs, ..options() };
    let mut state = State::new(options());
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut treatments: BTreeMap<ClusterId, Treatment> = BTreeMap::new();
    let mut dead_gateways = dead(0);
    let mut addresses = resolved(0);
    let mut attached: Vec<(u64, u8)> = Vec::new();
    let mut refused = Vec::new();
    for (now, step) in history.into_iter().enumerate() {
        match step {
            Step::Put(cluster, thing, variant) => {
                let (key, object) = (identify(cluster, thing), object(cluster, thing, variant));
                objects.insert(key.clone(), object.clone());
                state.apply(vec![Change::Upsert(key, object)], Instant::now());
            }
            Step::Remove(cluster, thing) => {
                let key = identify(cluster, thing);
                objects.remove(&key);
                state.apply(vec![Change::Remove(key)], Instant::now());
            }
            Step::Forget(cluster) => {
                let id = ClusterId::from(CLUSTERS[cluster]);
                objects.retain(|key, _| key.cluster != id);
                treatments.remove(&id);
                state.apply(vec![Change::Forget(id)], Instant::now());
            }
            Step::Treat(cluster, treatment) => {
                let id = ClusterId::from(CLUSTERS[cluster]);
                treatments.insert(id.clone(), treatment);
                state.treat(vec![(id, treatment)], Instant::now());
            }
            Step::DeadGateways(some) => {
                dead_gateways = dead(some);
                state.set_dead_gateways(dead_gateways.clone(), Instant::now());
            }
            Step::Resolve(variant) => {
                addresses = resolved(variant);
                state.set_gateway_addresses(addresses.clone(), Instant::now());
            }
            Step::Attach(variant) => {
                attach(&mut state, now as u64, variant);
                attached.push((now as u64, variant));
            }
            Step::Detach(n) if n < attached.len() => {
                let (id, _) = attached.remove(n);
                state.command(Command::Detach(StreamId(id)));
            }
            Step::Nack(n, kind, which) if n < attached.len() => {
                let id = StreamId(attached[n].0);
                let snapshot = snapshots(&state).remove(&id).expect("an attached stream has a snapshot");
                let resources = snapshot.get(kind);
                if let Some(bad) = resources.iter().nth(which % resources.len().max(1)) {
                    let nack =
                        Nack { kind, name: bad.name.clone(), version: bad.version, reason: "refused".into() };
                    refused.push((kind, bad.name.clone(), bad.version));
                    state.command(Command::Nack(id, nack));
                }
            }
            Step::Detach(_) | Step::Nack(..) => {}
        }
    }

    let mut fresh = State::new(options());
    fresh.apply(objects.into_iter().map(|(k, o)| Change::Upsert(k, o)).collect(), Instant::now());
    fresh.treat(treatments.into_iter().collect(), Instant::now());
    fresh.set_dead_gateways(dead_gateways, Instant::now());
    fresh.set_gateway_addresses(addresses, Instant::now());
    for (id, variant) in &attached {
        attach(&mut fresh, *id, *variant);
    }

    prop_assert_eq!(state.index.services().collect::<Vec<_>>(), fresh.index.services().collect::<Vec<_>>());
    for service in fresh.index.services() {
        prop_assert_eq!(state.index.endpoints(&service.key), fresh.index.endpoints(&service.key));
    }
    prop_assert_eq!(state.index.networks(), fresh.index.networks());
    prop_assert_eq!(state.index.discriminators(), fresh.index.discriminators());
    prop_assert_eq!(state.classes.len(), fresh.classes.len());

    let (published, rebuilt) = (snapshots(&state), snapshots(&fresh));
    for (id, expected) in &rebuilt {
        let actual = &published[id];
        for kind in ResourceType::ALL {
            let content = |s: &Snapshot| -> BTreeMap<_, _> {
                s.get(kind).iter().map(|e| (e.name.clone(), e.version)).collect()
            };
            let (mut actual, mut expected) = (content(actual), content(expected));
            // What was refused stays at other bytes, or away: never at the refused ones.
            for (_, name, version) in refused.iter().filter(|(k, _, _)| *k == kind) {
                prop_assert_ne!(actual.get(name), Some(version));
                if expected.get(name) == Some(version) {
                    actual.remove(name);
                    expected.remove(name);
                }
            }
            prop_assert_eq!(actual, expected, "{:?} of {:?}", kind, id);
        }
    }
    if refused.is_empty() {
        published.values().try_for_each(|snapshot| no_domain_occurs_twice(snapshot))?;
        published.values().try_for_each(|snapshot| no_collection_is_empty(snapshot))?;
    }
    prop_assert_eq!(state.totals.failed_builds, 0);
    Ok(())
}

/// A cluster would become warm without endpoints, or wait for ever; and no endpoint is without a place.
fn no_collection_is_empty(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let mut found = 0;
    for assignment in snapshot.endpoints.iter() {
        let spellings = [Some(assignment), assignment.respelt.as_ref()];
        let [first, second] = spellings.map(|spelling| spelling.map(|s| decode::<ClusterLoadAssignment>(s)));
        let groups = first.into_iter().flat_map(|assignment| assignment.endpoints);
        let again = second.map(|second| second.endpoints);
        for (i, group) in groups.enumerate() {
            let Some(LbConfig::LedsClusterLocalityConfig(config)) = &group.lb_config else {
                prop_assert!(again.is_none() && assignment.waits_for.is_none());
                continue;
            };
            let same =
                again.as_ref().and_then(|again| again.get(i)).and_then(|group| group.lb_config.clone());
            let Some(LbConfig::LedsClusterLocalityConfig(same)) = same else {
                return Err(TestCaseError::fail("two spellings"));
            };
            prop_assert_eq!(&same.leds_collection_name, &config.leds_collection_name);
            prop_assert_ne!(&same.leds_config, &config.leds_config);
            let prefix = config.leds_collection_name.trim_end_matches('*');
            prop_assert!(prefix.starts_with(&**assignment.waits_for.as_ref().expect("it waits")));
            let members = snapshot.lb_endpoints.with_prefix(prefix).count();
            prop_assert_ne!(members, 0, "{}", prefix);
            found += members;
        }
    }
    prop_assert_eq!(found, snapshot.lb_endpoints.len());
    Ok(())
}

/// Envoy would refuse the table.
fn no_domain_occurs_twice(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in snapshot.routes.iter() {
        let table: RouteConfiguration = decode(table);
        let domains = table.virtual_hosts.into_iter().flat_map(|host| host.domains);
        tables.entry(table.name).or_default().extend(domains);
    }
    for host in snapshot.virtual_hosts.iter() {
        let host: VirtualHost = decode(host);
        let (table, _) = host.name.split_once('/').expect("a table's name and a host's");
        prop_assert!(tables.contains_key(table), "{} is in no table", host.name);
        tables.entry(table.to_owned()).or_default().extend(host.domains);
    }
    for (table, domains) in tables {
        let lower: Vec<_> = domains.iter().map(|d| d.to_ascii_lowercase()).collect();
        let unique: std::collections::BTreeSet<_> = lower.iter().collect();
        prop_assert_eq!(unique.len(), domains.len(), "table {}: {:?}", table, domains);
    }
    Ok(())
}

fn decode<M: Message + Default>(encoded: &Encoded) -> M {
    let any = prost_types::Any::decode(encoded.any()).expect("our own bytes");
    M::decode(any.value.as_slice()).expect("our own bytes")
}

/// A service more: its cluster, its assignment and its virtual host, and nothing that is of others.
#[test]
fn a_new_service_is_built_alone() {
    let mut state = State::new(options());
    attach(&mut state, 1, 0);
    let put = |n: usize| {
        let mut service = service(0, 0, 0, 0);
        service.meta.name = format!("many-{n}").into();
        service.cluster_ips = vec![([10, 97, (n / 250) as u8, (n % 250) as u8]).into()];
        let key = key(0, Kind::Service, NAMESPACES[0], &service.meta.name);
        Change::Upsert(key, Object::Service(Arc::new(service)))
    };
    state.apply((0..300).map(put).collect(), Instant::now());
    let (before, built) = (snapshots(&state).remove(&StreamId(1)).expect("attached"), state.totals.resources);
    state.apply(vec![put(300)], Instant::now());
    let after = snapshots(&state).remove(&StreamId(1)).expect("attached");
    let changed = |kind| after.get(kind).diff(before.get(kind)).len();
    assert_eq!(
        ResourceType::ALL.map(changed),
        [1, 1, 0, 0, 0, 1],
        "clusters, assignments, endpoints, listeners, routes, hosts"
    );
    assert_eq!(state.totals.resources - built, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn incremental_equals_rebuilt(history in steps(), mcs in mcs()) {
        play(history, mcs)?;
    }
}

#[test]
fn nothing_is_left_when_all_streams_are_gone() {
    let mut state = State::new(options());
    for variant in 0..6 {
        attach(&mut state, u64::from(variant), variant);
    }
    assert!(state.layers.iter().count() > 0);
    for id in 0..6 {
        state.command(Command::Detach(StreamId(id)));
    }
    assert_eq!((state.layers.iter().count(), state.classes.len()), (0, 0));
    assert!(state.totals.busy < Duration::from_secs(60).as_secs_f64());
}
