//! The routers, in process, over a state that was filled by typed objects.

mod world;

use axum::http::StatusCode;
use serde_json::Value;
use world::World;

use crate::{
    admin::servicemap::{Count, ServiceMap},
    snapshot::ResourceType,
};

#[tokio::test]
async fn every_page_answers_json_and_none_holds_a_private_key() {
    let world = World::ready().await;
    let list: Vec<String> =
        serde_json::from_value(world.json("/debug/list").await).expect("an array of names");
    assert!(list.is_sorted() && list.len() >= 10, "{list:?}");
    for page in &list {
        let (status, body) =
            world.get(&format!("/debug/{page}?proxyID=web-1.production&service=backend&include_eds")).await;
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
    let west = &shards["Shards"]["Kubernetes/west"];
    assert_eq!(west.as_array().map(Vec::len), Some(2));
    assert!(east["StaleSeconds"].is_null() && west[0]["StaleSeconds"].as_u64() >= Some(90), "{shards:#}");
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

    // What secrets say: of a cluster that is read, and of one that cannot be.
    assert_eq!(clusters[1]["secretName"], "istio-system/two");
    assert!(clusters[1]["problem"].as_str().is_some_and(|p| p.contains("spec.host")), "{clusters}");
    let north = &clusters[2];
    assert_eq!((&north["id"], &north["syncStatus"]), (&"north".into(), &"refused".into()));
    assert_eq!(north["problem"], "is no text; make it again");
    let told = &world.json("/debug/sourcez").await[0]["problems"][0];
    assert_eq!((&told["object"], &told["field"]), (&"istio-system/Secret/two".into(), &"data.north".into()));

    let networks = world.json("/debug/networkz").await;
    assert_eq!(networks[0]["Addr"], "203.0.113.2");
    assert_eq!((&networks[0]["Network"], &networks[0]["Port"]), (&"net-west".into(), &15443.into()));

    let gateways = world.json("/debug/gatewayz").await;
    assert_eq!((&gateways[0]["network"], &gateways[0]["cluster"]), (&"net-west".into(), &"west".into()));
    assert_eq!((&gateways[0]["address"], &gateways[0]["services"]), (&"203.0.113.2".into(), &1.into()));
    assert_eq!(gateways[0]["state"], "unknown");
    assert!(
        gateways[0]["problem"].as_str().is_some_and(|why| why.contains("--probe-gateways")),
        "{gateways}"
    );

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
    assert_eq!((&proxy["cluster_sent"], &proxy["cluster_acked"]), (&"1".into(), &"1".into()));
    assert_eq!((&proxy["endpoint_sent"], &proxy["endpoint_acked"]), (&"2".into(), &"1".into()));
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
    let problem = &world.json("/debug/sourcez").await[1]["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&"rules.yaml".into(), &12.into()));
    assert_eq!(
        (&problem["object"], &problem["remedy"]),
        (&"production/DestinationRule/payment".into(), &"add spec.host".into())
    );
    assert_eq!(problem["severity"], "error");
}

#[tokio::test]
async fn each_endpoint_of_a_service_is_given_or_has_a_reason() {
    let world = World::ready().await;
    for service in ["backend", "backend.production", "backend.production.svc.cluster.local:80"] {
        let answer = world.json(&format!("/debug/endpoints?service={service}&proxyID=web-1")).await;
        let port = &answer["ports"][0];
        let given = port["endpoints"].as_array().expect("a list");
        assert_eq!(given.len(), 2, "{answer:#}");
        assert_eq!((&given[0]["address"], &given[0]["priority"]), (&"10.10.0.1:8080".into(), &0.into()));
        // The other cluster's pods are in another network: their gateway stands for both.
        assert_eq!((&given[1]["address"], &given[1]["weight"]), (&"203.0.113.2:15443".into(), &2.into()));
        assert_eq!(given[1]["standsFor"], serde_json::json!(["10.20.0.1:8080", "10.20.0.2:8080"]));
        assert!(given[0]["staleSeconds"].is_null() && given[1]["staleSeconds"].as_u64() >= Some(90));
        assert_eq!(port["envoyCluster"], "outbound|80||backend.production.svc.cluster.local");
    }
    // Seen from a place that knows no way into the network, each endpoint has its reason.
    let answer = world.json("/debug/endpoints?service=web&proxyID=web-1").await;
    let excluded = &answer["ports"][0]["excluded"];
    let given = &answer["ports"][0]["endpoints"];
    assert_eq!(
        excluded.as_array().map_or(0, Vec::len) + given.as_array().map_or(0, Vec::len),
        1,
        "{answer:#}"
    );

    for (query, status, words) in [
        (
            "service=bakend&proxyID=web-1",
            StatusCode::NOT_FOUND,
            "did you mean backend.production.svc.cluster.local?",
        ),
        ("service=backend:81&proxyID=web-1", StatusCode::NOT_FOUND, "has no port 81: it has 80"),
        ("service=backend:x&proxyID=web-1", StatusCode::BAD_REQUEST, "not a port number"),
        ("service=backend&proxyID=nobody", StatusCode::NOT_FOUND, "connected are web-1.production"),
        ("proxyID=web-1", StatusCode::BAD_REQUEST, "You must name a service"),
        ("service=backend", StatusCode::BAD_REQUEST, "You must provide a proxyID"),
    ] {
        let (got, body) = world.get(&format!("/debug/endpoints?{query}")).await;
        assert_eq!(got, status, "{query}: {body}");
        assert!(body.contains(words), "{query}: {body}");
    }
}

#[tokio::test]
async fn the_map_shows_each_cluster_and_what_is_in_several() {
    let world = World::ready().await;
    let map: ServiceMap =
        serde_json::from_value(world.json("/debug/servicemap?namespace=production").await).expect("a map");
    assert_eq!(
        map.clusters.iter().map(|c| (&*c.cluster, c.services.len())).collect::<Vec<_>>(),
        [("east", 3), ("west", 1)]
    );
    assert_eq!(map.clusters[0].network, "net-east");
    assert_eq!(map.overlaps.len(), 1);
    let counts = &map.overlaps[0].clusters;
    assert_eq!(
        (counts["east"], counts["west"]),
        (Count { ready: 1, total: 1 }, Count { ready: 2, total: 2 })
    );
    let web = map.clusters[0].services.iter().find(|s| s.name == "web").expect("it is there");
    assert_eq!((web.endpoints, &*web.r#type), (Count { ready: 0, total: 1 }, "ClusterIP"));
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
        "pilot_eds_no_instances 1",
        "pilot_endpoint_not_ready 1",
        "remote_cluster_sync_timeouts_total 0",
        "remote_cluster_secret_events_total{event=\"delete\"} 0",
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
