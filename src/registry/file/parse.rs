//! A file's bytes to objects and notes. Pure; hostile input gives notes, never a panic.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    model::{ClusterId, Object, ObjectKey},
    registry::{
        Severity,
        convert::{self, Finding, Outcome, Settings},
        yaml,
    },
};

/// Largest file that is read.
pub const MAX_BYTES: u64 = 16 << 20;
/// Most documents of one file.
pub const MAX_DOCUMENTS: usize = 20_000;

/// Values that the aliases of all documents of a file may expand to, about.
const REPLAYED_PER_FILE: usize = 1_000_000;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Its objects; of several definitions of the same object in one file, the first.
    pub objects: BTreeMap<ObjectKey, Definition>,
    /// Objects that it means to define, but that cannot be used as they are written.
    pub broken: BTreeSet<ObjectKey>,
    /// Some part could not be read, nor what it is about.
    pub opaque: bool,
    /// Objects of kinds that are not read, by `apiVersion/kind`.
    pub not_read: BTreeMap<String, usize>,
    /// What there is to say to people.
    pub notes: Vec<Note>,
    documents: HashMap<u128, Arc<Reading>>,
}

/// An object and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The object.
    pub object: Object,
    /// Line in the file, from 1.
    pub line: usize,
}

/// Something to say about a place in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Line in the file, from 1.
    pub line: usize,
    /// The object, if known.
    pub key: Option<ObjectKey>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub finding: Finding,
}

/// What one document says; lines count from the document's first, from 0.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    objects: Vec<(ObjectKey, Definition)>,
    broken: Vec<ObjectKey>,
    opaque: bool,
    not_read: Vec<String>,
    notes: Vec<Note>,
}

impl Parsed {
    /// A file of which nothing can be known; `finding` says why.
    pub fn unknown(finding: Finding) -> Self {
        Self {
            opaque: true,
            notes: vec![Note { line: 1, key: None, severity: Severity::Error, finding }],
            ..Self::default()
        }
    }

    /// Adds a document's reading that starts on `line` of the file.
    fn add(&mut self, line: usize, reading: &Reading) {
        self.notes.extend(reading.notes.iter().map(|n| Note { line: n.line + line, ..n.clone() }));
        self.broken.extend(reading.broken.iter().cloned());
        self.opaque |= reading.opaque;
        for kind in &reading.not_read {
            *self.not_read.entry(kind.clone()).or_default() += 1;
        }
        for (key, definition) in &reading.objects {
            let line = definition.line + line;
            match self.objects.get(key) {
                None => drop(self.objects.insert(key.clone(), Definition { line, ..definition.clone() })),
                // The same words twice are harmless.
                Some(first) if first.object == definition.object => {}
                Some(first) => {
                    let reason =
                        format!("is defined differently on line {} already; this one is ignored", first.line);
                    let finding = Finding::new("", reason, "remove one of the two");
                    let severity = Severity::Error;
                    self.notes.push(Note { line, key: Some(key.clone()), severity, finding });
                }
            }
        }
    }
}

/// Parses a file. Documents that are in `before` word for word are not parsed again.
pub fn parse(cluster: &ClusterId, settings: &Settings, bytes: &[u8], before: Option<&Parsed>) -> Parsed {
    if bytes.len() as u64 > MAX_BYTES {
        let reason = format!("is larger than {} MiB", MAX_BYTES >> 20);
        return Parsed::unknown(Finding::new("", reason, "split the file"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let reason = format!("is no UTF-8 text: line {line} has a byte that is none");
            return Parsed::unknown(Finding::new("", reason, "save the file as UTF-8"));
        }
    };
    let mut parsed = Parsed::default();
    let documents = yaml::documents(text);
    let replayed = (REPLAYED_PER_FILE / documents.len().max(1)).clamp(1_000, yaml::MAX_REPLAYED);
    for document in documents.iter().take(MAX_DOCUMENTS) {
        let hash = xxh3_128(document.text.as_bytes());
        let known =
            before.and_then(|b| b.documents.get(&hash)).or_else(|| parsed.documents.get(&hash)).cloned();
        let reading = known.unwrap_or_else(|| Arc::new(read(cluster, settings, document.text, replayed)));
        parsed.add(document.line, &reading);
        parsed.documents.insert(hash, reading);
    }
    if let Some(first) = documents.get(MAX_DOCUMENTS) {
        parsed.opaque = true;
        let reason = format!("has more than {MAX_DOCUMENTS} documents; the rest is not read");
        let finding = Finding::new("", reason, "split the file");
        parsed.notes.push(Note { line: first.line, key: None, severity: Severity::Error, finding });
    }
    parsed
}

fn read(cluster: &ClusterId, settings: &Settings, text: &str, replayed: usize) -> Reading {
    let mut reading = Reading::default();
    match yaml::parse_within(text, replayed) {
        Ok(value) => reading.add(cluster, settings, text, "", value),
        Err(error) => {
            reading.opaque = true;
            let finding = Finding::new(
                "",
                error.reason,
                "correct the YAML, often an indentation or a quote; until then the last good version stays",
            );
            let line = error.line - 1;
            reading.notes.push(Note { line, key: None, severity: Severity::Error, finding });
        }
    }
    reading
}

impl Reading {
    /// Adds the object at `path` of the document. Recursion is bounded by the nesting that YAML is read with.
    fn add(&mut self, cluster: &ClusterId, settings: &Settings, text: &str, path: &str, value: Value) {
        match convert::convert(cluster, settings, value) {
            Outcome::Object(key, object, warnings) => {
                self.warn(text, path, Some(&key), warnings);
                let line = yaml::line_of(text, path) - 1;
                self.objects.push((key, Definition { object, line }));
            }
            Outcome::Invalid(key, invalid) => {
                self.note(text, path, key.as_ref(), Severity::Error, *invalid.0);
                match key {
                    Some(key) => self.broken.push(key),
                    None => self.opaque = true,
                }
            }
            Outcome::Skipped(key, warnings) => self.warn(text, path, Some(&key), warnings),
            Outcome::NotRead(kind) => self.not_read.push(kind),
            Outcome::Items(items) => {
                let dot = if path.is_empty() { "" } else { "." };
                for (i, item) in items.into_iter().enumerate() {
                    self.add(cluster, settings, text, &format!("{path}{dot}items[{i}]"), item);
                }
            }
        }
    }

    fn warn(&mut self, text: &str, path: &str, key: Option<&ObjectKey>, warnings: Vec<Finding>) {
        for finding in warnings {
            self.note(text, path, key, Severity::Warning, finding);
        }
    }

    fn note(
        &mut self,
        text: &str,
        path: &str,
        key: Option<&ObjectKey>,
        severity: Severity,
        finding: Finding,
    ) {
        let line = yaml::line_of(text, &format!("{path}.{}", finding.field)) - 1;
        self.notes.push(Note { line, key: key.cloned(), severity, finding });
    }
}
