//! Where the world is read. Sources turn Kubernetes objects into [`crate::model::Change`]s: directories of YAML and API
//! servers, through the same conversion.
//!
//! ```text
//! files ------yaml--> documents --convert--> model objects --file::Contents--> Change (only what differs) --> pipeline
//! API servers -json-> objects ----/   \-- problems: object, reason, remedy     kube::View --> the same
//!                                                        \--> SourceStatus
//! ```
//!
//! Unknown is never empty: what cannot be read keeps its last good version, and a directory or API server that is away
//! makes its cluster stale, not empty.

pub mod convert;
pub mod durable;
pub mod file;
pub mod kube;
pub mod notices;
pub mod problem;
pub mod remote;
pub mod yaml;

pub use convert::Settings;
pub use durable::Snapshots;
pub use file::FileSource;
/// By a name that is not the client crate's.
pub use kube as kubernetes;
pub use kube::{Discovery, KubeSource};
pub use notices::Notices;
pub use problem::{Problem, Severity, SourceReport, SourceStatus, Sources};
pub use remote::{Events, Joined, RemoteSecrets};
