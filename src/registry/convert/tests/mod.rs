mod destination_rule;
mod istio;
mod kubernetes;
mod remote_secret;
mod watched;

use std::{fmt::Debug, sync::Arc};

use super::*;
use crate::registry::yaml;

fn read_with(settings: &Settings, text: &str) -> Outcome {
    convert(&ClusterId::from("east"), settings, yaml::parse(text).unwrap())
}

fn read(text: &str) -> Outcome {
    read_with(&Settings::default(), text)
}

/// The object and what was said about it, as `field: reason; remedy`.
#[track_caller]
fn object(text: &str) -> (ObjectKey, Object, Vec<String>) {
    match read(text) {
        Outcome::Object(key, object, warnings) => (key, object, warnings.iter().map(say).collect()),
        other => panic!("{other:?}"),
    }
}

fn say(finding: &Finding) -> String {
    format!("{}: {}; {}", finding.field, finding.reason, finding.remedy)
}

/// Why the object was refused.
#[track_caller]
fn refused(text: &str) -> String {
    match read(text) {
        Outcome::Invalid(_, invalid) => invalid.to_string(),
        other => panic!("{text}\n{other:?}"),
    }
}

/// Each text is refused with words that contain all of these.
#[track_caller]
fn assert_refused(cases: &[(&str, &[&str])]) {
    for (text, words) in cases {
        let said = refused(text);
        for word in *words {
            assert!(said.contains(word), "{word:?} is not in {said:?} about\n{text}");
        }
    }
}

#[track_caller]
fn assert_said(said: &[String], words: &[&str]) {
    let found = said.iter().any(|s| words.iter().all(|w| s.contains(w)));
    assert!(found, "{words:?} is not in {said:#?}");
}

fn labels(pairs: &[(&str, &str)]) -> crate::model::Labels {
    pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect()
}

#[track_caller]
fn assert_equal<T: PartialEq + Debug>(a: &T, b: &T) {
    assert_eq!(a, b);
}

#[test]
fn versions_kinds_and_lists() {
    let rule = |version: &str| {
        format!("apiVersion: {version}\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: h}}\n")
    };
    let of = |version: &str| object(&rule(version)).1;
    for version in ["networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"] {
        assert_equal(&of("networking.istio.io/v1"), &of(version));
    }
    assert_refused(&[
        (&rule("networking.istio.io/v2"), &["apiVersion", "\"v2\"", "write networking.istio.io/v1"]),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: a}",
            &["discovery.k8s.io/v1"],
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Destinationrule\nmetadata: {name: a}",
            &["write DestinationRule"],
        ),
        ("apiVersion: v1\nmetadata: {name: a}", &["kind: is missing"]),
        ("just text", &["kind: is missing"]),
        ("apiVersion: v1\nkind: Service\nspec: {}", &["metadata.name: is missing"]),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: 'a|b'}", &["metadata.name", "a|b"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: A}", &["metadata.namespace"]),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 3}",
            &["spec.ports", "integer `3`"],
        ),
    ]);
    for other in ["serving.knative.dev/v1, kind: Service", "apps/v1, kind: Deployment", "v1, kind: Secret"] {
        let text = format!("{{apiVersion: {other}, metadata: {{name: a}}}}");
        assert!(matches!(read(&text), Outcome::NotRead(_)), "{other}");
    }
    let list =
        "apiVersion: v1\nkind: ServiceAccountList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n";
    let Outcome::Items(items) = read(list) else { panic!("no list") };
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|i| i["kind"] == "ServiceAccount" && i["apiVersion"] == "v1"));
}
