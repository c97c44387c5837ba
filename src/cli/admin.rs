//! Asking a running landbridge over its admin HTTP.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;

/// Long enough for a large mesh over a slow port-forward.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where the server is.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address of a running landbridge's monitoring port
    #[arg(long, env = "LANDBRIDGE_ADMIN", default_value = "http://127.0.0.1:15014", value_name = "URL")]
    pub admin: String,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For scripts; field names are stable
    Json,
}

// === impl AdminArgs ===

impl AdminArgs {
    /// GETs JSON. What the server says about a request that it refuses becomes the error.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let body = self.get_text(path, query)?;
        serde_json::from_str(&body).with_context(|| {
            format!(
                "{}{path} answered something else than expected: is this landbridge's monitoring address, and of the same version?",
                self.base()
            )
        })
    }

    fn base(&self) -> String {
        let address = self.admin.trim_end_matches('/');
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
    }

    fn get_text(&self, path: &str, query: &[(&str, &str)]) -> Result<String> {
        let base = self.base();
        let url = reqwest::Url::parse_with_params(&format!("{base}{path}"), query)
            .with_context(|| format!("`{}` is not an address: write --admin http://HOST:PORT", self.admin))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            // A proxy of the environment cannot know what is on this machine.
            let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
            let response = client.get(url).send().await.map_err(|error| unreachable(&base, &error))?;
            let status = response.status();
            let body = response.text().await.map_err(|error| unreachable(&base, &error))?;
            if !status.is_success() {
                let said = body.trim();
                if said.is_empty() {
                    bail!("{base}{path} answered {status}: is this landbridge's monitoring address?");
                }
                bail!("{said}");
            }
            Ok(body)
        })
    }
}

fn unreachable(base: &str, error: &reqwest::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    anyhow!(
        "no landbridge answers at {base} ({cause}). Start `landbridge serve`, or say where it is: --admin http://HOST:PORT or \
         LANDBRIDGE_ADMIN; in Kubernetes first `kubectl port-forward deploy/landbridge 15014`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_said_with_the_address_and_what_to_do() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("its address");
        drop(socket);
        let args = AdminArgs { admin: address.to_string() };
        let error =
            args.get::<serde_json::Value>("/debug/list", &[]).expect_err("nobody listens").to_string();
        assert!(
            error.contains(&format!("http://{address}")) && error.contains("LANDBRIDGE_ADMIN"),
            "{error}"
        );
    }
}
