//! A simulated proxy: what Envoy asks for and in which order, as a pure type; and what all proxies of a thread share.

pub mod board;
mod follow;
mod held;
pub mod nack;
pub mod proxy;
#[cfg(test)]
mod proxy_tests;
mod speak;
pub mod tally;
pub mod world;
