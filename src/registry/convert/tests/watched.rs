//! What a watch sends reads as what a file says.

use super::*;
use crate::registry::convert::watched::{Decoder, Event};

const SLICE: &str = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"backend-x7k2p",
    "generateName":"backend-","namespace":"production","uid":"6b7f","resourceVersion":"712","generation":3,
    "creationTimestamp":"2026-08-01T00:00:10Z","labels":{"endpointslice.kubernetes.io/managed-by":"x",
    "kubernetes.io/service-name":"backend"},"annotations":{"a":"b"},"ownerReferences":[{"apiVersion":"v1",
    "kind":"Service","name":"backend","uid":"1","controller":true,"blockOwnerDeletion":true}],
    "managedFields":[{"manager":"m","fieldsV1":{"f:endpoints":{}}}]},"addressType":"IPv4","endpoints":[
    {"addresses":["10.1.0.11"],"conditions":{"ready":false,"serving":true,"terminating":true},
    "targetRef":{"kind":"Pod","namespace":"production","name":"backend-1","uid":"2"},"nodeName":"n1","zone":"a"},
    {"addresses":["10.1.0.10"],"conditions":{"ready":true,"serving":true,"terminating":false},
    "targetRef":{"kind":"Pod","namespace":"production","name":"backend-0","uid":"3"},"nodeName":"n0","zone":"b"}],
    "ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-7d9f-abcde","namespace":"production",
    "creationTimestamp":"2026-08-01T00:00:10Z","labels":{"app":"web","pod-template-hash":"7d9f"},"ownerReferences":[
    {"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d9f","uid":"1","controller":true}]},"spec":{"volumes":
    [{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":8080,
    "protocol":"TCP"}],"env":[{"name":"A","value":"\"quoted\" \u00e9"}]}],"serviceAccountName":"web","nodeName":"n0"},
    "status":{"phase":"Running","conditions":[],"podIP":"10.1.0.10","podIPs":[{"ip":"10.1.0.10"}]}}"#;

fn line(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}")
}

fn decoder() -> Decoder {
    Decoder::new(ClusterId::from("east"))
}

#[test]
fn a_line_reads_as_the_same_object_in_a_file() {
    for kind in ["ADDED", "MODIFIED"] {
        assert_eq!(decoder().slice(&line(kind, SLICE)), Ok(Event::Now(read(SLICE))));
        assert_eq!(decoder().pod(&line(kind, POD)), Ok(Event::Now(read(POD))));
    }
    let Ok(Event::Now(Outcome::Object(key, Object::EndpointSlice(slice), _))) =
        decoder().slice(&line("ADDED", SLICE))
    else {
        panic!("no slice")
    };
    assert_eq!(key.to_string(), "east/production/EndpointSlice/backend-x7k2p");
    assert_eq!(slice.endpoints.pods().collect::<Vec<_>>(), ["backend-0", "backend-1"], "by address");
    assert_eq!(decoder().slice(&line("DELETED", SLICE)), Ok(Event::Gone(key)));
    assert!(matches!(decoder().pod(&line("DELETED", POD)), Ok(Event::Gone(_))));
}

#[test]
fn an_empty_list_may_be_null() {
    let nothing = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"a","labels":
        {"kubernetes.io/service-name":"a"}},"addressType":"IPv4","endpoints":null,"ports":null}"#;
    let Outcome::Object(_, Object::EndpointSlice(slice), _) = read(nothing) else { panic!("no slice") };
    assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
    assert_eq!(decoder().slice(&line("ADDED", nothing)), Ok(Event::Now(read(nothing))));
}

#[test]
fn mistakes_are_said_as_for_files() {
    for (right, wrong) in [
        ("\"10.1.0.10\"", "\"10.1.0\""),
        ("8080", "70000"),
        ("\"ready\":true", "\"ready\":\"perhaps\""),
        ("\"backend-x7k2p\"", "\"Backend|\""),
        ("[\"10.1.0.11\"]", "[]"),
    ] {
        let object = SLICE.replacen(right, wrong, 1);
        let Outcome::Invalid(key, expected) = read(&object) else { panic!("{wrong} was accepted") };
        let said = match decoder().slice(&line("ADDED", &object)) {
            Ok(Event::Now(Outcome::Invalid(found, invalid))) => {
                assert_eq!(found, key);
                invalid
            }
            Err(invalid) => invalid,
            other => panic!("{wrong}: {other:?}"),
        };
        let (said, expected) = (said.0, expected.0);
        assert!(said.field.ends_with(&expected.field), "{said:?} is about {expected:?}");
        assert!(said.reason.starts_with(&expected.reason), "{said:?} is about {expected:?}");
    }
    assert!(decoder().slice("{\"type\":\"ADDED\",\"object\":").is_err());
    assert!(decoder().slice(&format!("{} x", line("ADDED", SLICE))).is_err());
    // The object of an error is a Status, whose `status` is a word.
    let error = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Expired","code":410}"#;
    assert_eq!(decoder().pod(&line("ERROR", error)), Ok(Event::Other("ERROR".into())));
    let bookmark =
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9","creationTimestamp":null}}"#;
    assert_eq!(decoder().pod(&line("BOOKMARK", bookmark)), Ok(Event::Other("BOOKMARK".into())));
}
