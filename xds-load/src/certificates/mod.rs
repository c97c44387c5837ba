//! Certificates under load: Istio's `CreateCertificate`, and keys with certificates over SDS.
//!
//! ```text
//! Pool (keys and CSRs, made before the clock starts) ─┐
//! Credentials (tokens, client certificates) ──────────┼─► requests ── CreateCertificate ──► Answers ──► check, after the clock
//!                                                     └─► secrets ─── SDS over ADS ───────► Delivered ┘
//! ```
//!
//! What is asked for is checked in full and afterwards, as it costs as much as signing: each chain leads to the root, each
//! certificate has the identity that was proved and the key that was sent.

mod check;
pub mod command;
mod credentials;
mod message;
mod pool;
mod requests;
mod secrets;
#[cfg(test)]
mod tests;
mod timing;

pub use self::{
    check::{Checked, Wrong, check},
    credentials::{Caller, Credentials, CredentialsError, TokenKey},
    pool::Pool,
    requests::{Answer, Answers, Pace, Requests},
    secrets::{Delivery, SecretsReport, Watchers},
    timing::{Latencies, Recorder},
};
