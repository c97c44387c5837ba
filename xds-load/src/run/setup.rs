//! From a scenario to what the threads are told: names are resolved, files are read, and what makes no sense is said.

use std::{net::ToSocketAddrs as _, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    nodes::Roster,
    scenario::{Scenario, TlsSettings},
    shard::Plan,
};
use crate::{
    client::{board::Board, nack::Nack, proxy::Asks},
    expect::Type,
    h2::{Target, Tls, TlsFiles},
    mesh::Mesh,
    wire,
};

/// What the threads are told.
pub fn plan(scenario: &Scenario, mesh: Option<&Mesh>, board: Arc<Board>) -> Result<Plan> {
    if scenario.proxies == 0 || scenario.threads == 0 || scenario.streams_per_connection == 0 {
        bail!("proxies, threads and streams per connection have to be 1 or more");
    }
    let names = subscriptions(&scenario.ask.subscribe)?;
    let types = scenario.ask.types.iter().map(|name| kind(name)).collect::<Result<Vec<_>>>()?;
    let nack = scenario.nack.as_deref().map(str::parse::<Nack>).transpose();
    let nack = nack.map_err(anyhow::Error::msg).context("--nack")?.unwrap_or_default();
    Ok(Plan {
        targets: targets(scenario)?,
        metadata: scenario.headers.iter().map(|header| self::header(header)).collect::<Result<Vec<_>>>()?,
        token: scenario.token.clone(),
        asks: Asks {
            protocol: scenario.protocol,
            types,
            clusters: if scenario.ask.clusters == 0 { usize::MAX } else { scenario.ask.clusters },
            nack,
        },
        subscribe: names,
        draw: scenario.ask.draw,
        roster: Roster::new(scenario.nodes.clone(), mesh, scenario.proxies),
        proxies: scenario.proxies,
        streams_per_connection: scenario.streams_per_connection,
        threads: scenario.threads,
        seed: scenario.seed,
        stop_reading: scenario.stop_reading,
        board,
    })
}

fn kind(name: &str) -> Result<Type> {
    let known = || wire::TYPES.map(wire::short_name).join(", ");
    wire::from_short_name(name)
        .with_context(|| format!("{name:?} is no type of resource; there are {}", known()))
}

/// `eds:NAME`, or `eds:@FILE`.
fn subscriptions(said: &[String]) -> Result<Vec<(Type, String)>> {
    let mut names = Vec::new();
    for said in said {
        let (of, name) =
            said.split_once(':').with_context(|| format!("{said:?} is not TYPE:NAME or TYPE:@FILE"))?;
        let of = kind(of)?;
        match name.strip_prefix('@') {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("read names from {file}"))?;
                names.extend(text.lines().filter(|line| !line.is_empty()).map(|line| (of, line.to_owned())));
            }
            None => names.push((of, name.to_owned())),
        }
    }
    Ok(names)
}

fn header(text: &str) -> Result<(String, String)> {
    let (name, value) =
        text.split_once('=').with_context(|| format!("the header {text:?} is not NAME=VALUE"))?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_token) {
        bail!("the header {text:?} has a name that metadata may not have");
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn targets(scenario: &Scenario) -> Result<Vec<Target>> {
    scenario.server.split(',').map(|server| target(scenario, server.trim())).collect()
}

fn target(scenario: &Scenario, server: &str) -> Result<Target> {
    let mut found =
        server.to_socket_addrs().with_context(|| format!("{server:?} is not HOST:PORT of a server"))?;
    let address = found.next().with_context(|| format!("{server:?} has no address"))?;
    let tls = scenario.tls.as_ref().map(|tls| self::tls(tls, server)).transpose()?;
    Ok(Target { address, authority: server.into(), source: None, tls })
}

fn tls(settings: &TlsSettings, server: &str) -> Result<Tls> {
    let TlsSettings { ca, server_name, client_cert, client_key } = settings;
    let identity = match (client_cert, client_key) {
        (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
        (None, None) => None,
        _ => bail!("a client certificate needs its key, and the other way round"),
    };
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    let name = server_name.as_deref().unwrap_or(host);
    Ok(Tls::load(&TlsFiles { roots: ca.clone(), identity }, name)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Scenario, header, plan, subscriptions};
    use crate::{client::board::Board, expect::Type};

    #[test]
    fn what_makes_no_sense_is_said() {
        let wrong = |change: &dyn Fn(&mut Scenario), says: &str| {
            let mut scenario = Scenario::default();
            change(&mut scenario);
            let error = match plan(&scenario, None, Arc::new(Board::default())) {
                Ok(_) => panic!("{says} is taken"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains(says), "{error}");
        };
        wrong(&|s| s.proxies = 0, "1 or more");
        wrong(&|s| s.server = "nowhere".into(), "HOST:PORT");
        wrong(&|s| s.ask.types = vec!["ads".into()], "there are cds, eds");
        wrong(&|s| s.nack = Some("sometimes".into()), "every:100");
        wrong(&|s| s.headers = vec!["a b=c".into()], "metadata may not have");
        assert!(plan(&Scenario::default(), None, Arc::new(Board::default())).is_ok());
    }

    #[test]
    fn names_come_from_the_command_line_and_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\n\nb\n").unwrap();
        let said = ["cds:x".to_owned(), format!("eds:@{}", file.path().display())];
        let expected = [(Type::Cluster, "x"), (Type::Endpoint, "a"), (Type::Endpoint, "b")];
        assert_eq!(subscriptions(&said).unwrap(), expected.map(|(kind, name)| (kind, name.to_owned())));
        assert_eq!(header("X-Id=1=2").unwrap(), ("x-id".to_owned(), "1=2".to_owned()));
    }
}
