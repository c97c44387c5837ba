//! NACKs, stale answers and limits.

use super::*;

#[test]
fn an_answer_with_another_nonce_is_stale() {
    for protocol in BOTH {
        let mut c = Client::new(protocol, ["a", "", "", ""]);
        c.subscribe(CDS, &[]);
        assert_eq!(c.frames(), ["cds +a"]);
        let heard = match protocol {
            Protocol::Delta => c.delta(CDS, &[], &[], "nonsense"),
            Protocol::Sotw => c.sotw(CDS, &[], "nonsense"),
        };
        assert!(matches!(heard, Heard::Stale), "{heard:?}");
        c.push(["a=2", "", "", ""]);
        assert!(c.frames().is_empty(), "the response is still unanswered");
        assert!(matches!(c.ack(CDS), Heard::Acked(_)));
        assert_eq!(c.frames(), ["cds +a=2"]);
    }
}

#[test]
fn a_refused_version_is_not_sent_again() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a b", "", "", ""], &[], &[]);
        c.push(["a=bad b=2", "", "", ""]);
        assert_eq!(c.frames(), ["cds +a=bad +b=2"]);
        let heard = c.answer(CDS, Some("Error adding/updating cluster(s) a: no"));
        let Heard::Nacked(_, culprits) = heard else { panic!("{heard:?}") };
        assert_eq!(culprits.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["a"]);
        assert!(c.frames().is_empty());
        c.push(["a=bad b=3", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +b=3" } else { "cds +a +b=3" };
        assert_eq!(c.settle(), [expected], "the last good bytes stand in where the set must be complete");
        c.push(["a=bad b=4", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +b=4" } else { "cds +a +b=4" };
        assert_eq!(c.settle(), [expected], "also after an ACK");
        c.push(["a=good b=4", "", "", ""]);
        let expected = if protocol == Protocol::Delta { "cds +a=good" } else { "cds +a=good +b=4" };
        assert_eq!(c.settle(), [expected]);
    }
}

#[test]
fn quarantine_brings_the_last_good_bytes() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "", ""], &[], &[]);
        c.push(["a=bad", "", "", ""]);
        assert_eq!(c.frames(), ["cds +a=bad"]);
        c.answer(CDS, Some("no"));
        c.push(["a", "", "", ""]);
        assert_eq!(c.settle(), ["cds +a"], "it may have been applied in part");
        c.push(["a b", "", "", ""]);
        assert_eq!(c.settle(), [if protocol == Protocol::Delta { "cds +b" } else { "cds +a +b" }]);
    }
}

#[test]
fn what_is_gone_and_was_refused_is_not_sent_again() {
    let mut c = envoy(Protocol::Delta, ["", "", "l", "r=bad s"], &[], &["s"]);
    c.subscribe(RDS, &["r"]);
    c.push(["", "", "m", "s"]);
    assert_eq!(c.frames(), ["lds +m -l", "rds +r=bad"], "listeners may name it until they are answered");
    c.answer(RDS, Some("no"));
    c.subscribe(RDS, &["r"]);
    assert_eq!(c.frames(), ["rds +r="]);
}

#[test]
fn a_new_resource_that_is_refused_is_left_out() {
    for protocol in BOTH {
        let mut c = envoy(protocol, ["a", "", "", ""], &[], &[]);
        c.push(["a z=bad", "", "", ""]);
        assert_eq!(c.frames().len(), 1);
        c.answer(CDS, Some("Error adding/updating cluster(s) z: no"));
        c.push(["a=2 z=bad", "", "", ""]);
        assert_eq!(c.settle(), ["cds +a=2"]);
    }
}

#[test]
fn more_names_than_the_limit_are_refused() {
    let limits = Limits { names: 3, name_bytes: 10, ..Limits::default() };
    for protocol in BOTH {
        let mut c = Client::new(protocol, [""; 4]);
        c.session = Session::new(protocol, snapshot([""; 4]), limits);
        let mut ask = |kind, names: &[&str]| match protocol {
            Protocol::Delta => delta(
                &mut c.session,
                kind,
                &DeltaDiscoveryRequest {
                    resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
                    ..Default::default()
                },
            ),
            Protocol::Sotw => c.session.sotw(
                kind,
                &DiscoveryRequest {
                    resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
                    ..Default::default()
                },
            ),
        };
        ask(EDS, &["a", "b"]).unwrap();
        ask(EDS, &["a", "b"]).unwrap();
        ask(RDS, &["a"]).unwrap();
        assert_eq!(ask(RDS, &["a", "b"]).unwrap_err(), Violation::TooManyNames { asked: 4, limit: 3 });
        let error = ask(RDS, &["a".repeat(11).as_str()]).unwrap_err();
        assert_eq!(error, Violation::NameLength { kind: "rds", bytes: 11, limit: 10 });
        assert!(ask(RDS, &[""]).is_err());
    }
}
