//! Directories of Kubernetes YAML as a source of changes, with no Kubernetes.
//!
//! ```text
//! inotify --events--> Watch (coalesce, wait for writers) --paths--> Reader: list, read what differs, parse,
//!     compare with what was sent --Batch--> pipeline                    (every 30 s without an event, too)
//! ```
//!
//! What is believed, and when:
//! - An object that appears or changes is sent at once; one that is missing, once its file has been still for 20 ms.
//! - An object that cannot be used any more keeps its last good version.
//! - A file that is gone takes its objects along. A file or directory that cannot be read takes nothing along.
//! - A root that is gone, is no directory or cannot be read makes the cluster stale, and nothing is removed.
//! - A root that held objects and is suddenly empty is taken for an unmounted volume: stale. If it is still the same
//!   directory (device and inode), its emptiness is believed after 10 s; if it is another one, never.
//!
//! Files behind symbolic links to outside of the directory are read, but their changes are only seen by the rescan.

mod contents;
mod listing;
mod parse;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod watch;

use crate::{model::ClusterId, registry::Settings};

pub use self::{
    contents::Contents,
    parse::{Definition, MAX_BYTES, MAX_DOCUMENTS, Note, Parsed},
    source::{FileSource, SourceError, Timing},
};

/// Parses the bytes of one file with default settings: for tools and fuzzing. Any input is fine.
pub fn parse(bytes: &[u8]) -> Parsed {
    parse::parse(&ClusterId::from("cluster"), &Settings::default(), bytes, None)
}
