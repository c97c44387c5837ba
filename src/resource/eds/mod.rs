//! Load assignments: which endpoints a client gets, and why it does not get the others.
//!
//! ```text
//! endpoints -> choose (subset, cluster, node, network view, health)
//!           -> horizon (other networks: one member per gateway)
//!           -> locality (groups, priorities, weights) -> Assignment -> write (bytes), or pieces (bytes of each endpoint)
//! ```
//!
//! What endpoints have in common is judged once for all of them ([`member`]). [`assign`] answers for the bytes and for
//! `landbridge endpoints` alike.

pub mod assignment;
pub mod choose;
pub mod horizon;
pub mod locality;
pub mod member;
pub mod pieces;
mod write;

pub use assignment::{Assignment, assign, service};
pub use choose::Excluded;
pub use locality::Group;
pub use member::{Cohort, Member, Origin};
pub use pieces::{Collection, Pieces};
