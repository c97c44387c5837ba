//! A simulated proxy: what Envoy asks for and in which order, as a pure type; and what all proxies of a thread share.

pub mod board;
mod held;
pub mod nack;
pub mod proxy;
#[cfg(test)]
mod proxy_tests;
pub mod tally;
pub mod world;
