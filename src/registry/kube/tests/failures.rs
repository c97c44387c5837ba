//! What may go wrong between an API server and a source.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    api::{Answer, Api},
    world::{World, service},
};
use crate::model::change::ClusterState;

#[tokio::test]
async fn nothing_goes_while_the_server_is_away() {
    let mut w = World::new(|_| {}).await;
    for (code, reason, words) in [
        (500, "InternalError", "500 InternalError"),
        (401, "Unauthorized", "401 Unauthorized"),
        (403, "Forbidden", "403 Forbidden"),
        (404, "NotFound", "404 NotFound"),
        (429, "TooManyRequests", "429 TooManyRequests"),
        (503, "ServiceUnavailable", "503 ServiceUnavailable"),
    ] {
        w.api.set(|state| state.always = Some(("/services?", Answer::Status(code, reason, None))));
        w.api.break_watches();
        w.until(words, |w| w.reason().is_some_and(|r| r.contains(words) && r.contains("services"))).await;
        w.until("named", |w| w.problems().iter().any(|p| p.contains(words))).await;
        w.api.set(|state| state.always = None);
        w.synced().await;
    }
    // Answers of something else than an API server: no list of these is a list.
    let texts = [
        "<html>Bad gateway</html>",
        "{\"metadata\":{\"resourceVersion\":\"90\"},\"items\":[",
        "null",
        "",
        "[]\n",
        "{}\n",
    ];
    for text in texts {
        w.api.set(|state| {
            state.always = Some(("/services?", Answer::Text(text.into())));
            state.forget();
        });
        w.api.break_watches();
        w.until(text, |w| w.reason().is_some()).await;
        w.api.set(|state| state.always = None);
        w.synced().await;
    }
    assert_eq!((w.services(), w.removed.len()), (vec!["a", "b"], 0));
    w.api.delete(&service("a"));
    w.until("watched again", |w| w.services() == ["b"]).await;
}

#[tokio::test]
async fn garbage_on_a_watch_does_no_harm() {
    let mut w = World::new(|_| {}).await;
    for (i, line) in
        ["garbage", "{\"type\":\"ADDED\"}", "{\"type\":\"DELETED\",\"object\":{}}", "\u{0}", "<html>"]
            .iter()
            .enumerate()
    {
        let asked = w.api.asked("/services?");
        w.api.say("services", line);
        // It comes again with every try, until only a list is left.
        w.until("tried again", |w| w.api.asked("/services?") > asked + 1).await;
        w.api.put_service(&service("a"), &format!("g{i}"));
        w.api.set(|state| state.forget());
        w.api.break_watches();
        w.until("past the garbage", |w| w.label("a") == Some(&format!("g{i}"))).await;
    }
    w.synced().await;
    assert!(w.removed.is_empty());
}

#[tokio::test]
async fn silence_is_noticed_and_named() {
    let mut w = World::new(|source| source.timing.silence = Duration::from_millis(300)).await;
    let before = w.api.asked("services?watch=1");
    w.api.set(|state| state.frozen = true);
    w.until("stale", |w| w.reason().is_some_and(|r| r.contains("silent"))).await;
    let ClusterState::Stale { since, .. } = w.state.clone() else { unreachable!() };
    // It stays so since the same time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    w.api.set(|state| {
        state.frozen = false;
        state.put(&service("c"), json!({}), json!({ "spec": { "clusterIP": "None" } }));
    });
    w.until("recovered", |w| w.services() == ["a", "b", "c"]).await;
    assert!(since.elapsed().is_ok_and(|age| age > Duration::from_millis(300)));
    assert!(w.api.asked("services?watch=1") > before && w.removed.is_empty());
}

/// Bookmarks are a courtesy: a collection in which nothing happens may be silent for long.
#[tokio::test]
async fn a_quiet_server_is_not_a_dead_one() {
    let mut w = World::new(|source| source.timing.silence = Duration::from_millis(100)).await;
    let before = w.api.asked("/services?");
    w.until("opened again", |w| w.api.asked("/services?") > before + 5).await;
    assert_eq!((w.state.clone(), w.problems()), (ClusterState::Synced, Vec::<String>::new()));
    let services = w.api.set(|s| {
        s.requests
            .iter()
            .filter(|r| r.contains("/services?"))
            .filter(|r| !r.contains("resourceVersion="))
            .count()
    });
    assert_eq!(services, 1, "and not listed");
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_is() {
    let mut w = World::new(|_| {}).await;
    w.api.set(|state| state.next.push_back(("/services?", Answer::Status(429, "TooManyRequests", Some(1)))));
    let asked = w.api.asked("/services?");
    w.api.break_watches();
    let started = Instant::now();
    w.api.put_service(&service("c"), "1");
    w.until("asked again", |w| w.services().contains(&"c")).await;
    assert!(started.elapsed() >= Duration::from_secs(1), "after {:?}", started.elapsed());
    assert_eq!(w.api.asked("/services?"), asked + 2, "the refused one, and one a second later");
}

#[tokio::test]
async fn a_cluster_that_is_away_at_the_start_is_stale_after_a_while() {
    let api = Api::start().await;
    api.set(|state| state.frozen = true);
    let mut w = World::start(api, |source| {
        source.config_cluster = false;
        // What the config cluster says: nothing.
        source.discovery.settle();
        source.timing.patience = Some(Duration::from_millis(700));
    })
    .await;
    w.until("given up for now", |w| w.reason().is_some_and(|r| r.contains("silent"))).await;
    w.api.set(|state| state.frozen = false);
    w.synced().await;
    assert_eq!(w.status.report().timeouts, 1);
}
