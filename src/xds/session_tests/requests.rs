//! Subscriptions, changes, reconnects and secrets.

use super::*;

#[test]
fn a_proxy_gets_all_clusters_and_listeners_and_what_it_names() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, ["b a", "a=1 b", "l", "80 90"]);
        c.subscribe(CDS, &[]);
        assert_eq!(c.frames(), ["cds +a +b"]);
        c.subscribe(EDS, &["a", "unknown"]);
        assert_eq!(c.frames(), ["eds +a=1 +unknown="], "before the CDS ACK, as Envoy asks");
        c.ack(CDS);
        c.ack(EDS);
        c.subscribe(LDS, &[]);
        c.subscribe(RDS, &["80", "none"]);
        assert_eq!(c.frames(), ["lds +l", "rds +80 +none="]);
        c.ack(LDS);
        c.ack(RDS);
        assert!(c.frames().is_empty());
    }
}

#[test]
fn an_empty_set_is_an_answer_too() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.subscribe(CDS, &[]);
        c.subscribe(LDS, &[]);
        c.subscribe(EDS, &[]);
        c.subscribe(RDS, &[]);
        assert_eq!(c.settle(), ["cds", "lds"]);
    }
}

#[test]
fn a_change_is_sent_once_and_alone() {
    let mut c = envoy(Protocol::Delta, ["a b", "a b", "l", "80"], &["a", "b"], &["80"]);
    c.push(["a b=2 c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +b=2 +c", "eds +a=2"]);
    c.push(["a c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds -b"]);

    let mut c = envoy(Protocol::Sotw, ["a b", "a b", "l", "80"], &["a", "b"], &["80"]);
    c.push(["a b=2 c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +a +b=2 +c", "eds +a=2"], "clusters are complete, assignments partial");
    c.push(["a c", "a=2 b", "l", "80"]);
    assert_eq!(c.settle(), ["cds +a +c"]);
}

#[test]
fn what_happens_before_the_answer_is_sent_in_one() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "a", "", ""], &["a"], &[]);
        c.push(["", "a=1", "", ""]);
        assert_eq!(c.frames(), ["eds +a=1"]);
        for content in ["a=2", "a=3", "a=4"] {
            c.push(["", content, "", ""]);
            assert!(c.frames().is_empty(), "one response at a time");
        }
        c.ack(EDS);
        assert_eq!(c.settle(), ["eds +a=4"]);
        c.push(["", "a=5", "", ""]);
        assert_eq!(c.frames(), ["eds +a=5"]);
        c.push(["", "a=6", "", ""]);
        c.push(["", "a=5", "", ""]);
        c.ack(EDS);
        assert!(c.frames().is_empty(), "back where it was");
    }
}

#[test]
fn unsubscribed_names_are_no_longer_sent() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["", "a b", "", ""], &["a", "b"], &[]);
        match protocol {
            Protocol::Delta => c.delta(EDS, &[], &["a"], ""),
            Protocol::Sotw => c.sotw(EDS, &["b"], &c.nonce(EDS)),
        };
        assert!(c.frames().is_empty());
        c.push(["", "a=2 b=2", "", ""]);
        assert_eq!(c.settle(), ["eds +b=2"]);
        match protocol {
            Protocol::Delta => c.delta(EDS, &["a"], &[], ""),
            Protocol::Sotw => c.sotw(EDS, &["a", "b"], &c.nonce(EDS)),
        };
        assert_eq!(c.settle(), ["eds +a=2"]);
    }
}

#[test]
fn delta_reconnect_sends_what_differs() {
    let mut c = Client::new(Protocol::Delta, ["same new changed=2", "e x=2", "l", ""]);
    let version = |kind, name: &str, content: &str| resource(kind, name, content).version.to_string();
    let mut request = DeltaDiscoveryRequest::default();
    for (name, v) in [
        ("same", version(CDS, "same", "same")),
        ("changed", version(CDS, "changed", "1")),
        ("gone", version(CDS, "gone", "gone")),
        ("odd", "not a version".into()),
    ] {
        request.initial_resource_versions.insert(name.into(), v);
    }
    delta(&mut c.session, CDS, &request).unwrap();
    assert_eq!(c.settle(), ["cds +changed=2 +new -gone -odd"]);

    let mut request = DeltaDiscoveryRequest {
        resource_names_subscribe: ["e", "x", "gone", "empty"].map(String::from).to_vec(),
        ..Default::default()
    };
    let placeholder = crate::xds::placeholder::placeholder(EDS, &"empty".into()).unwrap().version;
    for (name, v) in [
        ("e", version(EDS, "e", "e")),
        ("x", version(EDS, "x", "1")),
        ("gone", version(EDS, "gone", "1")),
        ("empty", placeholder.to_string()),
    ] {
        request.initial_resource_versions.insert(name.into(), v);
    }
    delta(&mut c.session, EDS, &request).unwrap();
    assert_eq!(c.settle(), ["eds +gone= +x=2"]);

    let mut request = DeltaDiscoveryRequest::default();
    request.initial_resource_versions.insert("l".into(), version(LDS, "l", "l"));
    delta(&mut c.session, LDS, &request).unwrap();
    assert!(c.frames().is_empty(), "nothing is sent again");
    assert!(c.session.watch(LDS).in_flight.is_none());
}

#[test]
fn delta_wildcards_come_and_go() {
    let mut c = Client::new(Protocol::Delta, ["a b", "", "", ""]);
    c.delta(CDS, &["a", "none"], &[], "");
    assert_eq!(c.settle(), ["cds +a -none"], "names only, and the unknown one is answered");
    c.delta(CDS, &["*"], &[], "");
    assert_eq!(c.settle(), ["cds +a +b"]);
    c.delta(CDS, &["b"], &[], "");
    assert_eq!(c.settle(), ["cds +b"], "what is asked for again is sent again");
    c.delta(CDS, &[], &["b"], "");
    assert_eq!(c.settle(), ["cds +b"], "still in the wildcard, so it is confirmed");
    c.delta(CDS, &[], &["*"], "");
    c.push(["a=2 b=2", "", "", ""]);
    assert_eq!(c.settle(), ["cds +a=2"]);
    c.delta(CDS, &["x"], &["x", "never-there"], "");
    assert!(c.settle().is_empty(), "contradictions end as unsubscribed");
}

#[test]
fn a_second_request_before_the_first_answer_is_no_ack() {
    // Envoy: `default`, then `default` and `ROOTCA`, both without a nonce.
    let mut c = Client::new(Protocol::Sotw, [""; 4]);
    c.session.secrets(set(Kind::Secret, "default ROOTCA"));
    c.sotw(Kind::Secret, &["default"], "");
    assert_eq!(c.frames(), ["sds +default"]);
    c.sotw(Kind::Secret, &["default", "ROOTCA"], "");
    assert!(c.frames().is_empty(), "one response at a time");
    assert!(matches!(c.ack(Kind::Secret), Heard::Acked(_)));
    assert_eq!(c.settle(), ["sds +ROOTCA"]);
}

#[test]
fn secrets_rotate_and_are_never_removed() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.subscribe(Kind::Secret, &["default", "ROOTCA", "not-mine"]);
        assert!(c.frames().is_empty(), "no secret is better than an empty one");
        c.session.secrets(set(Kind::Secret, "default=1 ROOTCA"));
        assert_eq!(c.settle(), ["sds +ROOTCA +default=1"]);
        c.session.secrets(set(Kind::Secret, "default=2 ROOTCA"));
        assert_eq!(c.settle(), ["sds +default=2"]);
        c.session.secrets(set(Kind::Secret, ""));
        assert!(c.settle().is_empty());
    }
}

#[test]
fn large_answers_come_in_parts() {
    let names: Vec<String> = (0..100).map(|i| format!("c{i:02}")).collect();
    let list = names.join(" ");
    let limits = Limits { response_bytes: 2000, ..Limits::default() };
    let mut c = Client::new(Protocol::Delta, [""; 4]);
    c.session = Session::new(Protocol::Delta, snapshot([&list, "", "l", ""]), limits);
    c.subscribe(CDS, &[]);
    let (mut seen, mut frames) = (0, 0);
    while let Some(frame) = c.session.next_frame(c.now) {
        assert!(frame.bytes() <= 2000, "{} bytes", frame.bytes());
        assert!(c.session.next_frame(c.now).is_none(), "a part waits for the answer to the one before");
        (seen, frames) = (seen + frame.resources.len(), frames + 1);
        c.ack(CDS);
    }
    assert_eq!(seen, 100);
    assert!(frames > 3);
}

/// Two clients with the same snapshot: the responses of one type, and their chunks.
fn pairs(kind: Kind, names: [&[&str]; 2], resources: [&str; 4]) -> [(Frame, Vec<bytes::Bytes>); 2] {
    let (shared, snapshot) = (Arc::default(), snapshot(resources));
    names.map(|names| {
        let mut c = Client::new(Protocol::Delta, [""; 4]);
        c.session =
            Session::new(Protocol::Delta, snapshot.clone(), Limits::default()).sharing(Arc::clone(&shared));
        c.subscribe(kind, names);
        let frame = c.session.next_frame(c.now).expect("an answer");
        (frame.clone(), Payload::new(Protocol::Delta, frame).collect())
    })
}

#[test]
fn who_asks_for_the_same_gets_the_same_memory() {
    let large = |name: &str| format!("{name}={}", name.repeat(10_000));
    let list = ["a", "b", "c", "d", "f", "g"].map(large).join(" ");
    let cases: [(Kind, [&[&str]; 2], bool); 5] = [
        (CDS, [&[], &[]], true),
        (EDS, [&["a", "b", "c", "d", "f"], &["f", "a", "b", "d", "c", "c"]], true),
        (EDS, [&["a", "b", "c", "d"], &["a", "b", "c", "f"]], false),
        (EDS, [&["a", "b", "c", "d", "none"], &["none", "a", "b", "c", "d"]], true),
        (EDS, [&["a"], &["a"]], false),
    ];
    for (kind, names, same) in cases {
        let [(first, one), (second, other)] = pairs(kind, names, [&list, &list, "", ""]);
        let equal = describe(&first) == describe(&second);
        assert_eq!(equal, same || names[0] == names[1], "{kind:?} {names:?}");
        let places = |chunks: &[bytes::Bytes]| -> Vec<_> {
            chunks.iter().filter(|chunk| chunk.len() > 20_000).map(|chunk| chunk.as_ptr()).collect()
        };
        assert_eq!(!places(&one).is_empty() && places(&one) == places(&other), same, "{kind:?} {names:?}");
        let bytes: usize = one.iter().map(bytes::Bytes::len).sum();
        assert!(bytes > first.bytes() && bytes < first.bytes() + 300, "{bytes}");
    }
}
