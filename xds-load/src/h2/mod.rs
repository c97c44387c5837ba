//! A small gRPC client on its own HTTP/2: little memory and time per connection, so that the client is not what is measured.
//!
//! ```text
//! Connection (socket, TLS) ── bytes ──► Session (frames, windows) ── Event ──► the one owner of the connection
//! ```
//!
//! A connection has one owner, who opens streams, sends on them and asks for what happened next, on any of them. Idle, it holds
//! no buffers: reads go into memory that all connections of a thread share.

mod connection;
pub(crate) mod grpc;
mod session;
#[cfg(test)]
mod session_tests;
mod stream;
mod tls;

use std::{io, net::SocketAddr};

pub use self::{
    connection::{Connection, Target},
    grpc::{Status, Unreadable},
    tls::{Tls, TlsError, TlsFiles},
};

/// A call on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// What happens on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A complete message: decode it.
    Message(Vec<u8>),
    /// The stream is over, by the server: open another, or give up.
    Closed(Status),
}

/// Why a connection cannot be used (any more). All of its streams have ended with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("cannot connect to {to}: {error}")]
    Connect {
        /// Where.
        to: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// No answer to the attempt.
    #[error(
        "cannot connect to {to}: no answer within {seconds} s; is the address right, or the server overloaded?"
    )]
    Slow {
        /// Where.
        to: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// The handshake failed.
    #[error("TLS with {to} failed: {error}; check --ca, --server-name and --client-cert")]
    Tls {
        /// With whom.
        to: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The server said what HTTP/2 does not allow.
    #[error("the server violates HTTP/2: {0}")]
    Protocol(&'static str),
    /// The server sent a message that cannot be taken.
    #[error("the server sent a message that is {}", match .0 {
        Unreadable::Compressed => "compressed, though no compression was offered".to_owned(),
        Unreadable::TooLarge(bytes) => format!("{bytes} bytes long; the limit is 256 MiB"),
    })]
    Message(Unreadable),
    /// The server said GOAWAY, or all ids are used: new calls need another connection.
    #[error("the connection takes no more calls")]
    NoMoreStreams,
    /// A unary call was refused.
    #[error("the call failed: {0}")]
    Status(Status),
}
