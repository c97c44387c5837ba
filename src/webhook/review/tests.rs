use serde_json::json;

use super::*;

fn validator() -> Validator {
    Validator::new("east".into(), Settings::default())
}

fn rule(spec: Value) -> Value {
    json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": { "name": "backend", "namespace": "production" }, "spec": spec })
}

fn question(operation: &str, object: &Value) -> Vec<u8> {
    let request = json!({ "uid": "705ab4f5", "operation": operation, "object": object, "dryRun": false,
        "kind": { "group": "networking.istio.io", "version": "v1", "kind": "DestinationRule" } });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
        .to_string()
        .into_bytes()
}

#[track_caller]
fn ask(operation: &str, object: &Value) -> (Verdict, Value) {
    let Answer { body, verdict } = validator().answer(&question(operation, object)).expect("an answer");
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "705ab4f5");
    assert_eq!(answer["response"]["allowed"], verdict != Verdict::Refused);
    (verdict, answer["response"].clone())
}

const BROKEN: &str = "spec.trafficPolicy.outlierDetection.maxEjectionPercent: 200 is more than all; write a per cent value from 0 to 100";

fn broken() -> Value {
    rule(json!({ "host": "a", "trafficPolicy": { "outlierDetection": { "maxEjectionPercent": 200 } } }))
}

#[test]
fn what_would_not_be_applied_is_refused_in_the_words_of_its_source() {
    let (verdict, response) = ask("CREATE", &broken());
    assert_eq!(verdict, Verdict::Refused);
    assert_eq!(
        response["status"],
        json!({ "code": 422, "reason": "Invalid", "message": format!("configuration is invalid: {BROKEN}") })
    );
    assert_eq!(ask("UPDATE", &broken()).0, Verdict::Refused);
    // The same words as everywhere.
    let Outcome::Invalid(_, invalid) = convert::convert(&"east".into(), &Settings::default(), broken())
    else {
        panic!("it is applied")
    };
    assert_eq!(invalid.0.to_string(), BROKEN);
}

#[test]
fn what_is_applied_in_part_is_taken_with_warnings() {
    let odd = rule(
        json!({ "host": "a", "trafficPolicy": { "loadBalancer": { "simple": "LEAST_REQUEST", "warmupDurationSecs": 30 } } }),
    );
    let (verdict, response) = ask("CREATE", &odd);
    assert_eq!(verdict, Verdict::Warned);
    let warnings = response["warnings"].as_array().expect("warnings");
    assert!(
        warnings.iter().any(|w| w.as_str().is_some_and(|w| w.contains("warmupDurationSecs"))),
        "{warnings:?}"
    );
    assert!(response.get("status").is_none());

    let many: Vec<_> = (0..50)
        .map(|i| {
            json!({ "name": format!("s{i}"), "trafficPolicy": { "loadBalancer": {
        "simple": "LEAST_REQUEST", "warmupDurationSecs": 30 } } })
        })
        .collect();
    let (_, response) = ask("CREATE", &rule(json!({ "host": "a", "subsets": many })));
    let warnings = response["warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), MOST_WARNINGS + 1);
    assert!(warnings[MOST_WARNINGS].as_str().is_some_and(|w| w.starts_with("and 30 more")), "{warnings:?}");
}

#[test]
fn what_is_good_or_none_of_our_business_is_taken_in_silence() {
    let unread = json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "a" }, "spec": { "http": 7 } });
    let foreign = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": 7 });
    let mut going = broken();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    for (operation, object) in [
        ("CREATE", &rule(json!({ "host": "backend.production.svc.cluster.local" }))),
        ("CREATE", &unread),
        ("CREATE", &foreign),
        ("UPDATE", &going),
        ("DELETE", &Value::Null),
        ("DELETE", &broken()),
        ("CONNECT", &broken()),
        ("", &broken()),
    ] {
        let (verdict, response) = ask(operation, object);
        assert_eq!((verdict, response.get("warnings")), (Verdict::Allowed, None), "{operation} {object}");
    }
}

#[test]
fn internal_annotations_are_refused_on_any_kind() {
    for name in INTERNAL {
        let object = json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "a", "annotations": { name: "true" } }, "spec": {} });
        let (verdict, response) = ask("CREATE", &object);
        let message = response["status"]["message"].as_str().expect("a message");
        assert!(verdict == Verdict::Refused && message.contains(name), "{message}");
    }
}

#[test]
fn both_versions_of_the_question_are_answered_in_kind() {
    let asked = String::from_utf8(question("CREATE", &broken())).expect("text");
    let asked = asked.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let answer = validator().answer(asked.as_bytes()).expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
}

#[test]
fn garbage_is_named() {
    let review = |version: &str, kind: &str, request: Value| {
        json!({ "apiVersion": version, "kind": kind, "request": request }).to_string()
    };
    let request = json!({ "uid": "1", "operation": "CREATE", "object": {} });
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let v1 = "admission.k8s.io/v1";
    for (body, words) in [
        (String::new(), "no body found"),
        ("x".to_owned(), "no AdmissionReview"),
        ("{}".to_owned(), "no AdmissionReview"),
        ("null".to_owned(), "no AdmissionReview"),
        (deep, "no AdmissionReview"),
        (review("admission.k8s.io/v2", "AdmissionReview", request.clone()), "admission.k8s.io/v2"),
        (review(v1, "Pod", request), "\"Pod\""),
        (review(v1, "AdmissionReview", Value::Null), "no AdmissionReview"),
        (review(v1, "AdmissionReview", json!({ "uid": 7 })), "no AdmissionReview"),
        (review(v1, "AdmissionReview", json!({ "uid": "1", "operation": "CREATE" })), "without an object"),
        (
            review(v1, "AdmissionReview", json!({ "uid": "1", "operation": "UPDATE", "object": [] })),
            "without an object",
        ),
    ] {
        let refused = validator().answer(body.as_bytes()).expect_err("it is no question");
        assert!(refused.contains(words), "{words}: {refused}");
    }
    // An object without anything is one that is broken.
    for object in [json!({}), json!({ "kind": "DestinationRule" }), json!({ "metadata": 7 })] {
        assert_eq!(ask("CREATE", &object).0, Verdict::Refused, "{object}");
    }
}
