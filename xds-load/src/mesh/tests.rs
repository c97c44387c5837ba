use std::{collections::BTreeMap, path::PathBuf};

use super::{
    churn::{Plan, Script},
    show::Show,
    *,
};
use crate::expect::{Marker, Type};

/// Two networks, every kind of object, sizes small enough to look at.
pub(super) fn varied() -> Spec {
    Spec {
        clusters: 3,
        networks: 2,
        regions: 2,
        namespaces: 4,
        services: 24,
        endpoints: 7,
        everywhere: 0.5,
        large: Large { services: 1, endpoints: 250 },
        ports: vec![
            vec![Port { name: "http".into(), port: 80, target: 8080 }],
            vec![
                Port { name: "grpc".into(), port: 9000, target: 9000 },
                Port { name: "tcp-db".into(), port: 5432, target: 5432 },
            ],
        ],
        headless: 0.1,
        sidecars: 0.9,
        clients: 12,
        scopes: 2,
        private: 0.2,
        rules: 0.5,
        subsets: 0.5,
        strict: 0.5,
        ..Spec::default()
    }
}

fn files(mesh: &Mesh) -> BTreeMap<(usize, PathBuf), String> {
    let clusters = 0..mesh.spec().clusters;
    clusters.flat_map(|c| mesh.files(c).map(move |(path, text)| ((c, path), text))).collect()
}

#[test]
fn a_seed_decides_everything() {
    let generate = |seed| files(&Mesh::generate(Spec { seed, ..varied() }).unwrap());
    assert_eq!(generate(1), generate(1));
    let (one, two) = (generate(1), generate(2));
    assert_ne!(one, two);
    assert!(one.len() > 60, "{}", one.len());
}

#[test]
fn changes_write_what_generate_would_have_written() {
    let mut mesh = Mesh::generate(varied()).unwrap();
    let mut disk = files(&mesh);
    let scripts = [
        Script::Rate { per_second: 100.0, seconds: 1.0, replace: 0.5 },
        Script::Create { services: 2, seconds: 1.0 },
        Script::Restart { services: 2, seconds: 0.1 },
        Script::Remove { services: 3, seconds: 1.0 },
        Script::Outage { cluster: 1, seconds: 1.0 },
        Script::Configure { changes: 3, seconds: 1.0 },
        Script::Burst { pods: 20, times: 2, seconds: 1.0 },
    ];
    for script in scripts {
        let mut plan = Plan::new(script.clone());
        let mut changes = 0;
        while let Some((_, change)) = plan.next(&mesh) {
            changes += 1;
            for write in mesh.apply(change).unwrap().writes {
                match write {
                    Write::Put { cluster, path, text } => drop(disk.insert((cluster, path), text)),
                    Write::Remove { cluster, path } => assert!(disk.remove(&(cluster, path)).is_some()),
                    Write::Directory { .. } => panic!("{script:?} moves no directory"),
                }
            }
        }
        assert!(changes > 0, "{script:?} changes something");
        assert_eq!(disk, files(&mesh), "after {script:?}");
    }
}

#[test]
fn scripts_are_the_same_every_time_and_keep_their_pace() {
    let run = |seed| {
        let mut mesh = Mesh::generate(Spec { seed, ..varied() }).unwrap();
        let mut plan = Plan::new(Script::Rate { per_second: 50.0, seconds: 2.0, replace: 0.5 });
        let mut steps = Vec::new();
        while let Some((at, change)) = plan.next(&mesh) {
            mesh.apply(change).unwrap();
            steps.push((at, change));
        }
        steps
    };
    let steps = run(1);
    assert_eq!(steps, run(1));
    assert_ne!(steps, run(2));
    assert_eq!(steps.len(), 100);
    assert_eq!(steps[99].0, std::time::Duration::from_millis(1980));
    let replaced = steps.iter().filter(|(_, c)| matches!(c, Change::Replace { .. })).count();
    assert!((35..=65).contains(&replaced), "{replaced}");
}

/// One service of two pods, one with and one without a proxy, in each of two clusters.
fn small(networks: usize) -> Mesh {
    let spec = Spec { clusters: 2, networks, services: 1, endpoints: 4, namespaces: 1, ..Spec::default() };
    Mesh::generate(spec).unwrap()
}

const NAME: &str = "outbound|80||service-0.namespace-0.svc.cluster.local";

fn slot(cluster: usize, place: usize) -> Slot {
    Slot { service: ServiceId(0), cluster, place }
}

fn show(marker: Marker, network: Option<usize>) -> Show {
    Show { kind: Type::Endpoint, name: NAME.into(), marker, network }
}

/// Address field and port.
fn lacks(address: &str, port: &[u8]) -> Marker {
    let len = [0x12, address.len() as u8];
    Marker::Lacks([&len, address.as_bytes(), &[0x18], port].concat().into())
}

#[test]
fn a_change_shows_to_those_who_see_the_pod() {
    // The first pods of the clusters: 10.0.0.1 and 10.128.0.1 are the gateways', then come two of the service.
    let unhealthy = |a: &str| Marker::Unhealthy(format!("{a}:8080").parse().unwrap());
    let healthy = |a: &str| Marker::Healthy(format!("{a}:8080").parse().unwrap());
    let unready = Change::Ready { slot: slot(0, 0), ready: false };
    let table = [
        (1, unready, vec![show(unhealthy("10.0.0.2"), None)]),
        (2, unready, vec![show(unhealthy("10.0.0.2"), Some(0))]),
        (1, Change::Ready { slot: slot(0, 0), ready: true }, vec![]),
        (
            2,
            Change::Replace { slot: slot(1, 1) },
            vec![show(lacks("10.128.0.3", &[0x90, 0x3f]), Some(1)), show(healthy("10.128.0.4"), Some(1))],
        ),
        (
            2,
            Change::Cluster { cluster: 1, ready: false },
            vec![
                show(unhealthy("10.128.0.2"), Some(1)),
                show(unhealthy("10.128.0.3"), Some(1)),
                // Nothing is left behind the gateway, for those who come through it.
                show(lacks("198.18.0.2", &[0xd3, 0x78]), Some(0)),
            ],
        ),
        (2, Change::Directory { cluster: 0, away: true }, vec![]),
    ];
    for (networks, change, expected) in table {
        let shows = small(networks).apply(change).unwrap().shows;
        assert_eq!(shows, expected, "{change:?} in {networks} networks");
    }
}

#[test]
fn a_service_that_comes_or_goes_shows_in_clusters_endpoints_and_routes() {
    let mut mesh = small(1);
    let created = mesh.apply(Change::Create).unwrap();
    let host = "service-1.namespace-0.svc.cluster.local";
    let name = format!("outbound|80||{host}");
    let kinds = |shows: &[Show]| shows.iter().map(|s| (s.kind, s.name.to_string())).collect::<Vec<_>>();
    let cluster = (Type::Cluster, name.clone());
    let route = (Type::Route, "80".to_owned());
    assert_eq!(kinds(&created.shows)[..2], [cluster.clone(), route.clone()]);
    assert_eq!(kinds(&created.shows)[2..], vec![(Type::Endpoint, name); 4]);
    assert_eq!(created.writes.len(), 2, "a file in each cluster");

    let removed = mesh.apply(Change::Remove { service: ServiceId(1) }).unwrap();
    assert_eq!(kinds(&removed.shows), [cluster, route]);
    assert_eq!(removed.shows[0].marker, Marker::Gone);
    assert_eq!(removed.shows[1].marker, Marker::Lacks(host.as_bytes().into()));
    assert_eq!(mesh.apply(Change::Remove { service: ServiceId(1) }), Err(Refused::NoService(ServiceId(1))));
}

#[test]
fn a_rule_shows_its_connect_timeout() {
    let shows = small(1).apply(Change::Configure { service: ServiceId(0) }).unwrap().shows;
    // Field 4: 1 s (field 1) and 1,000,000 ns (field 2).
    let timeout = [0x22, 6, 0x08, 1, 0x10, 0xc0, 0x84, 0x3d];
    assert_eq!(shows.len(), 1);
    assert_eq!((shows[0].kind, &*shows[0].name), (Type::Cluster, NAME));
    assert_eq!(shows[0].marker, Marker::Contains(timeout.into()));
}

#[test]
fn a_directory_that_is_away_is_not_written_to() {
    let mut mesh = small(1);
    mesh.apply(Change::Directory { cluster: 0, away: true }).unwrap();
    assert_eq!(mesh.apply(Change::Replace { slot: slot(0, 0) }), Err(Refused::Away(0)));
    assert_eq!(mesh.apply(Change::Create), Err(Refused::Away(0)));
    assert!(mesh.apply(Change::Replace { slot: slot(1, 0) }).is_ok());
    mesh.apply(Change::Directory { cluster: 0, away: false }).unwrap();
    assert!(mesh.apply(Change::Replace { slot: slot(0, 0) }).is_ok());
}

#[test]
fn specs_that_make_no_sense_are_refused_by_field() {
    let check = |change: fn(&mut Spec)| {
        let mut spec = Spec::default();
        change(&mut spec);
        Mesh::generate(spec).map(drop).unwrap_err().field
    };
    assert_eq!(check(|s| s.clusters = 0), "clusters");
    assert_eq!(check(|s| s.clusters = 65), "clusters");
    assert_eq!(check(|s| s.scopes = 11), "scopes");
    assert_eq!(check(|s| s.headless = 1.5), "headless");
    assert_eq!(check(|s| s.sidecars = f64::NAN), "sidecars");
    assert_eq!(check(|s| s.ports = vec![vec![]]), "ports");
    assert_eq!(check(|s| s.ports[0][0].name = "HTTP".into()), "ports");
    assert_eq!(
        check(|s| {
            s.clusters = 64;
            s.services = 20_000;
        }),
        "services"
    );
}

#[test]
fn directories_are_written_once_and_then_only_where_they_differ() {
    let root = tempfile::tempdir().unwrap();
    let directories = directory::Directories::new(root.path().join("mesh"));
    let mut mesh = Mesh::generate(varied()).unwrap();
    let first = directories.write(&mesh).unwrap();
    assert_eq!((first.changed, first.files), (first.files, files(&mesh).len()));
    assert_eq!(directories.write(&mesh).unwrap().changed, 0);
    assert_eq!(directories.spec().unwrap(), varied());

    // Put back to how it was, whatever happened meanwhile.
    let changes =
        [Change::Create, Change::Replace { slot: slot(0, 0) }, Change::Directory { cluster: 2, away: true }];
    for change in changes {
        directories.apply(&mesh.apply(change).unwrap().writes).unwrap();
    }
    assert!(!directories.cluster(2).exists());
    let changed = 1 + 3;
    assert_eq!(directories.write(&Mesh::generate(varied()).unwrap()).unwrap().changed, changed);

    std::fs::remove_file(root.path().join("mesh/spec.yaml")).unwrap();
    assert!(matches!(directories.write(&mesh), Err(directory::Error::NotOurs(_))));
}
