//! How a source lists, watches and lists again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    api::{Answer, Api, id},
    world::{World, service},
};
use crate::model::Kind;

#[tokio::test]
async fn changes_come_as_they_happen() {
    let mut w = World::new(|_| {}).await;
    w.api.put_service(&service("a"), "2");
    w.api.put_service(&service("c"), "1");
    w.api.delete(&service("b"));
    w.until("changes", |w| w.label("a") == Some("2") && w.services() == ["a", "c"]).await;
    assert_eq!((w.removed.len(), w.names(Kind::Namespace)), (1, vec!["production"]));
    let report = w.status.report();
    assert_eq!(report.objects["Service"], 2);
    assert!(report.ages["services"] < Duration::from_secs(10) && report.last_read.is_some());
    // An object that cannot be used keeps its last good version, and the others go on.
    w.api.put(&service("a"), json!({ "v": "3" }), json!({ "spec": { "ports": [{ "port": 70000 }] } }));
    w.until("a problem", |w| !w.problems().is_empty()).await;
    assert!(w.problems()[0].contains("east: production/Service/a: spec.ports[0].port: 70000 is no port"));
    assert_eq!(w.label("a"), Some("2"));
    w.api.put_service(&service("a"), "4");
    w.until("repaired", |w| w.label("a") == Some("4") && w.problems().is_empty()).await;
    assert_eq!(w.removed, ["b"]);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_ended() {
    let mut w = World::new(|_| {}).await;
    for round in 0..6 {
        let label = format!("r{round}");
        w.api.put_service(&service("a"), &label);
        w.until("before the end", |w| w.label("a") == Some(&label)).await;
        let upserts = w.upserts;
        // A break in the middle of a line, or an end as it should be; what happens meanwhile is not lost.
        w.api.set(|state| {
            state.epoch += 1;
            state.put(
                &service(&format!("new{round}")),
                json!({}),
                json!({ "spec": { "clusterIP": "None" } }),
            );
        });
        w.until("what came meanwhile", |w| w.services().contains(&&*format!("new{round}"))).await;
        assert_eq!(w.upserts, upserts + 1, "nothing is sent twice");
    }
    let services =
        w.api.set(|s| s.requests.iter().filter(|r| r.contains("/services?")).cloned().collect::<Vec<_>>());
    let lists = services.iter().filter(|r| r.contains("sendInitialEvents") || r.contains("limit=")).count();
    assert_eq!(lists, 1, "nothing was listed again: {services:?}");
    assert!(services.len() >= 3, "{services:?}");
    assert!(w.removed.is_empty());
}

#[tokio::test]
async fn a_forgotten_version_is_listed_again_and_only_the_difference_sent() {
    for no_streams in [false, true] {
        let mut w = World::new(|_| {}).await;
        w.api.set(|state| {
            state.no_streams = no_streams;
            state.page = 2;
            state.epoch = 1;
            // Nothing of this can be told by a watch any more.
            state.delete(&service("a"));
            for name in ["c", "d", "e"] {
                state.put(&service(name), json!({}), json!({ "spec": { "clusterIP": "None" } }));
            }
            state.forget();
        });
        w.until("listed again", |w| w.services() == ["b", "c", "d", "e"]).await;
        assert_eq!(w.removed, ["a"], "and nothing else, at no time");
        if no_streams {
            assert!(w.api.asked("services?limit=500&continue=2") >= 1, "in pages");
        }
        w.api.put_service(&service("f"), "1");
        w.until("and watched", |w| w.services().contains(&"f")).await;
    }
}

#[tokio::test]
async fn servers_without_streamed_lists_are_paged() {
    let api = Api::start().await;
    api.set(|state| {
        state.no_streams = true;
        state.page = 7;
        for i in 0..100 {
            state.put(&service(&format!("s{i:03}")), json!({}), json!({ "spec": { "clusterIP": "None" } }));
        }
        // The pages of one list are not always there to its end.
        state.next.push_back(("services?limit=500&continue=21", Answer::Status(410, "Expired", None)));
    });
    let mut w = World::start(api, |_| {}).await;
    w.synced().await;
    assert_eq!((w.services().len(), w.removed.len()), (100, 0));
    assert!(w.api.asked("services?limit=500&continue=") >= 18);
}

/// More than fits into a frame, a page or a channel.
#[tokio::test]
async fn a_large_list_comes_in_parts() {
    for no_streams in [false, true] {
        let api = Api::start().await;
        api.set(|state| {
            state.no_streams = no_streams;
            for i in 0..20_000 {
                let name = format!("web-{i:05}");
                state.put(
                    &id("pods", "production", &name),
                    json!({ "app": "web" }),
                    json!({ "spec": { "nodeName": "n" } }),
                );
            }
        });
        let mut w = World::start(api, |_| {}).await;
        w.synced().await;
        assert_eq!((w.names(Kind::Pod).len(), w.upserts, w.removed.len()), (20_000, 20_000, 0));
    }
}

#[tokio::test]
async fn drift_is_found_and_repaired() {
    let mut w = World::new(|source| source.timing.compare = Duration::from_millis(300)).await;
    w.api.set(|state| {
        // No watch says any of this.
        state.version += 10;
        let version = state.version.to_string();
        state.objects.remove(&service("a"));
        let b = state.objects.get_mut(&service("b")).unwrap();
        b["metadata"]["labels"]["v"] = "drifted".into();
        b["metadata"]["resourceVersion"] = version.clone().into();
        let mut c = b.clone();
        c["metadata"]["name"] = "c".into();
        state.objects.insert(service("c"), c);
    });
    w.api.bookmark("services");
    w.until("repaired", |w| w.services() == ["b", "c"] && w.label("b") == Some("drifted")).await;
    w.until("counted", |w| w.status.report().repairs == 3).await;
    assert_eq!(w.removed, ["a"]);
}

#[tokio::test]
async fn dropping_a_source_ends_its_connections() {
    let w = World::new(|_| {}).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks() > 10, "connections and watches");
    w.task.abort();
    drop((w.access, w.changes));
    w.api.end_watches();
    // The scripted server and its connections end with it.
    drop(w.api);
    let deadline = Instant::now() + Duration::from_secs(10);
    while tasks() > 0 {
        assert!(Instant::now() < deadline, "{} tasks are left", tasks());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
