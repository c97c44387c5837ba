//! The certificate authority: who signs, what is signed, and how both change while running.
//!
//! ```text
//! cacerts directory or state directory -> authority -> live (reloads) -> watch::Receiver<Arc<Authority>>
//!     -> svid (keys and certificates of workloads, for SDS) -> secret (bytes of the SDS resource)
//!     -> service (signs the requests of Istio's agents)
//!     -> server_cert (the certificate and the client verification of our own port 15012)
//!     -> client_cert (ourselves as a client of workloads)
//! ```

pub mod authority;
pub mod cacerts;
pub mod cert;
pub mod client_cert;
pub mod csr;
mod der;
pub mod issue;
pub mod key;
pub mod live;
pub mod metrics;
pub mod secret;
pub mod self_signed;
pub mod server_cert;
pub mod service;
pub mod signers;
pub mod svid;
#[cfg(test)]
pub(crate) mod testing;

pub use authority::{Authority, CaError};
