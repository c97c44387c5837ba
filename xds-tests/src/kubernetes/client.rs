//! Clients from a kubeconfig; also of a server that only a network namespace reaches.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use kube::client::ConfigExt as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tower::{BoxError, ServiceBuilder, service_fn};

use crate::netns::Ns;

/// A client of the current context of a kubeconfig, connecting from `ns`, or from where this process is.
pub async fn client(kubeconfig: &str, ns: Option<&Ns>) -> Result<Client> {
    let parsed = Kubeconfig::from_yaml(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    let Some(ns) = ns.cloned() else { return Ok(Client::try_from(config)?) };
    let connect = service_fn(move |uri: Uri| {
        let ns = ns.clone();
        async move {
            let authority = uri.authority().context("a server's URL has a host")?;
            let to: SocketAddr =
                authority.as_str().parse().context("a server in a namespace has an address")?;
            ns.connect(to, Duration::from_secs(5)).await.map(TokioIo::new)
        }
    });
    let https = config.rustls_https_connector_with_connector(connect)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}
