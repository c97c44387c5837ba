use super::*;

fn example() -> ServiceMap {
    let service = |namespace: &str, name: &str, kind: &str, ready: usize, total: usize| {
        serde_json::json!({ "namespace": namespace, "name": name, "host": format!("{name}.{namespace}.svc.cluster.local"),
            "type": kind, "ports": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
            "endpoints": { "ready": ready, "total": total } })
    };
    let cluster = |id: &str, services: Vec<serde_json::Value>| serde_json::json!({ "cluster": id, "state": "synced", "network": format!("net-{id}"), "services": services });
    let backend = |ns: &str| service(ns, "backend", "ClusterIP", 2, 2);
    let map = serde_json::json!({
        "apiVersion": "landbridge/v1", "kind": "ServiceMap",
        "clusters": [
            cluster("east", vec![service("istio-system", "istio-eastwestgateway", "LoadBalancer", 1, 1),
                service("kube-system", "kube-dns", "ClusterIP", 2, 2), backend("production"),
                service("production", "frontend", "ClusterIP", 1, 2), service("production", "a<b>&\"c\"", "ClusterIP", 0, 1)]),
            cluster("north", vec![]),
            cluster("west", vec![service("istio-system", "istio-eastwestgateway", "LoadBalancer", 1, 1), backend("production")]),
        ],
        "overlaps": [
            { "namespace": "production", "name": "backend", "host": "backend.production.svc.cluster.local",
              "clusters": { "east": { "ready": 2, "total": 2 }, "west": { "ready": 2, "total": 2 } },
              "conflicts": ["east and west disagree on the service's type"] },
        ],
    });
    serde_json::from_value(map).expect("the shape of /debug/servicemap")
}

#[test]
fn the_table_shows_each_cluster_and_the_overlap() {
    let mut map = example();
    map.retain(|namespace| !is_system(namespace));
    let text = text(&map);
    assert!(
        !text.contains("kube-dns") && text.contains("cluster north (network net-north, synced)\nno services"),
        "{text}"
    );
    let overlap = text.split("in several clusters").nth(1).expect("the overlap list");
    let row: Vec<_> = overlap.lines().nth(2).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["production", "backend", "2/2", "2/2"]);
    let conflict =
        "contradict each other\nproduction/backend: east and west disagree on the service's type\n";
    assert!(overlap.ends_with(conflict), "{overlap}");
}

#[test]
fn system_namespaces_are_those_of_the_walkthrough() {
    for (namespace, system) in [
        ("kube-system", true),
        ("kube-public", true),
        ("default", true),
        ("local-path-storage", true),
        ("production", false),
        ("kubernetes", false),
    ] {
        assert_eq!(is_system(namespace), system, "{namespace}");
    }
}

#[test]
fn pictures_are_well_formed_and_hold_what_they_should() {
    let map = example();
    let svg = svg::draw(&map);
    check(&svg);
    assert_eq!(svg.matches("class=\"column\"").count(), 3);
    assert_eq!(svg.matches("class=\"link\"").count(), 2, "backend and the gateway are in two clusters each");
    assert!(svg.contains("a&lt;b&gt;&amp;&quot;c&quot;"));

    let page = html::page(&map, "2026-01-02");
    check(page.strip_prefix("<!doctype html>\n").expect("a doctype"));
    assert!(
        !page.contains("http://")
            || page.matches("http://").count() == page.matches("http://www.w3.org").count()
    );

    check(&svg::draw(&ServiceMap::default()));
}

/// Every element is closed in order, every attribute is quoted, every `&` begins an entity.
fn check(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        let (text, tail) = rest.split_at(start);
        for part in text.split('&').skip(1) {
            assert!(part.find(';').is_some_and(|end| end <= 5), "a bare & before {part:.20}");
        }
        let end = tail.find('>').expect("a tag ends");
        let tag = &tail[1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name").to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &tail[end + 1..];
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}
