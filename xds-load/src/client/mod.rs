//! A simulated proxy: what Envoy asks for and in which order, as a pure type; and what all proxies of a thread share.

pub mod board;
pub mod world;
