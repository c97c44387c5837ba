use super::*;
use crate::model::selector::LabelSelector;

const SECOND: Duration = Duration::from_secs(1);

fn namespace(name: &str, labels: Value) -> Namespace {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).expect("a Namespace")
}

fn map(namespace: &str, version: u32, roots: &str, manager: &str) -> Map {
    serde_json::from_value(stored(namespace, version, roots, manager)).expect("a ConfigMap")
}

fn stored(namespace: &str, version: u32, roots: &str, manager: &str) -> Value {
    json!({
        "metadata": {
            "name": NAME, "namespace": namespace, "resourceVersion": version.to_string(),
            "labels": { "istio.io/config": "true" },
            "managedFields": [{ "manager": "landbridge", "time": "2026-01-01T00:00:00Z" },
                { "manager": manager, "time": "2026-01-02T00:00:00Z" }],
        },
        "data": { "root-cert.pem": roots },
    })
}

fn failure(code: u16) -> Failure {
    let status = json!({ "code": code, "reason": "Forbidden", "message": "scripted" });
    Failure::of_status(&serde_json::from_value(status).expect("a Status"))
}

fn plan(namespaces: &[&str], maps: Vec<Map>) -> Plan {
    let mut plan = Plan::new("istio-system".into());
    plan.set_roots(Some("ROOT".into()));
    plan.set_selectors(Some(Arc::default()));
    plan.all_namespaces(namespaces.iter().map(|name| namespace(name, json!(null))).collect());
    plan.all_maps(maps);
    plan
}

fn names(due: &[Due]) -> Vec<&str> {
    due.iter().map(|due| due.namespace.as_str()).collect()
}

#[test]
fn every_namespace_gets_it_but_those_of_no_workload() {
    let now = Instant::now();
    let all = ["default", "kube-public", "kube-node-lease", "local-path-storage", "kube-system", "shop"];
    let mut plan = plan(&all, vec![map("shop", 5, "ROOT", "x")]);
    let due = plan.due(now);
    assert_eq!(names(&due), ["default", "kube-system"], "shop has it");
    assert!(due.iter().all(|due| due.outcome == Outcome::Written));
    assert!(plan.due(now).is_empty(), "it is under way");
    let object = object(&due[0]);
    assert_eq!(object["data"]["root-cert.pem"], "ROOT");
    plan.done(&due[0], Ok(stored("default", 9, "ROOT", "landbridge")), now);
    assert!(plan.due(now).is_empty(), "it is known without the watch");
    plan.namespace(namespace("new", json!(null)));
    assert_eq!(names(&plan.due(now)), ["new"]);
}

#[test]
fn nothing_is_missing_that_was_not_looked_for() {
    let now = Instant::now();
    let mut plan = Plan::new("istio-system".into());
    plan.set_roots(Some("ROOT".into()));
    plan.all_namespaces(vec![namespace("default", json!(null))]);
    plan.set_selectors(Some(Arc::default()));
    assert!(plan.due(now).is_empty(), "ConfigMaps are not known");
    plan.all_maps(Vec::new());
    plan.set_selectors(None);
    assert!(plan.due(now).is_empty(), "selectors are not known");
    plan.set_selectors(Some(Arc::default()));
    plan.set_roots(None);
    assert!(plan.due(now).is_empty(), "roots are not known");
    plan.set_roots(Some("ROOT".into()));
    assert_eq!(names(&plan.due(now)), ["default"]);
}

#[test]
fn what_is_changed_or_deleted_is_repaired_and_new_roots_are_written() {
    let now = Instant::now();
    let mut plan = plan(&["default"], vec![]);
    let write = |plan: &mut Plan, version, roots: &str, now| {
        let due = plan.due(now);
        let [one] = &due[..] else { panic!("{due:?}") };
        plan.done(one, Ok(stored("default", version, roots, "landbridge")), now);
        one.outcome
    };
    assert_eq!(write(&mut plan, 10, "ROOT", now), Outcome::Written);
    plan.map(map("default", 9, "OLD", "x"));
    assert!(plan.due(now).is_empty(), "a watch that is behind says nothing");
    plan.map(map("default", 11, "CHANGED", "x"));
    assert_eq!(write(&mut plan, 12, "ROOT", now), Outcome::Repaired);
    plan.no_map(&map("default", 11, "CHANGED", "x"));
    assert!(plan.due(now).is_empty(), "an older one went");
    plan.no_map(&map("default", 13, "ROOT", "x"));
    assert_eq!(write(&mut plan, 14, "ROOT", now), Outcome::Repaired);
    plan.set_roots(Some("NEXT".into()));
    assert_eq!(write(&mut plan, 15, "NEXT", now), Outcome::Written);
    let mut unlabelled = map("default", 16, "NEXT", "x");
    unlabelled.metadata.labels = None;
    plan.map(unlabelled);
    assert_eq!(write(&mut plan, 17, "NEXT", now), Outcome::Repaired);
}

#[test]
fn somebody_who_changes_it_back_again_and_again_is_named_and_answered_more_rarely() {
    let mut now = Instant::now();
    let mut plan = plan(&["default", "quiet"], vec![map("quiet", 1, "ROOT", "x")]);
    let mut written = 0;
    for version in 0..100 {
        for due in plan.due(now) {
            written += 1;
            plan.done(&due, Ok(stored("default", 3 * version + 2, "ROOT", "landbridge")), now);
        }
        plan.map(map("default", 3 * version + 3, "THEIRS", "pilot-discovery"));
        now += SECOND;
    }
    assert!((8..=12).contains(&written), "{written} in 100 s");
    assert_eq!(plan.fights(now), [("default", "pilot-discovery")]);
    // At last they give in.
    let next = plan.next(now).expect("it is tried again");
    for due in plan.due(next) {
        plan.done(&due, Ok(stored("default", 900, "ROOT", "landbridge")), next);
    }
    assert!(plan.due(next).is_empty());
    let peace = plan.next(next).expect("peace is noticed");
    assert!(plan.fights(peace).is_empty() && plan.next(peace).is_none());
    plan.map(map("default", 901, "ONCE", "x"));
    assert_eq!(names(&plan.due(peace)), ["default"], "one change is put right at once again");
}

#[test]
fn selectors_and_deletion_end_it_without_taking_anything_away() {
    let now = Instant::now();
    let mut plan = plan(&["istio-system"], vec![]);
    plan.namespace(namespace("in", json!({ "mesh": "yes" })));
    plan.namespace(namespace("out", json!({ "mesh": "no" })));
    let labels = [("mesh".into(), "yes".into())].into();
    plan.set_selectors(Some([LabelSelector { labels, expressions: vec![] }].into()));
    assert_eq!(names(&plan.due(now)), ["in", "istio-system"]);
    plan.namespace(namespace("out", json!({ "mesh": "yes" })));
    let mut ending = namespace("late", json!({ "mesh": "yes" }));
    ending.metadata.deletion_timestamp = Some("now".into());
    plan.namespace(ending);
    assert_eq!(names(&plan.due(now)), ["out"]);
    // Its content goes with it; that is nothing to repair.
    plan.no_such_namespace(&namespace("out", json!(null)));
    assert!(plan.due(now + 1000 * SECOND).is_empty());
}

#[test]
fn failures_are_tried_again_and_named_when_they_stand() {
    let mut now = Instant::now();
    let mut plan = plan(&["a", "b"], vec![]);
    for round in 0..4 {
        let due = plan.due(now);
        assert_eq!(names(&due), ["a", "b"], "{round}");
        due.iter().for_each(|due| plan.done(due, Err(failure(403)), now));
        assert!(plan.due(now).is_empty(), "not at once");
        let next = plan.next(now).expect("it is tried again");
        assert!(next <= now + RETRY.1);
        now = next;
        assert_eq!(plan.failures().is_empty(), round == 0, "{round}");
    }
    let failures = plan.failures();
    assert_eq!(failures["403"].1, ["a", "b"]);
    let due = plan.due(now);
    plan.put_back(&due[0], now);
    plan.done(&due[1], Ok(stored("b", 7, "ROOT", "landbridge")), now);
    assert_eq!(plan.failures()["403"].1, ["a"]);
    assert_eq!(names(&plan.due(now + SECOND)), ["a"]);
}
