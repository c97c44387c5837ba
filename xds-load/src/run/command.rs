//! `xds-load run`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::scenario::{Pace, Phase, Scenario, TlsSettings};
use crate::{
    client::proxy::Protocol,
    mesh::{api::Api, churn::Script},
    report,
};

/// Drives a control plane with simulated proxies. Flags win against the scenario.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// A YAML file that says what to do; all fields have defaults, and most are flags, too.
    scenario: Option<PathBuf>,
    /// HOST:PORT of the control plane (default 127.0.0.1:15010), or of several replicas, separated by commas.
    #[arg(long)]
    server: Option<String>,
    /// The server's process, for its CPU and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Speak TLS, and do not check the server's certificate unless --ca is given.
    #[arg(long)]
    tls: bool,
    /// Speak TLS; roots of the server's certificate, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak TLS; the name in the server's certificate, if it is not the host of --server.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Speak TLS; the client's certificate chain, as PEM.
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// A file with a token, sent as `authorization: Bearer …`; read again for each stream.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// More metadata of requests.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// State of the world or Delta (default).
    #[arg(long)]
    protocol: Option<Protocol>,
    /// How many proxies (default 100).
    #[arg(long)]
    proxies: Option<usize>,
    /// Proxies on one connection (default 1).
    #[arg(long, value_name = "N")]
    streams_per_connection: Option<usize>,
    /// Threads that drive proxies (default 1).
    #[arg(long)]
    threads: Option<usize>,
    /// Draws what is drawn.
    #[arg(long)]
    seed: Option<u64>,
    /// Connect so many in a second, whatever the server does.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Connect so many at a time (default 64).
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    in_flight: Option<usize>,
    /// Connect all at once.
    #[arg(long, conflicts_with_all = ["rate", "in_flight"])]
    storm: bool,
    /// `sidecar` or `router`.
    #[arg(long)]
    kind: Option<String>,
    /// So many of the proxies are gateways.
    #[arg(long, value_name = "N")]
    gateways: Option<usize>,
    /// Namespaces of the proxies.
    #[arg(long, value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Clusters of the proxies.
    #[arg(long, value_delimiter = ',')]
    clusters: Vec<String>,
    /// Their networks, one for each cluster.
    #[arg(long, value_delimiter = ',')]
    networks: Vec<String>,
    /// Localities of the proxies, as REGION/ZONE/SUBZONE.
    #[arg(long, value_delimiter = ',')]
    localities: Vec<String>,
    /// A set of labels, as a=1,b=2; each --labels is another set.
    #[arg(long)]
    labels: Vec<String>,
    /// Service account of the proxies.
    #[arg(long)]
    service_account: Option<String>,
    /// More metadata of the nodes.
    #[arg(long = "metadata", value_name = "NAME=VALUE")]
    metadata: Vec<String>,
    /// What pilot-agent says in ISTIO_VERSION; empty: a plain Envoy.
    #[arg(long)]
    istio_version: Option<String>,
    /// Types that the proxies follow: cds, eds, leds, sds, lds, rds, vhds (default: all but sds).
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Follow these names instead of what CDS and LDS lead to: TYPE:NAME, or TYPE:@FILE with a name in each line.
    #[arg(long, value_delimiter = ',', value_name = "TYPE:NAME")]
    subscribe: Vec<String>,
    /// Each proxy draws so many of --subscribe.
    #[arg(long, value_name = "N")]
    draw: Option<usize>,
    /// Each proxy follows the endpoints of so many of its clusters.
    #[arg(long, value_name = "N")]
    follow_clusters: Option<usize>,
    /// Refuse responses: every:N, or cds:REGEX, eds:REGEX … any:REGEX (resources by name).
    #[arg(long)]
    nack: Option<String>,
    /// So many proxies stop reading once they are configured.
    #[arg(long, value_name = "N")]
    stop_reading: Option<usize>,
    /// The mesh that the server reads (`xds-load mesh generate`): proxies are its pods, and churn changes it.
    #[arg(long, value_name = "DIR")]
    mesh: Option<PathBuf>,
    /// HOST:PORT of a `kubectl proxy` (one for each cluster, separated by commas) whose API server holds the mesh (`xds-load mesh
    /// generate --api`): changes go there, too.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    api: Vec<Api>,
    /// After connecting, do nothing for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<f64>,
    /// Then change so many pods of the mesh in a second.
    #[arg(long, value_name = "PER_SECOND", requires = "mesh")]
    churn: Option<f64>,
    /// For so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    churn_seconds: f64,
    /// Then drop all connections and come back, so many times.
    #[arg(long, value_name = "TIMES")]
    reconnect: Option<usize>,
    /// Compare with fresh proxies of so many shapes at the end (default 20).
    #[arg(long, value_name = "N")]
    witnesses: Option<usize>,
    /// Wait so long for anything at most (default 60).
    #[arg(long, value_name = "SECONDS")]
    patience: Option<f64>,
    /// Fail if this is true of a metric: 'change.eds.p99>5ms'. May be given several times.
    #[arg(long, value_name = "BOUND")]
    fail_if: Vec<String>,
    /// Write all figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots there.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl RunArgs {
    /// Runs, reports, and says whether all was well.
    pub async fn run(self) -> Result<Verdict> {
        let (json, html) = (self.json.clone(), self.html.clone());
        let scenario = self.scenario()?;
        // What cannot be read is said before anything is done.
        let bounds =
            scenario.fail_if.iter().map(|bound| bound.parse()).collect::<Result<Vec<report::Bound>, _>>()?;
        bounds.iter().try_for_each(report::Bound::check_name)?;
        let outcome = super::run(scenario).await?;
        let report = report::Report::new(&outcome, &bounds);
        print!("{report}");
        if let Some(file) = json {
            let text = serde_json::to_string_pretty(&report).context("write the report as JSON")?;
            std::fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
        }
        if let Some(file) = html {
            std::fs::write(&file, report::html(&report, &outcome))
                .with_context(|| format!("write {}", file.display()))?;
        }
        Ok(if report.is_good() { Verdict::Good } else { Verdict::Broken })
    }

    /// The file, with what the flags say.
    fn scenario(self) -> Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                serde_saphyr::from_str(&text).with_context(|| format!("{} is no scenario", file.display()))?
            }
            None => Scenario::default(),
        };
        self.apply(&mut scenario);
        Ok(scenario)
    }

    fn apply(self, scenario: &mut Scenario) {
        let from_file = self.scenario.is_some();
        set(&mut scenario.server, self.server);
        set(&mut scenario.protocol, self.protocol);
        set(&mut scenario.proxies, self.proxies);
        set(&mut scenario.streams_per_connection, self.streams_per_connection);
        set(&mut scenario.threads, self.threads);
        set(&mut scenario.seed, self.seed);
        set(&mut scenario.stop_reading, self.stop_reading);
        set(&mut scenario.verify.witnesses, self.witnesses);
        set(&mut scenario.verify.patience, self.patience);
        scenario.server_pid = self.server_pid.or(scenario.server_pid);
        scenario.token = self.token.or(scenario.token.take());
        scenario.mesh = self.mesh.or(scenario.mesh.take());
        if !self.api.is_empty() {
            scenario.api = self.api;
        }
        scenario.nack = self.nack.or(scenario.nack.take());
        scenario.headers.extend(self.headers);
        scenario.fail_if.extend(self.fail_if);

        let tls = TlsSettings {
            ca: self.ca,
            server_name: self.server_name,
            client_cert: self.client_cert,
            client_key: self.client_key,
        };
        if self.tls || tls != TlsSettings::default() {
            scenario.tls = Some(tls);
        }

        let nodes = &mut scenario.nodes;
        set(&mut nodes.kind, self.kind);
        set(&mut nodes.gateways, self.gateways);
        set(&mut nodes.service_account, self.service_account);
        set(&mut nodes.istio_version, self.istio_version);
        nodes.metadata.extend(self.metadata);
        set_list(&mut nodes.namespaces, self.namespaces);
        set_list(&mut nodes.clusters, self.clusters);
        set_list(&mut nodes.networks, self.networks);
        set_list(&mut nodes.localities, self.localities);
        set_list(&mut nodes.labels, self.labels);

        let ask = &mut scenario.ask;
        if !self.subscribe.is_empty() {
            // The names are all that is asked for, and what they lead to.
            ask.types.retain(|kind| kind != "cds" && kind != "lds");
        }
        set_list(&mut ask.types, self.types);
        set_list(&mut ask.subscribe, self.subscribe);
        set(&mut ask.draw, self.draw);
        set(&mut ask.clusters, self.follow_clusters);

        let pace = self.rate.map(|rate| Pace { rate, ..Pace::default() });
        let pace = pace.or(self.in_flight.map(|in_flight| Pace { in_flight, ..Pace::default() }));
        let pace = pace.or(self.storm.then_some(Pace { in_flight: 0, rate: 0.0 }));
        let of_flags = self.hold.is_some() || self.churn.is_some() || self.reconnect.is_some();
        if from_file && !of_flags {
            // The file's phases, at the flags' pace.
            for phase in &mut scenario.phases {
                if let (Phase::Connect(of_file) | Phase::Reconnect(of_file), Some(pace)) = (phase, pace) {
                    *of_file = pace;
                }
            }
            return;
        }
        let pace = pace.unwrap_or_default();
        let mut phases = vec![Phase::Connect(pace), Phase::Hold(self.hold.unwrap_or(1.0))];
        if let Some(per_second) = self.churn {
            phases.push(Phase::Churn(Script::Rate { per_second, seconds: self.churn_seconds, replace: 0.5 }));
        }
        phases.extend((0..self.reconnect.unwrap_or(0)).map(|_| Phase::Reconnect(pace)));
        phases.push(Phase::Disconnect);
        scenario.phases = phases;
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// Something was wrong, or out of bounds: the report says what.
    Broken,
}

fn set<T>(field: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *field = said;
    }
}

fn set_list(field: &mut Vec<String>, said: Vec<String>) {
    if !said.is_empty() {
        *field = said;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Pace, Phase, RunArgs, Scenario};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn scenario(args: &str) -> Scenario {
        let cli = Cli::parse_from(std::iter::once("xds-load").chain(args.split_whitespace()));
        let mut scenario = Scenario::default();
        cli.run.apply(&mut scenario);
        scenario
    }

    #[test]
    fn flags_make_phases() {
        let storm = scenario("--storm --hold 3 --reconnect 2");
        let pace = Pace { rate: 0.0, in_flight: 0 };
        let expected = [
            Phase::Connect(pace),
            Phase::Hold(3.0),
            Phase::Reconnect(pace),
            Phase::Reconnect(pace),
            Phase::Disconnect,
        ];
        assert_eq!(storm.phases, expected);
    }

    #[test]
    fn named_subscriptions_replace_wildcards_unless_types_are_given() {
        assert_eq!(scenario("--subscribe eds:a,eds:b").ask.types, ["eds", "leds", "rds", "vhds"]);
        assert_eq!(scenario("--subscribe eds:a --types cds,eds").ask.types, ["cds", "eds"]);
        assert!(scenario("--tls").tls.is_some() && scenario("").tls.is_none());
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let text = "proxies: 7\nnodes: {namespaces: [a, b]}\nphases:\n- connect: {rate: 5}\n- hold: 2\n\
                    - churn: {rate: {perSecond: 5, seconds: 3}}\n- reconnect: {}\n- command: [\"true\"]\n- disconnect\n";
        let scenario: Scenario = serde_saphyr::from_str(text).unwrap();
        assert_eq!((scenario.proxies, scenario.nodes.namespaces.len(), scenario.phases.len()), (7, 2, 6));
        assert_eq!(scenario.phases[0], Phase::Connect(Pace { rate: 5.0, in_flight: 64 }));
    }
}
