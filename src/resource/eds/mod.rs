//! Load assignments: which endpoints a client gets, and why it does not get the others.
//!
//! ```text
//! endpoints -> choose (subset, cluster, node, network view, health)
//!           -> horizon (other networks: one member per gateway)
//!           -> locality (groups, priorities, weights) -> Assignment -> bytes
//! ```
//!
//! [`assign`] answers for the bytes and for `landbridge endpoints` alike.

pub mod assignment;
pub mod choose;
pub mod horizon;
pub mod locality;

pub use assignment::{Assignment, assign, service};
pub use choose::Excluded;
pub use horizon::{Member, Origin};
pub use locality::Group;
