//! The routers, in process, over a state that was filled by typed objects.

mod world;

use axum::http::StatusCode;
use serde_json::Value;
use world::World;

use crate::snapshot::ResourceType;

#[tokio::test]
async fn every_page_answers_json_and_none_holds_a_private_key() {
    let world = World::ready().await;
    let list: Vec<String> =
        serde_json::from_value(world.json("/debug/list").await).expect("an array of names");
    assert!(list.is_sorted() && list.len() >= 10, "{list:?}");
    for page in &list {
        let (status, body) = world.get(&format!("/debug/{page}?proxyID=web-1.production&include_eds")).await;
        assert_eq!(status, StatusCode::OK, "{page}: {body}");
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{page}: {body}");
        assert!(!body.contains("PRIVATE KEY") && !body.contains("BEGIN "), "{page} shows key material");
    }
    let (_, index) = world.get("/debug").await;
    assert!(list.iter().all(|page| index.contains(page.as_str())), "{index}");
}

#[tokio::test]
async fn the_registry_shows_services_of_all_clusters_as_one() {
    let world = World::ready().await;
    let services = world.json("/debug/registryz").await;
    let backend = services
        .as_array()
        .and_then(|all| all.iter().find(|s| s["hostname"] == "backend.production.svc.cluster.local"))
        .expect("the service is there");
    assert_eq!(backend["clusters"], serde_json::json!(["east", "west"]));
    assert_eq!(backend["clusterVIPs"]["Addresses"]["west"], serde_json::json!(["10.2.0.10"]));
    assert_eq!(backend["ports"][0]["protocol"], "HTTP");
    assert_eq!(backend["exportTo"], serde_json::json!(["*"]));
    assert!(backend["conflicts"].as_array().is_some_and(|c| c.len() == 1), "{backend}");

    let none = world.json("/debug/registryz?namespace=elsewhere").await;
    assert_eq!(none, serde_json::json!([]));
}

#[tokio::test]
async fn endpoints_are_listed_per_cluster_with_all_they_carry() {
    let world = World::ready().await;
    let table = world.json("/debug/endpointz").await;
    let shards = &table["backend.production.svc.cluster.local"]["production"];
    let east = &shards["Shards"]["Kubernetes/east"][0];
    assert_eq!(east["Addresses"], serde_json::json!(["10.10.0.1"]));
    assert_eq!(east["Locality"]["Label"], "us-east-1/us-east-1a");
    assert_eq!((&east["TLSMode"], &east["HealthStatus"]), (&"istio".into(), &"Healthy".into()));
    assert_eq!(east["ServiceAccount"], "spiffe://cluster.local/ns/production/sa/backend");
    assert_eq!(shards["Shards"]["Kubernetes/west"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_proxy_is_found_by_its_id_its_name_or_a_part() {
    let world = World::ready().await;
    for id in ["web-1.production", "web-1", "b-1.prod", "sidecar~10.10.0.9~web-1.production"] {
        let (status, body) = world.get(&format!("/debug/config_dump?proxyID={id}")).await;
        assert_eq!(status, StatusCode::OK, "{id}: {body}");
    }
    // istioctl looks for these sentences.
    let (status, body) = world.get("/debug/config_dump").await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n")
    );
    let (status, body) = world.get("/debug/edsz?proxyID=nobody").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        body,
        "Proxy not connected to this Pilot instance. It may be connected to another instance.\n"
    );
    let (status, body) = world.get("/debug/config_dump?proxyID=web-1&types=secrets").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("clusters, endpoints, listeners or routes"), "{body}");
}

#[tokio::test]
async fn clusters_and_networks_are_shown_with_what_is_wrong() {
    let world = World::ready().await;
    let clusters = world.json("/debug/clusterz").await;
    assert_eq!((&clusters[0]["id"], &clusters[0]["syncStatus"]), (&"east".into(), &"synced".into()));
    assert_eq!(
        (&clusters[1]["syncStatus"], &clusters[1]["reason"]),
        (&"stale".into(), &"directory is gone".into())
    );
    assert!(clusters[1]["staleSeconds"].as_u64().is_some_and(|s| s >= 60), "{clusters}");

    let networks = world.json("/debug/networkz").await;
    assert_eq!(networks[0]["Addr"], "203.0.113.2");
    assert_eq!((&networks[0]["Network"], &networks[0]["Port"]), (&"net-west".into(), &15443.into()));

    let config = world.json("/debug/configz").await;
    assert_eq!((&config[0]["kind"], &config[0]["inForce"]), (&"DestinationRule".into(), &true.into()));
    assert_eq!(config[0]["spec"]["policy"]["settings"]["outlierDetection"]["interval"], "10s");
    assert_eq!(world.json("/debug/mesh").await["trustDomain"], "cluster.local");
}

#[tokio::test]
async fn streams_show_what_was_sent_accepted_and_refused_per_type() {
    let world = World::ready().await;
    let proxies = world.json("/debug/syncz").await;
    let proxy = &proxies[0];
    assert_eq!((&proxy["cluster_id"], &proxy["proxy"]), (&"east".into(), &"web-1.production".into()));
    assert_eq!((&proxy["proxy_type"], &proxy["istio_version"]), (&"sidecar".into(), &"1.30.2".into()));
    // istiod's fields, and ours by type.
    assert_eq!((&proxy["cluster_sent"], &proxy["cluster_acked"]), (&"c1".into(), &"c1".into()));
    assert_eq!((&proxy["endpoint_sent"], &proxy["endpoint_acked"]), (&"e2".into(), &"e1".into()));
    assert!(proxy["listener_acked"].is_null() && proxy["route_sent"].is_null());
    let types = &proxy["resources"];
    let state = |kind: ResourceType| types[kind.type_url()]["state"].clone();
    assert_eq!(state(ResourceType::Cluster), "SYNCED");
    assert_eq!(state(ResourceType::Endpoint), "STALE");
    assert_eq!(state(ResourceType::Listener), "NACK");
    assert!(
        types[ResourceType::Listener.type_url()]["lastError"]
            .as_str()
            .is_some_and(|e| e.contains("0.0.0.0_80"))
    );

    assert_eq!(world.json("/debug/syncz?namespace=elsewhere").await, serde_json::json!([]));
}

#[tokio::test]
async fn problems_of_the_input_come_with_place_and_remedy() {
    let world = World::ready().await;
    let problem = &world.json("/debug/sourcez").await[0]["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&"rules.yaml".into(), &12.into()));
    assert_eq!(
        (&problem["object"], &problem["remedy"]),
        (&"production/DestinationRule/payment".into(), &"add spec.host".into())
    );
    assert_eq!(problem["severity"], "error");
}

#[tokio::test]
async fn metrics_tell_what_the_tables_hold() {
    let world = World::ready().await;
    let (status, body) = world.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "pilot_services 4",
        "landbridge_source_problems{cluster=\"west\",severity=\"error\"} 1",
        "landbridge_source_problems{cluster=\"west\",severity=\"warning\"} 0",
        "istiod_managed_clusters{cluster_type=\"local\"} 1",
        "istiod_managed_clusters{cluster_type=\"remote\"} 1",
        "istiod_remote_cluster_sync_status{cluster=\"west\",status=\"stale\"} 1",
        "istiod_remote_cluster_sync_status{cluster=\"west\",status=\"synced\"} 0",
        "landbridge_cluster_stale_seconds{cluster=\"east\"} 0",
        "landbridge_endpoints{cluster=\"west\",health=\"Healthy\"} 2",
        "landbridge_network_gateways{network=\"net-west\",cluster=\"west\"} 1",
        "landbridge_proxies{cluster=\"east\",kind=\"sidecar\"} 1",
        "landbridge_conflicting_services 1",
        "landbridge_pipeline_batches_total ",
        "test_counter_total 3",
        "pilot_info{version=\"",
        "process_resident_memory_bytes ",
        "# EOF",
    ] {
        assert!(body.lines().any(|l| l.starts_with(line)), "no line {line:?} in\n{body}");
    }
    let names: Vec<_> = body.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), unique.len(), "a metric is registered twice: {names:?}");
}

#[tokio::test]
async fn readiness_says_what_is_awaited() {
    let world = World::unready().await;
    let (status, body) = world.get("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("cluster west: nothing was heard"), "{body}");
    assert!(body.contains("cluster east: its first full read is under way"), "{body}");

    let world = World::ready().await;
    assert_eq!(world.get("/ready").await, (StatusCode::OK, String::new()));
}

#[tokio::test]
async fn only_this_machine_reads_the_debug_pages() {
    let world = World::ready().await;
    for peer in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(world.get_from(Some(peer), "/debug/registryz").await.0, StatusCode::OK, "{peer}");
    }
    for peer in [Some("10.0.0.7:1"), Some("[2001:db8::7]:1"), Some("[::ffff:10.0.0.7]:1"), None] {
        for path in ["/debug", "/debug/list", "/debug/config_dump?proxyID=web-1", "/debug/mesh"] {
            let (status, body) = world.get_from(peer, path).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{peer:?} {path}");
            assert!(body.contains("port-forward"), "{body}");
        }
        for path in ["/metrics", "/ready", "/version"] {
            assert_eq!(world.get_from(peer, path).await.0, StatusCode::OK, "{peer:?} {path}");
        }
    }
}

#[tokio::test]
async fn pages_say_so_when_the_pipeline_is_gone_and_metrics_still_come() {
    let world = World::without_pipeline().await;
    let (status, body) = world.get("/debug/registryz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("did not answer"), "{body}");
    let (status, body) = world.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("landbridge_pipeline_up 0") && body.contains("test_counter_total 3"), "{body}");
}

#[tokio::test]
async fn indentation_and_version_are_as_istioctl_expects() {
    let world = World::ready().await;
    let (_, flat) = world.get("/debug/mesh").await;
    let (_, pretty) = world.get("/debug/mesh?pretty").await;
    assert_eq!((flat.lines().count(), pretty.lines().count() > 10), (1, true));
    let (_, version) = world.get("/version").await;
    assert_eq!(version.split('-').count(), 3);
    assert!(!version.ends_with('\n'));
}
