//! Arguments about issuers of tokens.

use std::path::PathBuf;

use anyhow::anyhow;
use tracing::warn;

use crate::{
    app::TokenIssuer,
    authn::{jwks::Source, rule::JwtRule},
};

/// Who makes tokens beside the API servers of clusters.
#[derive(Debug, clap::Args)]
pub struct TokenIssuerArgs {
    /// The `iss` of an issuer's service-account tokens. Its keys are at --jwks; without that, at the address that the issuer's OpenID
    /// configuration names (https://ISSUER/.well-known/openid-configuration). Tokens for which it does not vouch are reviewed by the
    /// API server of the caller's cluster, as are all others.
    #[arg(long, env = "TOKEN_ISSUER")]
    jwt_issuer: Option<String>,
    /// The keys of --jwt-issuer: a file, or an https URL.
    #[arg(long, env = "LANDBRIDGE_JWKS", requires = "jwt_issuer")]
    jwks: Option<String>,
    /// An issuer in Istio's form: {"issuer": "https://ISSUER", "jwks_uri": "https://...", "audiences": ["istio-ca"]}. Without jwks_uri, by
    /// OpenID configuration. May be given several times.
    #[arg(long, env = "JWT_RULE", value_name = "JSON", value_parser = rule)]
    jwt_rule: Vec<Option<JwtRule>>,
    /// PEM certificates of the authorities of the servers that have issuers' keys. They alone are trusted then; without it, the
    /// system's. A changed file is taken over.
    #[arg(long, env = "LANDBRIDGE_JWKS_CA_FILE")]
    jwks_ca_file: Option<PathBuf>,
}

// === impl TokenIssuerArgs ===

impl TokenIssuerArgs {
    /// The issuers, and the file with authorities. A variable that is there and empty says nothing.
    pub fn resolve(self) -> anyhow::Result<(Vec<TokenIssuer>, Option<PathBuf>)> {
        let Self { jwt_issuer, jwks, jwt_rule, jwks_ca_file } = self;
        let mut issuers = Vec::new();
        if let Some(name) = jwt_issuer.filter(|name| !name.is_empty()) {
            let keys = match jwks.filter(|place| !place.is_empty()) {
                Some(place) => place.parse().map_err(|reason| anyhow!("--jwks {place}: {reason}"))?,
                None => Source::discovery(&name)
                    .map_err(|reason| anyhow!("--jwt-issuer: {reason} with --jwks"))?,
            };
            issuers.push(TokenIssuer { name, keys, audiences: None });
        }
        for JwtRule { issuer, keys, audiences, unused } in jwt_rule.into_iter().flatten() {
            if !unused.is_empty() {
                warn!(%issuer, fields = ?unused, "these fields of JWT_RULE mean nothing here, as in istiod");
            }
            issuers.push(TokenIssuer { name: issuer, keys, audiences: Some(audiences) });
        }
        Ok((issuers, jwks_ca_file.filter(|path| !path.as_os_str().is_empty())))
    }
}

fn rule(text: &str) -> Result<Option<JwtRule>, String> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        issuers: TokenIssuerArgs,
    }

    fn resolve(words: &[&str]) -> Result<Vec<(String, String)>, String> {
        let command = Command::try_parse_from(["serve"].iter().chain(words));
        let command = command.map_err(|error| error.to_string())?;
        let (issuers, _) = command.issuers.resolve().map_err(|error| error.to_string())?;
        Ok(issuers.into_iter().map(|issuer| (issuer.name, issuer.keys.to_string())).collect())
    }

    #[test]
    fn issuers_have_keys_somewhere() {
        let one = |name: &str, keys: &str| vec![(name.to_owned(), keys.to_owned())];
        let discovered = "https://a/.well-known/openid-configuration";
        let rule = r#"{"issuer": "https://a", "audiences": ["x"]}"#;
        assert_eq!(resolve(&[]), Ok(vec![]));
        assert_eq!(resolve(&["--jwt-issuer", "a", "--jwks", "/b"]), Ok(one("a", "/b")));
        assert_eq!(resolve(&["--jwt-issuer", "https://a"]), Ok(one("https://a", discovered)));
        assert_eq!(resolve(&["--jwt-issuer", "https://a", "--jwks", ""]), Ok(one("https://a", discovered)));
        assert_eq!(resolve(&["--jwt-rule", rule]), Ok(one("https://a", discovered)));
        assert_eq!(resolve(&["--jwt-rule", rule, "--jwt-rule", rule]).map(|issuers| issuers.len()), Ok(2));
        assert_eq!(resolve(&["--jwt-rule", "", "--jwt-issuer", ""]), Ok(vec![]));
        for (words, reason) in [
            (&["--jwt-issuer", "a"][..], "say where they are with --jwks"),
            (&["--jwks", "/b"], "--jwt-issuer"),
            (&["--jwt-issuer", "a", "--jwks", "ftp://b"], "--jwks ftp://b: `ftp`"),
            (&["--jwt-rule", "{}"], "missing field `issuer`"),
        ] {
            let said = resolve(words).unwrap_err();
            assert!(said.contains(reason), "{words:?}: {said}");
        }
    }
}
