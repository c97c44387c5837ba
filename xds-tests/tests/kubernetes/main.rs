//! What landbridge does with real Kubernetes API servers, and what the servers of the tests do themselves.
//!
//! Needs the API server that `make setup` builds with Go; without it the tests are skipped with a loud line, except in CI.

mod authority;
mod charts;
mod credentials;
mod crossing;
mod events;
mod exporting;
mod failover;
mod fixture;
mod joining;
mod lab;
mod latency;
mod leading;
mod link;
mod outages;
mod plane;
mod reading;
mod restart;
mod rotating;
mod serving;
mod staleness;
mod tokens;
mod walkthrough;
mod watching;
mod webhooks;
mod world;
