//! Objects as an API server's watch sends them: a line of JSON for each change. The kinds that come by the hundred thousand
//! are read straight into what is kept of them, without a tree of values between; what is checked and said about them
//! is the same as for files.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    Invalid, Outcome, Result, Warnings, at_path, endpoint_slice, key, pod, strings::Strings, wire::Str,
};
use crate::model::{ClusterId, Kind, Object, ObjectKey};

/// Reads one cluster's watches.
#[derive(Debug)]
pub struct Decoder {
    cluster: ClusterId,
    strings: Strings,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is there, and looks like this.
    Now(Outcome),
    /// It is gone.
    Gone(ObjectKey),
    /// Nothing about an object: `BOOKMARK`, `ERROR`.
    Other(Box<str>),
}

#[derive(Deserialize)]
struct Line<'a, T> {
    #[serde(borrow)]
    r#type: Str<'a>,
    object: T,
}

/// Only the first half of a [`Line`].
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    r#type: Str<'a>,
}

impl Decoder {
    /// For a cluster's watches.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, strings: Strings::default() }
    }

    /// Reads a line of a watch of EndpointSlices.
    pub fn slice(&mut self, line: &str) -> Result<Event> {
        let Line { r#type, object } = match parse::<endpoint_slice::Wire>(line)? {
            Parsed::Object(line) => line,
            Parsed::Other(kind) => return Ok(Event::Other(kind)),
        };
        let Self { cluster, strings } = self;
        let metadata = &object.metadata;
        let kind = Kind::EndpointSlice;
        let key = match key(cluster, kind, metadata.namespace.as_deref(), metadata.name.as_deref(), strings) {
            Ok(key) => key,
            Err(invalid) => return Ok(Event::Now(Outcome::Invalid(None, invalid))),
        };
        if &*r#type == "DELETED" {
            return Ok(Event::Gone(key));
        }
        let mut warnings = Warnings::new();
        let converted = endpoint_slice::convert(&key, object, strings, &mut warnings);
        Ok(Event::Now(match converted {
            Ok(Some(slice)) => Outcome::Object(key, Object::EndpointSlice(Arc::new(slice)), warnings),
            Ok(None) => Outcome::Skipped(warnings),
            Err(invalid) => Outcome::Invalid(Some(key), invalid),
        }))
    }

    /// Reads a line of a watch of Pods.
    pub fn pod(&mut self, line: &str) -> Result<Event> {
        let Line { r#type, object } = match parse::<pod::Wire>(line)? {
            Parsed::Object(line) => line,
            Parsed::Other(kind) => return Ok(Event::Other(kind)),
        };
        let Self { cluster, strings } = self;
        let metadata = &object.metadata;
        let kind = Kind::Pod;
        let key = match key(cluster, kind, metadata.namespace.as_deref(), metadata.name.as_deref(), strings) {
            Ok(key) => key,
            Err(invalid) => return Ok(Event::Now(Outcome::Invalid(None, invalid))),
        };
        if &*r#type == "DELETED" {
            return Ok(Event::Gone(key));
        }
        Ok(Event::Now(match pod::convert(&key, object, strings) {
            Ok(pod) => Outcome::Object(key, Object::Pod(Arc::new(pod)), Warnings::new()),
            Err(invalid) => Outcome::Invalid(Some(key), invalid),
        }))
    }
}

enum Parsed<'a, T> {
    Object(Line<'a, T>),
    Other(Box<str>),
}

/// The path of a mistake is looked for only when there is one.
fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<Parsed<'a, T>> {
    match serde_json::from_str::<Line<T>>(line) {
        Ok(parsed) if matches!(&*parsed.r#type, "ADDED" | "MODIFIED" | "DELETED") => {
            Ok(Parsed::Object(parsed))
        }
        Ok(parsed) => Ok(Parsed::Other((*parsed.r#type).into())),
        // The object of an error is a Status.
        Err(_) => match serde_json::from_str::<Head>(line) {
            Ok(head) if !matches!(&*head.r#type, "ADDED" | "MODIFIED" | "DELETED") => {
                Ok(Parsed::Other((*head.r#type).into()))
            }
            _ => Err(mistake::<T>(line)),
        },
    }
}

fn mistake<'a, T: Deserialize<'a>>(line: &'a str) -> Invalid {
    let mut json = serde_json::Deserializer::from_str(line);
    match serde_path_to_error::deserialize::<_, Line<T>>(&mut json) {
        Err(error) => at_path(error),
        Ok(_) => Invalid::new("", "is followed by something else", "send one object a line"),
    }
}
