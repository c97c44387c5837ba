//! The subcommands: each a `clap` struct with a `run`.

pub mod admin;
pub mod bootstrap;
mod bytes;
pub mod ca;
pub mod cluster;
pub mod duration;
pub mod endpoints;
pub mod gateways;
pub mod inspect;
mod mcs;
pub mod operator;
pub mod proxy_status;
pub mod remote_clusters;
pub mod remote_secret;
mod rotation;
pub mod serve;
pub mod service_map;
mod stale_cluster;
pub mod table;
pub mod token;
mod token_issuers;
mod yaml;
