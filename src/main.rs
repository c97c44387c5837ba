//! `landbridge`: crypto provider, parse, run.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything can open a TLS connection: there is one provider in the tree and it is this one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("landbridge: a TLS crypto provider was installed before main");
        return ExitCode::FAILURE;
    }
    match landbridge::args::Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line; a backtrace is for programmers, not for operators.
            eprintln!("landbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
