//! What comes before what: warming, listeners after clusters, removals after both.

use super::*;
use crate::xds::order;

#[test]
fn a_name_that_appears_and_goes_is_empty_before_and_after() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "", "", ""], &["a"], &["80"]);
        c.push(["", "a=1", "", "80"]);
        assert_eq!(c.settle(), ["eds +a=1", "rds +80"]);
        c.push(["", "", "", ""]);
        assert_eq!(c.settle(), ["rds +80=", "eds +a="], "routes go before endpoints");
    }
}

#[test]
fn a_cluster_that_is_sent_owes_its_endpoints() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["e1 e2", "e1 e2", "", ""], &["e1", "e2"], &[]);
        c.push(["e1=2 e2", "e1 e2", "", ""]);
        let cds = if protocol == Protocol::Delta { "cds +e1=2" } else { "cds +e1=2 +e2" };
        assert_eq!(c.frames(), [cds, "eds +e1"], "unchanged, and without being asked");
        c.ack(CDS);
        c.ack(EDS);
        assert!(c.frames().is_empty());
    }
}

#[test]
fn endpoints_in_flight_do_not_pay_for_a_cluster_that_follows() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["e1", "e1", "", ""], &["e1"], &[]);
        c.push(["e1", "e1=2", "", ""]);
        assert_eq!(c.frames(), ["eds +e1=2"]);
        c.push(["e1=2", "e1=2", "", ""]);
        assert_eq!(c.frames(), ["cds +e1=2"]);
        c.ack(EDS);
        assert_eq!(c.frames(), ["eds +e1=2"], "again, after the cluster");
    }
}

#[test]
fn a_repeated_request_of_a_warming_cluster_is_answered() {
    // State of the world: Envoy repeats the request with the last nonce, which looks like an ACK.
    let mut c = envoy(Protocol::Sotw, ["e1", "e1", "", ""], &["e1"], &[]);
    c.push(["e1=2", "e1", "", ""]);
    assert_eq!(c.session.next_frame(c.now).map(|f| f.kind), Some(CDS));
    let before = c.nonce(EDS);
    c.sotw(EDS, &["e1"], &before);
    assert_eq!(c.frames(), ["eds +e1"]);
    assert!(matches!(c.sotw(EDS, &["e1"], &before), Heard::Stale));
    assert!(matches!(c.ack(EDS), Heard::Acked(_)));
    assert!(c.frames().is_empty());
}

#[test]
fn listeners_and_routes_follow_when_new_clusters_are_warm() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "l", "80"], &["a"], &["80"]);
        c.push(["a b", "", "l=b", "80=b"]);
        let cds = if protocol == Protocol::Delta { "cds +b" } else { "cds +a +b" };
        assert_eq!(c.frames(), [cds]);
        c.ack(CDS);
        assert_eq!(c.frames(), ["lds +l=b", "rds +80=b"]);
    }
}

#[test]
fn a_client_that_does_not_answer_delays_but_does_not_stop_the_others() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "l", ""], &[], &[]);
        c.push(["a b", "", "l=b", ""]);
        assert_eq!(c.frames().len(), 1);
        let deadline = c.session.deadline(c.now).expect("something is waited for");
        c.wait(deadline - c.now);
        assert_eq!(c.frames(), ["lds +l=b"]);
    }
}

#[test]
fn clusters_go_after_what_names_them() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "a b", "l=b", "80=b"], &["a", "b"], &["80"]);
        c.push(["a", "a", "l=a", "80=a"]);
        assert_eq!(c.frames(), ["lds +l=a", "rds +80=a"]);
        c.ack(LDS);
        assert!(c.frames().is_empty(), "routes still name it");
        c.ack(RDS);
        let cds = if protocol == Protocol::Delta { "cds -b" } else { "cds +a" };
        assert_eq!(c.frames(), [cds, "eds +b="]);
    }
}

#[test]
fn clusters_that_come_back_while_held_were_never_away() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "l=b", ""], &[], &[]);
        c.push(["a", "", "l=a", ""]);
        assert_eq!(c.frames(), ["lds +l=a"]);
        c.push(["a b", "", "l=b", ""]);
        c.ack(LDS);
        assert_eq!(c.settle(), ["lds +l=b"]);
    }
}

#[test]
fn a_held_removal_is_sent_in_the_end() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "l=b", ""], &[], &[]);
        c.push(["a", "", "l=a", ""]);
        assert_eq!(c.frames(), ["lds +l=a"]);
        c.wait(order::PATIENCE);
        let cds = if protocol == Protocol::Delta { "cds -b" } else { "cds +a" };
        assert_eq!(c.frames(), [cds], "without an answer to LDS");
    }
}

#[test]
fn delta_reconnect_owes_the_endpoints_of_changed_clusters() {
    let mut c = Client::new(Protocol::Delta, ["e1=2", "e1", "", ""]);
    let mut request = DeltaDiscoveryRequest::default();
    request.initial_resource_versions.insert("e1".into(), resource(CDS, "e1", "e1").version.to_string());
    delta(&mut c.session, CDS, &request).unwrap();
    assert_eq!(c.frames(), ["cds +e1=2"]);
    let mut request =
        DeltaDiscoveryRequest { resource_names_subscribe: vec!["e1".into()], ..Default::default() };
    request.initial_resource_versions.insert("e1".into(), resource(EDS, "e1", "e1").version.to_string());
    delta(&mut c.session, EDS, &request).unwrap();
    assert_eq!(c.frames(), ["eds +e1"], "the cluster warms again and waits for it");
}

#[test]
fn who_asks_for_listeners_and_not_for_clusters_waits_for_endpoints() {
    let mut c = Client::new(Protocol::Delta, ["e1", "e1", "l", ""]);
    let known = |kind| {
        let mut request = DeltaDiscoveryRequest::default();
        request.initial_resource_versions.insert("e1".into(), resource(kind, "e1", "e1").version.to_string());
        request
    };
    let names = vec!["e1".into()];
    let endpoints = DeltaDiscoveryRequest { resource_names_subscribe: names, ..known(EDS) };
    delta(&mut c.session, EDS, &endpoints).unwrap();
    assert!(c.frames().is_empty(), "as far as one can see, it follows endpoints alone");
    delta(&mut c.session, LDS, &DeltaDiscoveryRequest::default()).unwrap();
    assert_eq!(c.frames(), ["eds +e1", "lds +l"], "its cluster is warming");
    c.ack(EDS);
    c.ack(LDS);
    delta(&mut c.session, CDS, &known(CDS)).unwrap();
    assert!(c.frames().is_empty(), "it is warm, and has all");
}
