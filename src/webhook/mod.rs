//! The validation webhook: API servers ask here before they store an object, so that `kubectl apply` of a broken one is refused
//! with the words that Events and `/debug/sourcez` would say of it.
//!
//! ```text
//!  API server --HTTPS--> server: bounds, HTTP/1.1 --a thread of its own--> review (pure): convert as sources do --> answer
//! ```
//!
//! Nothing here knows what is in force, and nothing waits for it: an object is judged by itself, as its source would.

mod metrics;
mod review;
mod server;

pub use self::{
    metrics::{Verdict, WebhookMetrics},
    review::Validator,
    server::serve,
};

/// On an object that is refused in any case, for asking whether objects are looked at.
pub const ALWAYS_REJECT: &str = "internal.istio.io/webhook-always-reject";
