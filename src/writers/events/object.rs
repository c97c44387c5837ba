//! Events as the API server takes them. Pure.
//!
//! `events.k8s.io/v1` and not `v1`: there an Event that comes again is one Event with a series by the API's own rules, and its
//! text, reason and object cannot be changed afterwards. Both are one store: `kubectl describe` and `kubectl events` show it.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use xxhash_rust::xxh3::xxh3_64;

use super::{super::election::micros, plan::Note};
use crate::registry::{Severity, kubernetes::Reference};

/// Where Events of objects without a namespace are.
const DEFAULT: &str = "default";
/// With the hash behind it, the longest name that an Event may have is far.
const LONGEST_NAME: usize = 200;

/// The path of the collection that the Events of an object are in.
pub fn collection(of: &Reference) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{}/events", namespace(of))
}

fn namespace(of: &Reference) -> &str {
    if of.namespace.is_empty() { DEFAULT } else { &of.namespace }
}

/// The same for whoever says the same of the same object, so that a new leader goes on with the Event of the one before it.
pub fn name(of: &Reference, note: &Note) -> String {
    let text = format!("{}\0{}\0{}\0{}", of.uid, of.kind, reason(note.severity), note.text);
    let object: String = of.name.chars().take(LONGEST_NAME).collect();
    format!(
        "{}.{:016x}",
        object.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()),
        xxh3_64(text.as_bytes())
    )
}

/// An Event that was not there.
pub fn new(of: &Reference, note: &Note, times: u32, instance: &str, now: SystemTime) -> Value {
    let instance: String = instance.chars().take(128).collect();
    let mut object = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": name(of, note), "namespace": namespace(of) },
        "regarding": { "apiVersion": of.api_version, "kind": of.kind, "namespace": of.namespace,
            "name": of.name, "uid": of.uid },
        "type": "Warning", "reason": reason(note.severity), "action": "Read", "note": note.text,
        "reportingController": "landbridge", "reportingInstance": instance, "eventTime": micros(now),
    });
    // A series is of two or more.
    if times > 1 {
        object["series"] = series(times, now)["series"].clone();
    }
    object
}

/// What changes of one that is there.
pub fn series(count: u32, now: SystemTime) -> Value {
    json!({ "series": { "count": count.max(2), "lastObservedTime": micros(now) } })
}

/// How often an Event says that it was seen, and how long ago it last was.
pub fn seen(event: &Value, now: SystemTime) -> (u32, Duration) {
    let count = event.pointer("/series/count").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
    let last = event.pointer("/series/lastObservedTime").or(event.get("eventTime"));
    let last = last.and_then(Value::as_str).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let last = last.map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
    (count.unwrap_or(1), now.duration_since(last).unwrap_or_default())
}

/// A word, as it is usual.
fn reason(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "NotApplied",
        Severity::Warning => "PartlyApplied",
    }
}
