//! What may go wrong between an API server and a source.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    super::*,
    api::{Answer, Api, Id, id},
};
use crate::{
    model::{Batch, Change, Kind, Object, ObjectKey, change::ClusterState},
    registry::{RemoteSecrets, SourceStatus},
};

/// A source, and the world as its changes tell it.
pub(super) struct World {
    pub api: Api,
    changes: mpsc::Receiver<Batch>,
    pub status: SourceStatus,
    access: Access,
    pub task: tokio::task::JoinHandle<()>,
    objects: BTreeMap<ObjectKey, Object>,
    pub state: ClusterState,
    /// Every name that was ever removed.
    pub removed: Vec<String>,
    pub upserts: usize,
}

fn client(api: &Api, token: &str) -> Client {
    // Tests of other modules install the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = ::kube::Config::new(format!("http://{}", api.address).parse().unwrap());
    config.auth_info.token = Some(token.to_owned().into());
    Client::new(&config).unwrap()
}

fn impatient() -> Timing {
    Timing {
        answer: Duration::from_millis(500),
        silence: Duration::from_secs(20),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        grace: Duration::from_millis(100),
        patience: None,
        uninstalled: Duration::from_millis(50),
        tick: Duration::from_millis(20),
        ..Timing::default()
    }
}

pub(super) fn service(name: &str) -> Id {
    id("services", "production", name)
}

impl World {
    pub async fn start(api: Api, set: impl FnOnce(&mut KubeSource)) -> Self {
        let mut source = KubeSource::new("east".into(), client(&api, "first"));
        source.timing = impatient();
        source.config_cluster = true;
        set(&mut source);
        let access = source.access();
        let (sender, changes) = mpsc::channel(16);
        let status = SourceStatus::new("east".into());
        let task = tokio::spawn(source.run(sender, status.clone(), CancellationToken::new()));
        let (objects, removed) = (BTreeMap::new(), Vec::new());
        Self {
            api,
            changes,
            status,
            access,
            task,
            objects,
            state: ClusterState::Syncing,
            removed,
            upserts: 0,
        }
    }

    /// With two services, read for the first time.
    pub async fn new(set: impl FnOnce(&mut KubeSource)) -> Self {
        let api = Api::start().await;
        api.put(&id("namespaces", "", "production"), json!({}), json!({}));
        for name in ["a", "b"] {
            api.put_service(&service(name), "1");
        }
        let mut world = Self::start(api, set).await;
        world.synced().await;
        assert_eq!(world.services(), ["a", "b"]);
        world
    }

    pub async fn synced(&mut self) {
        self.until("synced", |w| w.state == ClusterState::Synced).await;
    }

    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            match tokio::time::timeout(Duration::from_millis(10), self.changes.recv()).await {
                Ok(Some(batch)) => batch.changes.into_iter().for_each(|change| self.apply(change)),
                Ok(None) => panic!("{what}: the source has ended"),
                Err(_) => {}
            }
            let report = self.status.report();
            assert!(Instant::now() < deadline, "{what}: {:?} {:?} {report:?}", self.services(), self.state);
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(key, object) => {
                self.upserts += 1;
                self.objects.insert(key, object);
            }
            Change::Remove(key) => {
                assert!(self.objects.remove(&key).is_some(), "{key} was not there");
                self.removed.push(key.name.to_string());
            }
            Change::Cluster(_, state) => self.state = state,
            Change::Forget(_) => panic!("sources do not forget"),
        }
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.objects.keys().filter(|key| key.kind == kind).map(|key| &*key.name).collect()
    }

    pub fn services(&self) -> Vec<&str> {
        self.names(Kind::Service)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.objects.iter().find(|(key, _)| &*key.name == name).and_then(|(_, object)| match object {
            Object::Service(s) => s.meta.labels.get("v").map(|v| &**v),
            _ => None,
        })
    }

    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            ClusterState::Stale { reason, .. } => Some(reason),
            _ => None,
        }
    }

    pub fn problems(&self) -> Vec<String> {
        self.status.report().problems.iter().map(ToString::to_string).collect()
    }
}

impl Api {
    fn put_service(&self, id: &Id, label: &str) {
        self.put(
            id,
            json!({ "v": label }),
            json!({ "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } }),
        );
    }
}

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
async fn custom_resources_come_and_go() {
    let rule = id("destinationrules", "production", "payment");
    let api = Api::start().await;
    let istio = ["gateways", "destinationrules", "peerauthentications"];
    api.set(|state| state.missing.extend(istio));
    let mut w = World::start(api, |_| {}).await;
    w.synced().await;
    assert!(w.api.asked("v1alpha3/destinationrules") > 0 && w.api.asked("v1beta1/destinationrules") > 0);
    assert!(w.problems().is_empty(), "{:?}", w.problems());
    w.api.set(|state| state.missing.clear());
    w.api.put(&rule, json!({}), json!({ "spec": { "host": "payment" } }));
    w.until("installed", |w| w.names(Kind::DestinationRule) == ["payment"]).await;
    // Not served for a moment, as while an API server starts: its definition is still there.
    w.api.set(|state| state.always = Some(("/destinationrules?", Answer::Status(404, "NotFound", None))));
    w.api.break_watches();
    w.until("not served", |w| w.problems().iter().any(|p| p.contains("404"))).await;
    assert!(w.removed.is_empty());
    w.api.set(|state| state.always = None);
    w.synced().await;
    w.api.set(|state| state.missing.extend(istio));
    w.api.break_watches();
    w.until("taken away", |w| w.names(Kind::DestinationRule).is_empty()).await;
    w.synced().await;
}

#[tokio::test]
async fn what_a_role_does_not_allow_is_said_and_done_without() {
    let api = Api::start().await;
    api.set(|state| state.always = Some(("/serviceaccounts?", Answer::Status(403, "Forbidden", None))));
    let mut w = World::start(api, |_| {}).await;
    w.synced().await;
    w.until("said", |w| {
        w.problems().iter().any(|p| p.contains("serviceaccounts") && p.contains("ClusterRole"))
    })
    .await;
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
async fn credentials_are_exchanged_under_running_watches() {
    let mut w = World::new(|_| {}).await;
    let upserts = w.upserts;
    for (i, label) in ["x", "y", "z"].iter().enumerate() {
        w.access.replace(client(&w.api, &format!("token{i}")), Duration::from_secs(5)).await.unwrap();
        w.api.put_service(&service("a"), label);
        w.until("after the exchange", |w| w.label("a") == Some(label)).await;
        let bearer = format!("Bearer token{i}");
        w.until("in use", |w| w.api.set(|s| s.tokens.iter().filter(|t| **t == bearer).count()) > 10).await;
        assert_eq!(w.upserts, upserts + i + 1, "only the change itself");
    }
    // Those that are not accepted are not taken.
    w.api
        .set(|state| state.next.push_back(("namespaces?limit=1", Answer::Status(401, "Unauthorized", None))));
    let refused = w.access.replace(client(&w.api, "bad"), Duration::from_secs(5)).await.unwrap_err();
    assert!(refused.to_string().contains("401") && refused.remedy().contains("renew"), "{refused}");
    w.api.put_service(&service("a"), "end");
    w.until("the old one works", |w| w.label("a") == Some("end")).await;
    assert_eq!(w.api.set(|s| s.tokens.iter().filter(|t| *t == "Bearer bad").count()), 1);
    assert!(w.removed.is_empty() && w.state == ClusterState::Synced);
}

#[tokio::test]
async fn discovery_selectors_decide_which_namespaces_are_read() {
    let api = Api::start().await;
    let mesh = id("configmaps", "istio-system", "istio");
    let select = |api: &Api, label: &str| {
        let text = format!("discoverySelectors:\n- matchLabels: {{ mesh: \"{label}\" }}\n");
        api.put(&mesh, json!({}), json!({ "data": { "mesh": text } }));
    };
    select(&api, "in");
    for (namespace, label) in [("production", "in"), ("shop", "out"), ("istio-system", "out")] {
        api.put(&id("namespaces", "", namespace), json!({ "mesh": label }), json!({}));
        api.put_service(&id("services", namespace, namespace), "1");
    }
    let mut w = World::start(api, |_| {}).await;
    w.synced().await;
    assert_eq!(w.services(), ["istio-system", "production"], "what the mesh lives in is always read");
    assert!(w.removed.is_empty(), "what is not selected is never sent");
    // A namespace that comes to be selected, and one that is not any more.
    w.api.put(&id("namespaces", "", "shop"), json!({ "mesh": "in" }), json!({}));
    w.until("in", |w| w.services() == ["istio-system", "production", "shop"]).await;
    w.api.put(&id("namespaces", "", "production"), json!({ "mesh": "out" }), json!({}));
    w.until("out", |w| w.services() == ["istio-system", "shop"]).await;
    // Other selectors, none, no configuration.
    select(&w.api, "out");
    w.until("other selectors", |w| w.services() == ["istio-system", "production"]).await;
    w.api.delete(&mesh);
    w.until("no selectors", |w| w.services() == ["istio-system", "production", "shop"]).await;
    w.api.put_service(&id("services", "shop", "new"), "1");
    w.until("watched", |w| w.services().len() == 4).await;
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

#[tokio::test]
async fn remote_secrets_go_to_those_who_join_clusters_and_to_nobody_else() {
    let api = Api::start().await;
    let secret = |name: &str| id("secrets", "istio-system", name);
    let west = json!({ "data": { "west": "aHVzaA==" } });
    api.put(&secret("west"), json!({ "istio/multiCluster": "true" }), west.clone());
    let told = RemoteSecrets::default();
    let given = told.clone();
    let mut w = World::start(api, |source| source.remote_secrets = given).await;
    w.synced().await;
    let names = || told.subscribe().borrow().by_name.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(), ["istio-system/west"]);
    assert!(told.subscribe().borrow().settled);
    w.api.put(&secret("north"), json!({}), json!({ "data": { "north": "aHVzaA==" } }));
    w.until("another", |_| names().len() == 2).await;
    // Nothing but a deletion that was seen takes one away.
    w.api.set(|state| state.always = Some(("/secrets", Answer::Status(403, "Forbidden", None))));
    w.api.break_watches();
    w.until("forbidden", |w| w.problems().iter().any(|p| p.contains("secrets"))).await;
    assert_eq!(names().len(), 2);
    w.api.set(|state| state.always = None);
    w.api.delete(&secret("west"));
    w.until("gone", |_| names() == ["istio-system/north"]).await;
    assert!(
        w.names(Kind::RemoteSecret).is_empty() && w.removed.is_empty(),
        "credentials went to the pipeline"
    );
    assert!(!format!("{told:?}").contains("aHVz"), "{told:?}");
}
