//! HTTP/2 (RFC 9113) for many connections that are idle most of the time.
//!
//! ```text
//! socket ── bytes ──► Reader ── frames ──► Core: streams, windows ──► your call ── Incoming
//! socket ◄── Output ◄── frames ◄── Core ◄── chunks ◄── your response's body
//! ```
//!
//! A connection is one future with everything that happens on it: no task, no channel and no buffer for a stream. Idle, it
//! keeps no memory for bytes. Bodies are shared [`bytes::Bytes`], which go to the socket without being copied.
//!
//! What is here is what gRPC needs: no push, no priorities, no upgrade, no CONNECT.

pub mod alarm;
mod fetch;
pub mod frame;
pub mod hpack;
mod huffman;
pub mod scratch;
pub mod server;

pub use fetch::fetch;
