//! The xDS server: streams of proxies, fed by snapshots and secrets.
//!
//! ```text
//! request --> session (pure: subscription, delta | sotw, watch, order, nack) --> frame --> HTTP/2
//!                ^ snapshots of the proxy's class, secrets of its identity
//! ```
//!
//! `stream` moves the bytes, `server` listens, `node` reads who connects, `status` and `metrics` tell about it.

mod auth;
mod connections;
mod contents;
mod delta;
mod frame;
mod kind;
pub mod listener;
pub mod metrics;
mod nack;
mod names;
pub mod node;
mod order;
pub mod overload;
mod payload;
mod placeholder;
mod rate;
mod request;
pub mod secrets;
pub mod server;
mod session;
mod sotw;
pub mod status;
mod stream;
mod subscription;
mod watch;
mod watches;
mod wire;

pub use auth::{Access, Authenticate, Peer};
pub use contents::{Bundle, Bundles, Contents};
pub use frame::{Frame, FrameVersion, Nonce, Protocol};
pub use kind::Kind;
pub use names::{Names, SharedNames};
pub use order::PATIENCE;
pub use payload::Payload;
pub use request::{DeltaRequest, RequestError};
pub use session::{Heard, Limits, Session, Shared, Violation};
pub use subscription::Subscription;
pub use watch::{InFlight, Step, Watch};
