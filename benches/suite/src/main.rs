//! `make bench`: runs the scenarios one after the other, and writes `report.md` and `report.json`.

mod bed;
mod cargo_bench;
mod floor;
mod instructions;
mod machine;
mod process;
mod report;
mod scenarios;
mod soak;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{machine::Machine, report::Report, scenarios::Setting};

#[derive(Parser)]
#[command(about = "Landbridge's figures, each beside its floor", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios.
    Run {
        /// Only these.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Ten minutes of churn instead of one, and so on.
        #[arg(long)]
        long: bool,
        /// A tenth of the proxies, or less: to see whether all of it works. The figures are not those of the targets.
        #[arg(long, value_name = "DIVISOR", default_value_t = 1)]
        scale: usize,
        /// Where cargo builds; the report goes to its folder `bench`.
        #[arg(long, default_value = "target")]
        target: PathBuf,
    },
    /// List the scenarios.
    List,
    /// Churn with faults: killed servers, lost clusters, storms. Fails if a proxy ends with anything wrong.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 10)]
        minutes: usize,
        /// Simulated proxies.
        #[arg(long, default_value_t = 300)]
        proxies: usize,
        /// Services in two clusters.
        #[arg(long, default_value_t = 60)]
        services: usize,
        /// Where cargo builds.
        #[arg(long, default_value = "target")]
        target: PathBuf,
    },
    /// Count the instructions of the hot paths, and fail if one needs over 5 % more than its baseline.
    Instructions {
        /// The committed counts.
        #[arg(long, default_value = "benches/instructions.json")]
        baseline: PathBuf,
        /// Make what is counted the baseline.
        #[arg(long)]
        bless: bool,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Run { only, long, scale, target } => {
            let target = std::path::absolute(target)?;
            run(&only, &Setting { target, long, scale: scale.max(1) })
        }
        Command::List => {
            scenarios::ALL.iter().for_each(|s| println!("{:<16} {}", s.name, s.about));
            Ok(())
        }
        Command::Soak { minutes, proxies, services, target } => {
            let setting = Setting { target: std::path::absolute(target)?, long: false, scale: 1 };
            soak::run(&setting, soak::Size { minutes, proxies, services })
        }
        Command::Instructions { baseline, bless } => instructions::run(&baseline, bless),
    }
}

fn run(only: &[String], setting: &Setting) -> Result<()> {
    let chosen = scenarios::chosen(only)?;
    let directory = setting.target.join("bench");
    let mut report = Report { machine: Machine::read(), figures: Vec::new() };
    let mut failed = Vec::new();
    for (i, scenario) in chosen.iter().enumerate() {
        println!("bench: {} of {}: {}, {}", i + 1, chosen.len(), scenario.name, scenario.about);
        match (scenario.run)(setting, scenario.name) {
            Ok(figures) => report.figures.extend(figures),
            Err(error) => {
                eprintln!("bench: {} failed: {error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
        // After each, so that an interrupted run leaves what it has.
        report.write(&directory)?;
    }
    println!("\n{}\nbench: written to {}", report.markdown(), directory.join("report.md").display());
    // A missed target is a figure to look at; a scenario that did not run is a failure.
    if failed.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(failed.join(", "))).context("these scenarios failed")
    }
}
