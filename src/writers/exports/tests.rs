use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Due, Object, Plan, object};
use crate::{
    model::{mcs::Api, mesh::MeshConfig, selector::LabelSelector},
    registry::kubernetes::Failure,
};

const SECOND: Duration = Duration::from_secs(1);

fn read(value: Value) -> Object {
    serde_json::from_value(value).expect("an object")
}

/// `shop/cart` at a version.
fn named(name: &str, version: u64) -> Object {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let uid = format!("{namespace}-{name}");
    read(json!({ "metadata": {
        "name": name, "namespace": namespace, "uid": uid, "resourceVersion": version.to_string() } }))
}

fn namespace(name: &str, labels: Value) -> Object {
    read(json!({ "metadata": { "name": name, "labels": labels } }))
}

fn failure(code: u16) -> Failure {
    let status = json!({ "code": code, "reason": "Forbidden", "message": "scripted" });
    Failure::of_status(&serde_json::from_value(status).expect("a Status"))
}

fn plan(services: &[&str], exports: &[&str], mesh: MeshConfig) -> (Plan, Instant) {
    let now = Instant::now();
    let mut plan = Plan::new("istio-system".into(), "cluster.local".into());
    plan.set_mesh(Some(Arc::new(mesh)), now);
    plan.all_namespaces(Vec::new(), now);
    plan.all_services(services.iter().map(|name| named(name, 1)).collect(), now);
    plan.all_exports(exports.iter().map(|name| named(name, 1)).collect(), now);
    (plan, now)
}

fn name(due: &Due) -> String {
    format!("{}/{}", due.name.0, due.name.1)
}

/// All that is made from now on, each with success; and how long that takes.
fn run(plan: &mut Plan, mut now: Instant) -> (Vec<String>, Duration) {
    let began = now;
    let mut made = Vec::new();
    loop {
        if let Some(due) = plan.due(now) {
            made.push(name(&due));
            plan.done(&due, Ok(&named(&name(&due), 100)), now);
        } else if let Some(next) = plan.next() {
            assert!(next > now, "nothing is due now");
            now = next;
        } else {
            return (made, now - began);
        }
    }
}

#[test]
fn every_service_gets_one_but_those_that_stay_at_home() {
    let cluster_local = vec![("*.private.svc.cluster.local".into(), true)];
    let mesh = MeshConfig { cluster_local, ..MeshConfig::default() };
    let services = [
        "default/kubernetes",
        "istio-system/gateway",
        "istio-system/istiod",
        "kube-system/dns",
        "private/cart",
        "shop/cart",
        "shop/list",
    ];
    let (mut plan, now) = plan(&services, &["shop/list"], mesh);
    assert_eq!(run(&mut plan, now).0, ["istio-system/gateway", "shop/cart"]);
    // What the mesh allows later is made then; what it forbids later stays.
    plan.set_mesh(Some(Arc::default()), now);
    assert_eq!(run(&mut plan, now).0, ["private/cart"]);
    plan.service(named("shop/new", 5), now);
    assert_eq!(run(&mut plan, now).0, ["shop/new"]);
    assert_eq!(run(&mut plan, now).0, [""; 0], "it is known without the watch");
}

#[test]
fn nothing_is_missing_that_was_not_looked_for() {
    type Tell = fn(&mut Plan, Instant);
    let tell: [Tell; 4] = [
        |plan, now| plan.set_mesh(Some(Arc::default()), now),
        |plan, now| plan.all_namespaces(Vec::new(), now),
        |plan, now| plan.all_services(vec![named("shop/cart", 1)], now),
        |plan, now| plan.all_exports(Vec::new(), now),
    ];
    for left_out in 0..tell.len() {
        let (mut plan, now) = (Plan::new("istio-system".into(), "cluster.local".into()), Instant::now());
        let others = tell.iter().enumerate().filter(|(i, _)| *i != left_out);
        others.for_each(|(_, tell)| tell(&mut plan, now));
        assert_eq!((plan.due(now), plan.next()), (None, None), "without {left_out}");
        tell[left_out](&mut plan, now);
        assert_eq!(run(&mut plan, now).0, ["shop/cart"]);
        // The kind is taken away with all that there was.
        plan.no_kind(now);
        assert_eq!((plan.due(now), plan.next()), (None, None));
    }
}

#[test]
fn only_selected_namespaces_are_of_the_mesh() {
    let labels = [("mesh".into(), "yes".into())].into_iter().collect();
    let selector = LabelSelector { labels, ..LabelSelector::default() };
    let mesh = MeshConfig { discovery_selectors: vec![selector], ..MeshConfig::default() };
    let (mut plan, now) =
        plan(&["istio-system/gateway", "list/a", "shop/a", "shop/b", "shopping/a"], &[], mesh);
    assert_eq!(run(&mut plan, now).0, ["istio-system/gateway"]);
    plan.namespace(namespace("shop", json!({ "mesh": "yes" })), now);
    assert_eq!(run(&mut plan, now).0, ["shop/a", "shop/b"]);
    plan.namespace(namespace("list", json!({ "mesh": "yes" })), now);
    plan.namespace(namespace("list", json!({ "mesh": "no" })), now);
    assert_eq!(run(&mut plan, now).0, [""; 0]);
}

#[test]
fn it_belongs_to_its_service() {
    let (mut plan, now) = plan(&["shop/cart"], &[], MeshConfig::default());
    let due = plan.due(now).expect("it is due");
    let expected = json!({
        "apiVersion": "net.example/v1", "kind": "ServiceExport",
        "metadata": { "name": "cart", "namespace": "shop", "ownerReferences": [
            { "apiVersion": "v1", "kind": "Service", "name": "cart", "uid": "shop-cart" }] },
    });
    assert_eq!(object(&due, &Api { group: "net.example".into(), version: "v1".into() }), expected);
    assert_eq!(plan.due(now), None, "it is under way");
    // The Service goes meanwhile: nothing of it is kept, and its export is the garbage collector's.
    plan.no_service(&named("shop/cart", 2), now);
    plan.done(&due, Ok(&named("shop/cart", 3)), now);
    plan.no_export(&named("shop/cart", 4), now);
    assert_eq!(run(&mut plan, now).0, [""; 0]);
}

#[test]
fn what_is_deleted_is_made_again_more_and_more_rarely() {
    let (mut plan, mut now) = plan(&["shop/cart"], &[], MeshConfig::default());
    assert_eq!(run(&mut plan, now).0, ["shop/cart"]);
    // What the watch says late of an older one says nothing.
    plan.no_export(&named("shop/cart", 50), now);
    assert_eq!(plan.next(), None);
    let mut waits = Vec::new();
    for _ in 0..8 {
        plan.no_export(&named("shop/cart", 101), now);
        let (made, waited) = run(&mut plan, now);
        assert_eq!(made, ["shop/cart"]);
        waits.push(waited.as_secs());
        now += waited;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    // Long after, at once.
    plan.no_export(&named("shop/cart", 101), now + 1000 * SECOND);
    assert_eq!(run(&mut plan, now + 1000 * SECOND), (vec!["shop/cart".to_owned()], Duration::ZERO));
}

#[test]
fn failures_are_named_and_tried_again_and_others_go_on() {
    let (mut plan, mut now) = plan(&["a/bad", "b/good", "c/good"], &[], MeshConfig::default());
    let mut made = BTreeSet::new();
    let mut bad = 0;
    for _ in 0..40 {
        if let Some(due) = plan.due(now) {
            if name(&due) == "a/bad" {
                bad += 1;
                plan.done(&due, Err(failure(403)), now);
                assert_eq!(plan.due(now + SECOND / 2), None, "a rest for all");
            } else {
                made.insert(name(&due));
                plan.done(&due, Ok(&named(&name(&due), 9)), now);
            }
        }
        now += SECOND;
    }
    assert_eq!((made.len(), bad), (2, 6), "after 0, 1, 3, 7, 15 and 31 seconds");
    let failures = plan.failures();
    let (said, services) = &failures["403"];
    assert_eq!((said.code(), services.len()), (Some(403), 1));
    plan.export(&named("a/bad", 200), now);
    assert!(plan.failures().is_empty() && plan.next().is_none(), "somebody else made it");
}

#[test]
fn a_term_that_is_over_makes_nothing() {
    let (mut plan, now) = plan(&["shop/cart"], &[], MeshConfig::default());
    let due = plan.due(now).expect("it is due");
    plan.put_back(&due, now);
    assert_eq!(plan.next(), Some(now + SECOND));
    assert_eq!(run(&mut plan, now).0, ["shop/cart"]);
}

#[test]
fn a_cluster_full_of_services_takes_its_time() {
    let services: Vec<_> = (0..1000).map(|i| format!("shop/s{i:03}")).collect();
    let services: Vec<_> = services.iter().map(String::as_str).collect();
    let (mut plan, now) = plan(&services, &[], MeshConfig::default());
    let (made, took) = run(&mut plan, now);
    assert_eq!((made.len(), took.as_secs()), (1000, 19));
}

#[derive(Clone, Debug)]
enum Step {
    Service(usize, bool),
    Export(usize, bool),
    Label(usize, bool),
    Mesh(bool),
    Kind(bool),
    Work,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6usize, any::<bool>()).prop_map(|(n, there)| Step::Service(n, there)),
        3 => (0..6usize, any::<bool>()).prop_map(|(n, there)| Step::Export(n, there)),
        1 => (0..2usize, any::<bool>()).prop_map(|(n, selected)| Step::Label(n, selected)),
        1 => any::<bool>().prop_map(Step::Mesh),
        1 => any::<bool>().prop_map(Step::Kind),
        2 => Just(Step::Work),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever comes and goes: what is left to do in the end is what somebody would do who looks at all of it for the first time.
    #[test]
    fn what_is_due_does_not_depend_on_the_way(history in steps()) {
        const NAMES: [&str; 6] = ["a/x", "a/y", "a/z", "b/x", "b/y", "kube-system/x"];
        let selector = LabelSelector { labels: [("m".into(), "1".into())].into_iter().collect(), ..LabelSelector::default() };
        let mesh = |selects: bool| Arc::new(MeshConfig {
            discovery_selectors: selects.then(|| selector.clone()).into_iter().collect(),
            ..MeshConfig::default()
        });
        let (mut way, mut now) = plan(&[], &[], MeshConfig::default());
        let (mut services, mut exports) = (BTreeSet::new(), Some(BTreeSet::new()));
        let (mut selected, mut selects, mut version) = ([false; 2], false, 100);
        let label = |n: usize, is: bool| namespace(["a", "b"][n], json!({ "m": if is { "1" } else { "0" } }));
        for step in history {
            version += 1;
            match step {
                Step::Service(n, true) => { services.insert(NAMES[n]); way.service(named(NAMES[n], version), now); }
                Step::Service(n, false) => { services.remove(NAMES[n]); way.no_service(&named(NAMES[n], version), now); }
                Step::Export(n, there) => if let Some(all) = &mut exports {
                    if there { all.insert(NAMES[n]); way.export(&named(NAMES[n], version), now); }
                    else { all.remove(NAMES[n]); way.no_export(&named(NAMES[n], version), now); }
                },
                Step::Label(n, is) => { selected[n] = is; way.namespace(label(n, is), now); }
                Step::Mesh(is) => { selects = is; way.set_mesh(Some(mesh(is)), now); }
                Step::Kind(true) if exports.is_none() => { exports = Some(BTreeSet::new()); way.all_exports(Vec::new(), now); }
                Step::Kind(true) => {}
                Step::Kind(false) => { exports = None; way.no_kind(now); }
                Step::Work => {
                    now = way.next().unwrap_or(now).max(now);
                    if let Some(due) = way.due(now) {
                        let made = *NAMES.iter().find(|n| **n == name(&due)).expect("one of them");
                        prop_assert!(exports.as_mut().is_some_and(|all| all.insert(made)), "{made} is there");
                        way.done(&due, Ok(&named(made, version)), now);
                    }
                }
            }
        }
        let (mut fresh, began) = (Plan::new("istio-system".into(), "cluster.local".into()), now);
        fresh.set_mesh(Some(mesh(selects)), began);
        fresh.all_namespaces((0..2).map(|n| label(n, selected[n])).collect(), began);
        fresh.all_services(services.iter().map(|name| named(name, 1)).collect(), began);
        if let Some(all) = &exports {
            fresh.all_exports(all.iter().map(|name| named(name, 1)).collect(), began);
        }
        let sorted = |plan: &mut Plan| run(plan, now).0.into_iter().collect::<BTreeSet<_>>();
        prop_assert_eq!(sorted(&mut way), sorted(&mut fresh));
    }
}
