//! What fresh proxies have, held against what the mesh says, which was worked out apart from any control plane.

use std::collections::BTreeSet;

use super::{nodes::Identity, shard::Shard};
use crate::{
    client::{
        proxy::Proxy,
        world::{NameId, World},
    },
    expect::Type,
    mesh::{Assignment, Mesh},
    wire::assignment::{Endpoint, of_assignment, of_endpoint},
};

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Clusters and assignments that were compared.
    pub compared: u64,
    /// Those that are not what the mesh says.
    pub wrong: u64,
    /// In words, some of them.
    pub problems: Vec<String>,
}

const TOLD: usize = 5;

/// Compares what a proxy has with what the mesh says that a proxy of its identity has to have.
pub fn compare(
    shard: &Shard,
    identity: &Identity,
    id: &str,
    proxy: &Proxy,
    mesh: &Mesh,
    world: &mut World,
) -> Truth {
    let mut truth = Truth::default();
    let number = identity.cluster.strip_prefix("cluster-").and_then(|number| number.parse().ok());
    let Some(cluster) = number else { return truth };
    // Proxies that follow a part of their clusters are asked about that part only.
    let all = shard.plan.same_names();
    if shard.plan.asks.types.contains(&Type::Cluster) {
        for name in mesh.cluster_names(&identity.namespace) {
            let known = world.name(Type::Cluster, &name);
            truth.compared += 1;
            if proxy.content(Type::Cluster, known).is_none() {
                truth.tell(format!("proxy {id} has no cluster {name:?}, and the mesh has it"));
            }
        }
    }
    for (name, expected) in mesh.assignments(cluster, &identity.namespace) {
        let known = world.name(Type::Endpoint, &name);
        let follows = all && shard.plan.asks.types.contains(&Type::Cluster);
        let Some(has) = endpoints(proxy, known, world) else {
            if follows && shard.plan.asks.types.contains(&Type::Endpoint) {
                truth.tell(format!("proxy {id} has no endpoints of {name:?}, and the mesh has some"));
            }
            continue;
        };
        truth.compared += 1;
        if let Some(wrong) = difference(&expected, &has) {
            truth.tell(format!("proxy {id} has of {name:?} {wrong}"));
        }
    }
    truth
}

impl Truth {
    fn tell(&mut self, problem: String) {
        self.wrong += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }

    /// Adds what another comparison found.
    pub fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.wrong += other.wrong;
        self.problems.extend(other.problems);
        self.problems.truncate(TOLD);
    }
}

/// What a proxy has of an assignment, as a whole or one by one. `None`: it does not follow it, or its bytes were not kept.
fn endpoints(proxy: &Proxy, name: NameId, world: &World) -> Option<BTreeSet<Endpoint>> {
    let content = world.of_content(proxy.content(Type::Endpoint, name)?);
    let mut all = BTreeSet::new();
    let mut take = |endpoint| _ = all.insert(endpoint);
    of_assignment(content.bytes.as_deref()?, &mut take).ok()?;
    for (part, content) in proxy.state() {
        let collection = world.of_name(part).parent;
        let assignment = collection.and_then(|collection| world.of_name(collection).parent);
        if let Some(content) = content.filter(|_| assignment == Some(name)) {
            of_endpoint(world.of_content(content).bytes.as_deref()?, &mut take).ok()?;
        }
    }
    Some(all)
}

/// What is wrong, in words.
fn difference(expected: &Assignment, has: &BTreeSet<Endpoint>) -> Option<String> {
    let healthy: BTreeSet<_> = has.iter().filter(|e| e.healthy).map(|e| e.address).collect();
    let should: BTreeSet<_> = expected.ready.union(&expected.gateways).copied().collect();
    if let Some(missing) = should.difference(&healthy).next() {
        return Some(format!("no healthy {missing}, and the mesh has it"));
    }
    let known = |endpoint: &&Endpoint| {
        should.contains(&endpoint.address)
            || (!endpoint.healthy && expected.unready.contains(&endpoint.address))
    };
    let foreign = has.iter().find(|endpoint| !known(endpoint))?;
    let health = if foreign.healthy { "healthy" } else { "unhealthy" };
    Some(format!("{} as {health}, and the mesh has not", foreign.address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Assignment, Endpoint, difference, of_assignment};
    use crate::wire::Writer;

    #[test]
    fn what_is_missing_foreign_or_of_other_health_is_said() {
        let at = |text: &str| text.parse().unwrap();
        let expected = Assignment {
            ready: BTreeSet::from([at("10.0.0.1:80")]),
            unready: BTreeSet::from([at("10.0.0.2:80")]),
            gateways: BTreeSet::from([at("10.1.0.1:15443")]),
        };
        type Case = (&'static [(&'static str, bool)], Option<&'static str>);
        let cases: &[Case] = &[
            (&[("10.0.0.1:80", true), ("10.1.0.1:15443", true)], None),
            (&[("10.0.0.1:80", true), ("10.1.0.1:15443", true), ("10.0.0.2:80", false)], None),
            (&[("10.1.0.1:15443", true)], Some("no healthy 10.0.0.1:80, and the mesh has it")),
            (
                &[("10.0.0.1:80", false), ("10.1.0.1:15443", true)],
                Some("no healthy 10.0.0.1:80, and the mesh has it"),
            ),
            (
                &[("10.0.0.1:80", true), ("10.1.0.1:15443", true), ("10.0.0.2:80", true)],
                Some("10.0.0.2:80 as healthy, and the mesh has not"),
            ),
            (
                &[("10.0.0.1:80", true), ("10.1.0.1:15443", true), ("10.9.0.9:80", false)],
                Some("10.9.0.9:80 as unhealthy, and the mesh has not"),
            ),
        ];
        for (has, said) in cases {
            let has =
                has.iter().map(|(address, healthy)| Endpoint { address: at(address), healthy: *healthy });
            assert_eq!(difference(&expected, &has.collect()).as_deref(), *said);
        }
    }

    #[test]
    fn endpoints_are_read_from_bytes() {
        let mut assignment = Writer::default();
        assignment.text(1, "svc").message(2, |locality| {
            for health in [0, 2] {
                locality.message(2, |lb| {
                    lb.message(1, |endpoint| {
                        endpoint.message(1, |address| {
                            _ = address
                                .message(1, |socket| _ = socket.text(2, "10.0.0.1").number(3, 8080 + health));
                        });
                    });
                    lb.number(2, health);
                });
            }
        });
        let mut seen = Vec::new();
        of_assignment(&assignment.0, |endpoint| seen.push((endpoint.address.to_string(), endpoint.healthy)))
            .unwrap();
        assert_eq!(seen, [("10.0.0.1:8080".to_owned(), true), ("10.0.0.1:8082".to_owned(), false)]);
    }
}
