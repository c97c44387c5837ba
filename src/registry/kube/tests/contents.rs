//! What is read: custom resources, selected namespaces, Secrets; and with which rights.

use std::time::Duration;

use serde_json::json;

use super::{
    api::{Answer, Api, id},
    world::{World, client, service},
};
use crate::{
    model::{Kind, change::ClusterState},
    registry::RemoteSecrets,
};

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
