//! The server's side of a connection.

mod call;
mod connection;
mod core;
mod error;
mod incoming;
mod output;
mod patience;
mod reader;
mod ready;
mod request;
mod say;
mod sending;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    call::Answer,
    connection::Connection,
    error::{Error, Violation},
    incoming::{Incoming, Reset},
    ready::Handle,
};

/// How a connection is treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Streams at once.
    pub streams: u32,
    /// Bytes that a client may send on a stream before they are read.
    pub stream_window: u32,
    /// And on all streams together. No less than 65,535.
    pub connection_window: u32,
    /// Of what is sent, what waits for the socket; and at most one chunk more for each stream.
    pub output: usize,
    /// After this time without a byte the client is asked whether it is there.
    pub keepalive_interval: Duration,
    /// For how long its answer is waited for.
    pub keepalive_timeout: Duration,
    /// How long its calls have for their end when it was asked to leave ([`Handle::leave`]).
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 256 << 10,
            connection_window: 512 << 10,
            output: 64 << 10,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }
}
