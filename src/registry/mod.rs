//! Where the world is read. Sources turn Kubernetes objects into [`crate::model::Change`]s: directories of YAML now,
//! API servers through the same conversion.
//!
//! ```text
//! bytes --yaml--> documents --convert--> model objects --file::Contents--> Change (only what differs) --> pipeline
//!                     \------------------ problems: file, line, object, reason, remedy --> SourceStatus
//! ```
//!
//! Unknown is never empty: what cannot be read keeps its last good version, and a directory that is away makes its
//! cluster stale, not empty.

pub mod convert;
pub mod file;
pub mod problem;
pub mod yaml;

pub use convert::Settings;
pub use file::FileSource;
pub use problem::{Problem, Severity, SourceReport, SourceStatus};
