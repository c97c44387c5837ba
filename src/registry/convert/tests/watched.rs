//! What a watch sends reads as what a file says.

use super::*;
use crate::registry::convert::watched::{Decoder, Event, Line, page};

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
    Decoder::new(ClusterId::from("east"), Settings::default())
}

fn slice(line: &str) -> Result<Event> {
    Ok(decoder().line(Kind::EndpointSlice, line.as_bytes())?.event)
}

fn pod(line: &str) -> Result<Event> {
    Ok(decoder().line(Kind::Pod, line.as_bytes())?.event)
}

#[test]
fn a_line_reads_as_the_same_object_in_a_file() {
    for kind in ["ADDED", "MODIFIED"] {
        assert_eq!(slice(&line(kind, SLICE)), Ok(Event::Now(read(SLICE))));
        assert_eq!(pod(&line(kind, POD)), Ok(Event::Now(read(POD))));
    }
    let said = decoder().line(Kind::EndpointSlice, line("ADDED", SLICE).as_bytes()).unwrap();
    let Line { version: 712, event: Event::Now(Outcome::Object(key, Object::EndpointSlice(slice_read), _)) } =
        said
    else {
        panic!("no slice: {said:?}")
    };
    assert_eq!(key.to_string(), "east/production/EndpointSlice/backend-x7k2p");
    assert_eq!(
        slice_read.endpoints.pods().map(|pod| pod.to_string()).collect::<Vec<_>>(),
        ["backend-0", "backend-1"],
        "by address"
    );
    assert_eq!(slice(&line("DELETED", SLICE)), Ok(Event::Gone(key)));
    assert!(matches!(pod(&line("DELETED", POD)), Ok(Event::Gone(_))));
}

/// A kind without a reader of its own: a line, an item of a list (which does not say what it is), a file.
#[test]
fn every_kind_reads_the_same_from_lines_lists_and_files() {
    let body = r#""metadata":{"name":"payment","namespace":"production","resourceVersion":"9"},"spec":{"host":"payment"}"#;
    let whole = format!(r#"{{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule",{body}}}"#);
    let kind = Kind::DestinationRule;
    let said = decoder().line(kind, line("ADDED", &whole).as_bytes()).unwrap();
    assert_eq!(said, Line { version: 9, event: Event::Now(read(&whole)) });
    for (kind, item) in
        [(kind, format!("{{{body}}}")), (Kind::EndpointSlice, SLICE.into()), (Kind::Pod, POD.into())]
    {
        let list = format!(
            r#"{{"kind":"List","metadata":{{"resourceVersion":"31","continue":"abc"}},"items":[{item}]}}"#
        );
        let page = page(list.as_bytes()).unwrap();
        assert_eq!((page.version, &*page.next, page.items.len()), (31, "abc", 1));
        let expected = if kind == Kind::DestinationRule { read(&whole) } else { read(&item) };
        assert_eq!(decoder().item(kind, page.items[0]).1, expected);
        let Outcome::Object(key, ..) = expected else { panic!("{expected:?}") };
        assert_eq!(decoder().name(kind, page.items[0]).unwrap().0, key);
    }
    assert_eq!(page(br#"{"metadata":{"resourceVersion":"3"},"items":null}"#).unwrap().items.len(), 0);
    assert!(page(br#"{"metadata":{"resourceVersion":"3"},"items":[{"#).is_err());
}

#[test]
fn an_empty_list_may_be_null() {
    let nothing = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"a","labels":
        {"kubernetes.io/service-name":"a"}},"addressType":"IPv4","endpoints":null,"ports":null}"#;
    let Outcome::Object(_, Object::EndpointSlice(empty), _) = read(nothing) else { panic!("no slice") };
    assert!(empty.endpoints.is_empty() && empty.ports.is_empty());
    assert_eq!(slice(&line("ADDED", nothing)), Ok(Event::Now(read(nothing))));
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
        let Ok(Event::Now(Outcome::Invalid(found, said))) = slice(&line("ADDED", &object)) else {
            panic!("{wrong} was accepted from a line")
        };
        assert_eq!(found, key);
        let (said, expected) = (said.0, expected.0);
        assert_eq!(said.field, expected.field);
        assert!(said.reason.starts_with(&expected.reason), "{said:?} is about {expected:?}");
    }
    // Where nothing says which object it is, it is no line of a watch.
    for garbage in ["", "<html>", "{\"type\":\"ADDED\",\"object\":", &format!("{} x", line("ADDED", SLICE))] {
        assert!(slice(garbage).is_err(), "{garbage}");
        assert!(decoder().line(Kind::Service, garbage.as_bytes()).is_err(), "{garbage}");
    }
}

#[test]
fn what_is_not_about_an_object() {
    // The object of an error is a Status, whose `status` is a word.
    let error = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Expired","code":410,
        "message":"too old","details":{"retryAfterSeconds":3}}"#;
    let end = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9","creationTimestamp":null,
        "annotations":{"k8s.io/initial-events-end":"true"}}}"#;
    let bookmark = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"10"}}"#;
    for kind in [Kind::Pod, Kind::EndpointSlice, Kind::Service] {
        let say = |word: &str, object: &str| decoder().line(kind, line(word, object).as_bytes()).unwrap();
        let Event::Error(status) = say("ERROR", error).event else { panic!("no error") };
        assert_eq!((status.code, &*status.reason, &*status.message), (410, "Expired", "too old"));
        assert_eq!(status.details.and_then(|d| d.retry_after_seconds), Some(3));
        assert_eq!(say("BOOKMARK", end), Line { version: 9, event: Event::Bookmark { listed: true } });
        assert_eq!(say("BOOKMARK", bookmark), Line { version: 10, event: Event::Bookmark { listed: false } });
        assert_eq!(say("PROGRESS", bookmark).event, Event::Other("PROGRESS".into()));
    }
}
