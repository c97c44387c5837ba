use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use super::{
    object,
    plan::{AGAIN, Done, Due, MOST, MOST_OF_OBJECT, Note, Plan},
};
use crate::model::mcs::Api;
use crate::registry::{
    Problem, Severity,
    kubernetes::{Failure, Named, Reference},
};

const SECOND: Duration = Duration::from_secs(1);

fn note(object: &str, text: &str) -> Note {
    Note { object: object.into(), severity: Severity::Error, text: text.into() }
}

/// Everything that is due until then, looked at every second; each is written with success.
fn said(plan: &mut Plan, notes: &[Note], from: Instant, seconds: u32) -> Vec<Due> {
    let mut all = Vec::new();
    for second in 0..seconds {
        let now = from + SECOND * second;
        plan.see(notes.iter().cloned(), now);
        while let Some(due) = plan.due(now) {
            plan.done(&due, Done::Said(due.before.unwrap_or(0) + due.times), now);
            all.push(due);
        }
    }
    all
}

#[test]
fn what_holds_is_said_once_and_again_before_it_is_forgotten() {
    let start = Instant::now();
    let mut plan = Plan::new(start);
    let notes = [note("a/Secret/b", "no"), note("a/Secret/c", "no")];
    let first = said(&mut plan, &notes, start, 60);
    assert_eq!(first.iter().map(|due| &due.note).collect::<Vec<_>>(), notes.iter().collect::<Vec<_>>());
    assert!(first.iter().all(|due| due.times == 1 && due.before.is_none()));
    assert!(said(&mut plan, &notes, start + SECOND * 60, 600).is_empty());
    let again = said(&mut plan, &notes, start + AGAIN, 60);
    assert!(again.len() == 2 && again.iter().all(|due| due.before == Some(1)), "{again:?}");
    assert!(AGAIN * 2 < Duration::from_secs(3600), "an hour is how long Events are kept");
    // Solved, nothing is said.
    assert!(said(&mut plan, &[], start + AGAIN + SECOND * 60, 4000).is_empty());
}

#[test]
fn what_comes_and_goes_is_counted_and_said_rarely() {
    let start = Instant::now();
    let mut plan = Plan::new(start);
    let notes = [note("a/Secret/b", "no")];
    let (mut written, mut count) = (0, 0);
    for second in 0..600 {
        let there = if second % 2 == 0 { &notes[..] } else { &[] };
        for due in said(&mut plan, there, start + SECOND * second, 1) {
            written += 1;
            assert_eq!(due.before.unwrap_or(0), count, "one Event counts on");
            count += due.times;
        }
    }
    assert!((50..=60).contains(&written), "{written}");
    assert!(count >= written, "{count}");
}

#[test]
fn there_is_never_more_than_api_servers_want() {
    let start = Instant::now();
    let mut plan = Plan::new(start);
    let many: Vec<_> = (0..700).map(|i| note(&format!("a/Secret/s{i:04}"), "no")).collect();
    assert_eq!(plan.see(many.iter().cloned(), start), 700 - MOST as u64);
    assert_eq!(plan.see(many.iter().cloned(), start), 0, "each is counted once");
    let at_once = said(&mut plan, &many, start, 1).len();
    assert_eq!(at_once, 20);
    assert_eq!(said(&mut plan, &many, start + SECOND, 100).len(), 100, "one each second");
    assert_eq!(said(&mut plan, &many, start + SECOND * 101, 500).len(), MOST - 120, "and no more");
    assert_eq!(plan.left_out(), 700 - MOST);
    // What is solved makes room.
    let other = said(&mut plan, &many[MOST..], start + SECOND * 601, 300);
    let objects: BTreeSet<_> = other.iter().map(|due| &due.note.object).collect();
    assert_eq!((objects.len(), other.len()), (700 - MOST, 700 - MOST));

    let mut plan = Plan::new(start);
    let talkative: Vec<_> = (0..50).map(|i| note("a/Secret/b", &format!("no {i:02}"))).collect();
    assert_eq!(said(&mut plan, &talkative, start, 100).len(), MOST_OF_OBJECT);
}

#[test]
fn failures_are_tried_again_more_and_more_rarely_and_named_until_they_are_over() {
    let start = Instant::now();
    let mut plan = Plan::new(start);
    let notes: Vec<_> = (0..50).map(|i| note(&format!("a/Secret/s{i:02}"), "no")).collect();
    let mut tries = 0;
    for second in 0..3600 {
        let now = start + SECOND * second;
        plan.see(notes.iter().cloned(), now);
        while let Some(due) = plan.due(now) {
            plan.done(&due, Done::Failed(Failure::Unreachable("away".into())), now);
            tries += 1;
        }
    }
    assert!((100..200).contains(&tries), "{tries} tries in an hour");
    assert!(plan.failure().is_some());
    let later = start + SECOND * 3600;
    assert_eq!(said(&mut plan, &notes, later, 600).len(), 50);
    assert!(plan.failure().is_none());

    // One that fails alone holds up nobody; solved, it is not named any more.
    let mut plan = Plan::new(start);
    for second in 0..120 {
        let now = start + SECOND * second;
        plan.see(notes.iter().cloned(), now);
        while let Some(due) = plan.due(now) {
            let bad = *due.note.object == *"a/Secret/s10";
            let done = if bad { Done::Failed(Failure::Garbage("no".into())) } else { Done::Said(1) };
            plan.done(&due, done, now);
        }
    }
    assert_eq!(plan.failure().map(|(note, _)| &*note.object), Some("a/Secret/s10"));
    assert!(said(&mut plan, &notes[..10], start + SECOND * 120, 1).is_empty());
    assert!(plan.failure().is_none());
}

#[test]
fn objects_that_are_not_there_and_terms_that_end_say_nothing() {
    let start = Instant::now();
    let mut plan = Plan::new(start);
    let notes = [note("a/Secret/b", "no")];
    plan.see(notes.clone(), start);
    let due = plan.due(start).expect("it is new");
    plan.done(&due, Done::NotNow, start);
    assert!(plan.due(start).is_none());
    let now = start + SECOND * 2;
    let due = plan.due(now).expect("it is still to be said");
    plan.done(&due, Done::NoObject, now);
    assert!(said(&mut plan, &notes, now, 600).is_empty());
}

fn reference() -> Reference {
    Reference {
        api_version: "networking.istio.io/v1".into(),
        kind: "DestinationRule".into(),
        namespace: "production".into(),
        name: "payment".into(),
        uid: "1-2".into(),
    }
}

#[test]
fn an_event_is_named_by_what_it_says_of_which_object() {
    let (rule, said) = (reference(), note("production/DestinationRule/payment", "spec.host: is missing"));
    let name = object::name(&rule, &said);
    assert_eq!(name, object::name(&rule, &said.clone()));
    let others = [
        object::name(&Reference { uid: "3".into(), ..rule.clone() }, &said),
        object::name(&rule, &Note { text: "another".into(), ..said.clone() }),
        object::name(&rule, &Note { severity: Severity::Warning, ..said.clone() }),
    ];
    assert!(name.starts_with("payment.") && !others.contains(&name), "{name} {others:?}");
    let long = Reference { name: format!("{}.{}", "a".repeat(199), "b".repeat(50)).into(), ..rule.clone() };
    assert!(object::name(&long, &said).len() < 253 && !object::name(&long, &said).contains(".."));

    let now = SystemTime::now();
    let event = object::new(&rule, &said, 1, "istiod-0", now);
    assert_eq!(event["series"], json!(null));
    assert_eq!(event["regarding"]["uid"], "1-2");
    assert_eq!((event["reason"].clone(), event["type"].clone()), (json!("NotApplied"), json!("Warning")));
    assert_eq!(object::seen(&event, now).0, 1);
    assert!(object::seen(&event, now + SECOND * 10).1 >= SECOND * 9);
    let many = object::new(&rule, &said, 3, "istiod-0", now);
    assert_eq!(object::seen(&many, now).0, 3);
    assert_eq!(object::seen(&json!({}), now).0, 1, "what is strange is no error");
    let node = Reference { namespace: "".into(), kind: "Node".into(), ..rule };
    assert_eq!(object::collection(&node), "/apis/events.k8s.io/v1/namespaces/default/events");
}

#[test]
fn only_objects_of_api_servers_are_spoken_to_and_not_for_long() {
    let problem = |object: Option<&str>, file: Option<&str>, reason: &str| Problem {
        cluster: "east".into(),
        file: file.map(Arc::from),
        line: None,
        object: object.map(Arc::from),
        field: "spec".into(),
        severity: Severity::Warning,
        reason: reason.into(),
        remedy: "mend it".into(),
    };
    let of = |problem: &Problem| super::note(problem, &Api::default()).map(|note| note.text);
    assert_eq!(
        of(&problem(Some("a/DestinationRule/b"), None, "is odd")).as_deref(),
        Some("spec: is odd; mend it")
    );
    for (object, file) in [
        (None, None),
        (Some("a/DestinationRule/b"), Some("x.yaml")),
        (Some("a/Lease/b"), None),
        (Some("ConfigMap/b"), None),
    ] {
        assert_eq!(of(&problem(object, file, "is odd")), None, "{object:?}");
    }
    let long = of(&problem(Some("a/Secret/b"), None, &"ü".repeat(3000))).expect("a note");
    assert!(long.len() <= 1024 && long.ends_with('…'), "{}", long.len());
    assert!(Named::parse("a/Secret/b", &Api::default()).is_some());
}
