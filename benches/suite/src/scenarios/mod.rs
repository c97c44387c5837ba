//! What is measured. Each scenario is a name and a function that returns figures.

mod micro;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::report::Figure;

/// What scenarios need to know.
#[derive(Debug)]
pub struct Setting {
    /// Cargo's target directory.
    pub target: PathBuf,
}

/// A scenario.
pub struct Scenario {
    /// For `ONLY=` and in the report.
    pub name: &'static str,
    /// In one line.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Setting, &str) -> Result<Vec<Figure>>,
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario { name: "encode", about: "one load assignment from the tables", run: micro::run },
    Scenario {
        name: "event_to_bytes",
        about: "an endpoint flips: change to the bytes of a response",
        run: micro::run,
    },
    Scenario {
        name: "svid",
        about: "a certificate for a request, and a key with its certificate",
        run: micro::run,
    },
];

/// Those that `only` names, all if it names none.
pub fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in only {
        let known: Vec<_> = ALL.iter().map(|s| s.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no scenario is called {name}; there are {}",
            known.join(", ")
        );
    }
    Ok(ALL.iter().filter(|s| only.is_empty() || only.iter().any(|name| name == s.name)).collect())
}
