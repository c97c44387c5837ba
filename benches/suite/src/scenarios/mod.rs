//! What is measured. Each scenario is a name and a function that returns figures.

mod certificates;
mod changes;
mod configuration;
mod growth;
mod micro;
mod replicas;
mod streams;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::report::Figure;

/// What scenarios need to know.
#[derive(Debug)]
pub struct Setting {
    /// Cargo's target directory.
    pub target: PathBuf,
    /// Run at the lengths that the targets name, such as ten minutes of churn; else for a minute at most.
    pub long: bool,
    /// Divides the number of proxies: 1 for figures that count, more to see quickly whether all of it works.
    pub scale: usize,
}

impl Setting {
    /// A binary of this workspace, built for release.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("release").join(name);
        ensure!(path.is_file(), "{} is not there: run `make bench`, which builds it", path.display());
        Ok(path)
    }

    /// So many proxies, or fewer in a quick run.
    pub fn proxies(&self, full: usize) -> usize {
        (full / self.scale).max(1)
    }
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

const fn scenario(
    name: &'static str,
    about: &'static str,
    run: fn(&Setting, &str) -> Result<Vec<Figure>>,
) -> Scenario {
    Scenario { name, about, run }
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    scenario("memory", "10,000 idle TLS streams with 100 subscriptions each", streams::memory),
    scenario("flip", "an endpoint flips: 1,000 services, 2,000 proxies of which 40 see it", changes::flip),
    scenario("fanout", "one changed 2 KiB assignment to 10,000 streams", changes::fanout),
    scenario("scoped", "full configuration for 2,000 proxies in 20 scope classes", configuration::scoped),
    scenario(
        "unscoped",
        "full configuration and one endpoint's change: 1,000 proxies see 1,000 services",
        configuration::unscoped,
    ),
    scenario("new-service", "a new service, which 1,000 proxies see", changes::new_service),
    scenario(
        "large-service",
        "one of 5,000 endpoints changes, which 2,000 proxies see",
        changes::large_service,
    ),
    scenario("clusters", "one of 3,186 clusters changes", changes::clusters),
    scenario("restart", "the server is killed under 10,000 TLS streams", streams::restart),
    scenario("churn", "10,000 proxies with 20 subscriptions, 100 pod changes a second", changes::churn),
    scenario("slow-readers", "1,000 of 2,000 proxies stop reading under churn", streams::slow_readers),
    scenario("replicas", "one of three replicas is killed under 9,000 streams", replicas::killed),
    scenario("svid-requests", "certificates through CreateCertificate", certificates::requests),
    scenario(
        "svid-requests-rsa",
        "the same, signed with istiod's kind of key: RSA-2048",
        certificates::requests_rsa,
    ),
    scenario("svid-rotation", "10,000 identities get new certificates over SDS", certificates::rotation),
    scenario("growth", "instructions of one change as the mesh grows", growth::run),
    scenario("encode", "one load assignment from the tables", micro::run),
    scenario(
        "event_to_bytes",
        "an endpoint's flip through the pipeline into one session's bytes",
        micro::run,
    ),
    scenario("builders", "clusters, listeners and routes from the tables", micro::run),
    scenario("ingest", "endpoint slices from watch lines into the registry", micro::ingest),
    scenario("svid", "one certificate", micro::run),
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
