//! The subcommands: each a `clap` struct with a `run`.

pub mod bootstrap;
pub mod ca;
pub mod duration;
pub mod inspect;
pub mod serve;
pub mod token;
mod yaml;
