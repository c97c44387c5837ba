//! kubeconfig files, as people and remote secrets carry them.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::keys::Pair;

/// How a client says who it is.
#[derive(Clone)]
pub enum Login {
    Token(String),
    Certificate(Pair),
}

/// One cluster and one user of a kubeconfig; the context has their name.
pub struct Context {
    pub name: String,
    /// `https://HOST:PORT`.
    pub server: String,
    /// The authority that signed the server's certificate, as PEM.
    pub authority: String,
    pub login: Login,
}

/// The file's text. The first context is the current one.
pub fn kubeconfig(contexts: &[Context]) -> Result<String> {
    let clusters = contexts.iter().map(|context| {
        let authority = STANDARD.encode(&context.authority);
        json!({ "name": context.name,
                "cluster": { "server": context.server, "certificate-authority-data": authority } })
    });
    let users = contexts.iter().map(|context| {
        let user = match &context.login {
            Login::Token(token) => json!({ "token": token }),
            Login::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            }),
        };
        json!({ "name": context.name, "user": user })
    });
    let named = contexts.iter().map(|context| {
        json!({ "name": context.name, "context": { "cluster": context.name, "user": context.name } })
    });
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": contexts.first().map(|context| &context.name),
        "clusters": Vec::from_iter(clusters),
        "users": Vec::from_iter(users),
        "contexts": Vec::from_iter(named),
    });
    // One line for each value, however long: people copy them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, &file, options).context("write a kubeconfig")?;
    Ok(text)
}
