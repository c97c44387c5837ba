//! Floors: what the machine allows, to hold measurements against.
//!
//! [`serve`] is a control plane without a control plane: no HTTP/2 library, no registry, no per-proxy work. It writes finished bytes
//! to sockets and reads what comes back, on one thread. It speaks as much of ADS as the clients of this crate need, so that the
//! same clients drive it and a real server:
//!
//! ```text
//! client ── asks for clusters ──► one cluster        (padded: the "full configuration" of so many bytes)
//!        ── asks for endpoints ─► its assignment     (padded)
//!        ── anything else ──────► nothing, empty
//! Pusher ── UDP: push 7 ────────► the assignment with marker 7 to every stream, one write each; ACKs are counted
//! ```
//!
//! [`crypto`] measures what signing needs.

pub mod command;
mod connection;
pub mod cpu;
mod crypto;
mod frames;
mod pusher;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use self::{
    crypto::{Rate, measure},
    frames::{ASSIGNMENT, Sizes},
    pusher::{PushError, PushReport, Pusher},
    serve::{Floor, Totals},
};
