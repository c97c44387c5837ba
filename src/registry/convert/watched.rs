//! Objects as an API server sends them: a line of JSON for each change of a watch, a page of items for a list. The kinds
//! that come by the hundred thousand are read straight into what is kept of them, without a tree of values between; what
//! is checked and said about them is the same as for files.

use std::{str, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Invalid, Outcome, Result, Settings, Warnings,
    adopt::adopt,
    at_path, endpoint_slice, key, object, pod,
    strings::Strings,
    wire::{Str, or_empty},
};
use crate::model::{ClusterId, Kind, Object, ObjectKey};

/// Reads one cluster's lists and watches.
#[derive(Debug)]
pub struct Decoder {
    cluster: ClusterId,
    settings: Settings,
    strings: Strings,
}

/// What a line says, and the version of the collection that it brings.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// `metadata.resourceVersion`, a number that only grows while the cluster's storage is the same; 0 if there is none.
    pub version: u64,
    /// What happened.
    pub event: Event,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is there, and looks like this.
    Now(Outcome),
    /// It is gone.
    Gone(ObjectKey),
    /// Everything up to the version was sent. With `listed`, this was the last object of a streamed list.
    Bookmark {
        /// The annotation `k8s.io/initial-events-end` is there.
        listed: bool,
    },
    /// The watch is over.
    Error(Status),
    /// A type of event that is not known: pass over it.
    Other(Box<str>),
}

/// Why a request failed, as API servers say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// HTTP's number.
    pub code: u16,
    /// A word for programs: `Expired`, `Forbidden`.
    pub reason: Box<str>,
    /// A sentence for people.
    pub message: Box<str>,
    /// Further words.
    pub details: Option<Details>,
}

/// Further words of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    /// When to ask again.
    pub retry_after_seconds: Option<u32>,
    /// Words for programs.
    pub causes: Vec<Cause>,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// A word for programs: `ResourceVersionTooLarge`.
    pub reason: Box<str>,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<'a> {
    /// Of the whole list.
    pub version: u64,
    /// Where the next page begins; empty after the last.
    pub next: Box<str>,
    /// As text: read each with [`Decoder::item`].
    pub items: Vec<&'a RawValue>,
}

/// `metadata` of anything, as far as it says what and when.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    namespace: Option<Str<'a>>,
    #[serde(borrow)]
    resource_version: Option<Str<'a>>,
    annotations: Option<Annotations>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

/// An object of which only the metadata is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Partial<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Wire<'a, T> {
    #[serde(borrow)]
    r#type: Str<'a>,
    object: T,
}

/// What the decoder needs of every object.
trait Named {
    fn name(&self) -> (Option<&str>, Option<&str>);
    fn version(&self) -> Option<&str>;
}

impl Decoder {
    /// For a cluster's lists and watches.
    pub fn new(cluster: ClusterId, settings: Settings) -> Self {
        Self { cluster, settings, strings: Strings::default() }
    }

    /// Reads a line of a watch of objects of this kind. What cannot be read as an event of an object that has a name is an
    /// error: something else than an API server is talking.
    pub fn line(&mut self, kind: Kind, line: &[u8]) -> Result<Line> {
        match kind {
            Kind::EndpointSlice => self.event::<endpoint_slice::Wire>(kind, line, Self::slice),
            Kind::Pod => self.event::<pod::Wire>(kind, line, Self::pod),
            _ => self.event::<Value>(kind, line, Self::tree),
        }
    }

    /// Reads an item of a list; its version, and what became of it.
    pub fn item(&mut self, kind: Kind, item: &RawValue) -> (u64, Outcome) {
        let text = item.get();
        match kind {
            Kind::EndpointSlice => self.of_item::<endpoint_slice::Wire>(kind, text, Self::slice),
            Kind::Pod => self.of_item::<pod::Wire>(kind, text, Self::pod),
            _ => self.of_item::<Value>(kind, text, Self::tree),
        }
    }

    /// Reads only what an item of a list is called, and its version.
    pub fn name(&mut self, kind: Kind, item: &RawValue) -> Result<(ObjectKey, u64)> {
        let partial: Partial = serde_json::from_str(item.get()).map_err(unreadable)?;
        Ok((self.key(kind, &partial)?, version(partial.version())))
    }

    /// Takes in an object of this cluster that was not read just now.
    pub fn adopt(&mut self, key: &mut ObjectKey, object: &mut Object) {
        adopt(key, object, &mut self.strings);
    }

    fn event<'a, T: Deserialize<'a> + Named>(
        &mut self,
        kind: Kind,
        line: &'a [u8],
        convert: fn(&mut Self, ObjectKey, T) -> Outcome,
    ) -> Result<Line> {
        // Looked at once, and not text by text. One that is not in UTF-8 may be readable all the same.
        let read = match str::from_utf8(line) {
            Ok(text) => serde_json::from_str::<Wire<T>>(text),
            Err(_) => serde_json::from_slice(line),
        };
        let Wire { r#type, object } = match read {
            Ok(wire) if is_change(&wire.r#type) => wire,
            Ok(_) => return other(line),
            // The object of an error is a Status. Of anything else, who it is may still be readable.
            Err(_) => return self.damaged::<T>(kind, line),
        };
        let version = version(object.version());
        let event = match self.key(kind, &object) {
            Ok(key) if &*r#type == "DELETED" => Event::Gone(key),
            Ok(key) => Event::Now(convert(self, key, object)),
            // Something is gone, and nobody says what: only a list can tell.
            Err(invalid) if &*r#type == "DELETED" => return Err(invalid),
            Err(invalid) => Event::Now(Outcome::Invalid(None, invalid)),
        };
        Ok(Line { version, event })
    }

    /// A line whose object is not what its kind should be. The path of the mistake is looked for only now.
    fn damaged<'a, T: Deserialize<'a>>(&mut self, kind: Kind, line: &'a [u8]) -> Result<Line> {
        let wire: Wire<Partial> = match serde_json::from_slice(line) {
            Ok(wire) => wire,
            Err(error) => return other(line).map_err(|_| unreadable(error)),
        };
        if !is_change(&wire.r#type) {
            return other(line);
        }
        let version = version(wire.object.version());
        let key = match self.key(kind, &wire.object) {
            Ok(key) if &*wire.r#type == "DELETED" => return Ok(Line { version, event: Event::Gone(key) }),
            key => key.ok(),
        };
        let mut json = serde_json::Deserializer::from_slice(line);
        let invalid = match serde_path_to_error::deserialize::<_, Wire<T>>(&mut json) {
            Err(error) => without_object(at_path(error)),
            Ok(_) => Invalid::new("", "is followed by something else", "report this"),
        };
        Ok(Line { version, event: Event::Now(Outcome::Invalid(key, invalid)) })
    }

    fn of_item<'a, T: Deserialize<'a> + Named>(
        &mut self,
        kind: Kind,
        text: &'a str,
        convert: fn(&mut Self, ObjectKey, T) -> Outcome,
    ) -> (u64, Outcome) {
        let object: T = match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) => {
                let partial: Partial = serde_json::from_str(text).unwrap_or_default();
                let mut json = serde_json::Deserializer::from_str(text);
                let invalid = match serde_path_to_error::deserialize::<_, T>(&mut json) {
                    Err(error) => at_path(error),
                    Ok(_) => unreadable(error),
                };
                let key = self.key(kind, &partial).ok();
                return (version(partial.version()), Outcome::Invalid(key, invalid));
            }
        };
        let version = version(object.version());
        match self.key(kind, &object) {
            Ok(key) => (version, convert(self, key, object)),
            Err(invalid) => (version, Outcome::Invalid(None, invalid)),
        }
    }

    fn key(&mut self, kind: Kind, object: &impl Named) -> Result<ObjectKey> {
        let (namespace, name) = object.name();
        key(&self.cluster, kind, namespace, name, &mut self.strings)
    }

    fn slice(&mut self, key: ObjectKey, wire: endpoint_slice::Wire) -> Outcome {
        let mut warnings = Warnings::new();
        match endpoint_slice::convert(&key, wire, &mut self.strings, &mut warnings) {
            Ok(Some(slice)) => Outcome::Object(key, Object::EndpointSlice(Arc::new(slice)), warnings),
            Ok(None) => Outcome::Skipped(key, warnings),
            Err(invalid) => Outcome::Invalid(Some(key), invalid),
        }
    }

    fn pod(&mut self, key: ObjectKey, wire: pod::Wire) -> Outcome {
        match pod::convert(&key, wire, &mut self.strings) {
            Ok(pod) => Outcome::Object(key, Object::Pod(Arc::new(pod)), Warnings::new()),
            Err(invalid) => Outcome::Invalid(Some(key), invalid),
        }
    }

    fn tree(&mut self, key: ObjectKey, value: Value) -> Outcome {
        let mut warnings = Warnings::new();
        match object(&key, &self.settings, value, &mut warnings) {
            Ok(Some(object)) => Outcome::Object(key, object, warnings),
            Ok(None) => Outcome::Skipped(key, warnings),
            Err(invalid) => Outcome::Invalid(Some(key), invalid),
        }
    }
}

/// Reads the envelope of a list.
pub fn page(body: &[u8]) -> Result<Page<'_>> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        metadata: ListMeta<'a>,
        #[serde(borrow, deserialize_with = "or_empty")]
        items: Vec<&'a RawValue>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct ListMeta<'a> {
        #[serde(borrow)]
        resource_version: Option<Str<'a>>,
        #[serde(borrow)]
        r#continue: Option<Str<'a>>,
    }
    let Wire { metadata, items } = serde_json::from_slice(body).map_err(unreadable)?;
    // Something that has no version is no answer of an API server, and must not pass for an empty list.
    let version = version(metadata.resource_version.as_deref());
    if version == 0 {
        return Err(Invalid::new("metadata.resourceVersion", "a list has no version", "report this"));
    }
    let next = metadata.r#continue.as_deref().unwrap_or_default().into();
    Ok(Page { version, next, items })
}

fn is_change(kind: &str) -> bool {
    matches!(kind, "ADDED" | "MODIFIED" | "DELETED")
}

/// A line that is not about an object.
fn other(line: &[u8]) -> Result<Line> {
    let Wire { r#type, object } = serde_json::from_slice::<Wire<&RawValue>>(line).map_err(unreadable)?;
    match &*r#type {
        "BOOKMARK" => {
            let Partial { metadata } = serde_json::from_str(object.get()).map_err(unreadable)?;
            let listed =
                metadata.annotations.is_some_and(|a| a.initial_events_end.as_deref() == Some("true"));
            let version = version(metadata.resource_version.as_deref());
            Ok(Line { version, event: Event::Bookmark { listed } })
        }
        "ERROR" => {
            let status = serde_json::from_str(object.get()).map_err(unreadable)?;
            Ok(Line { version: 0, event: Event::Error(status) })
        }
        "ADDED" | "MODIFIED" | "DELETED" => Err(Invalid::new("", "is not an object", "report this")),
        _ => Ok(Line { version: 0, event: Event::Other((*r#type).into()) }),
    }
}

fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn unreadable(error: serde_json::Error) -> Invalid {
    Invalid::new("", error.to_string(), "see what is between landbridge and the API server")
}

/// A path in the object, not in the line.
fn without_object(mut invalid: Invalid) -> Invalid {
    if let Some(field) = invalid.0.field.strip_prefix("object.") {
        invalid.0.field = field.to_owned();
    }
    invalid
}

// === impl Named ===

impl Named for endpoint_slice::Wire<'_> {
    fn name(&self) -> (Option<&str>, Option<&str>) {
        (self.metadata.namespace.as_deref(), self.metadata.name.as_deref())
    }

    fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

impl Named for pod::Wire<'_> {
    fn name(&self) -> (Option<&str>, Option<&str>) {
        (self.metadata.namespace.as_deref(), self.metadata.name.as_deref())
    }

    fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

impl Named for Partial<'_> {
    fn name(&self) -> (Option<&str>, Option<&str>) {
        (self.metadata.namespace.as_deref(), self.metadata.name.as_deref())
    }

    fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

impl Named for Value {
    fn name(&self) -> (Option<&str>, Option<&str>) {
        let field = |name: &str| self.get("metadata")?.get(name)?.as_str();
        (field("namespace"), field("name"))
    }

    fn version(&self) -> Option<&str> {
        self.get("metadata")?.get("resourceVersion")?.as_str()
    }
}
