//! An issuer of tokens as Istio's variable `JWT_RULE` has it (behaviour 1.4).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::jwks::Source;

/// A rule, such as `{"issuer": "https://issuer.example", "audiences": ["istio-ca"]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Where its keys are: at its `jwks_uri`, or by OpenID discovery.
    pub keys: Source,
    /// A token has to be meant for one of these.
    pub audiences: Vec<String>,
    /// Fields of Istio's message that mean nothing here, as in istiod.
    pub unused: Vec<String>,
}

#[derive(Deserialize)]
struct Given {
    issuer: String,
    // Istio's own reader takes both spellings.
    #[serde(default, alias = "jwksUri")]
    jwks_uri: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(flatten)]
    unused: BTreeMap<String, Value>,
}

impl std::str::FromStr for JwtRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Given { issuer, jwks_uri, audiences, unused } = serde_json::from_str(text).map_err(|error| {
            format!(r#"{error}; write {{"issuer": "https://ISSUER", "audiences": ["istio-ca"]}}"#)
        })?;
        if issuer.is_empty() {
            return Err("its `issuer` is empty: name the `iss` of the tokens".to_owned());
        }
        if audiences.is_empty() {
            return Err(
                "it has no `audiences`, so that no token would be accepted: name those of the tokens"
                    .to_owned(),
            );
        }
        let keys = match jwks_uri.as_str() {
            "" => Source::discovery(&issuer).map_err(|reason| format!("{reason} in `jwks_uri`"))?,
            uri => match uri.parse() {
                Ok(source @ Source::Url(_)) => source,
                _ => return Err(format!("its `jwks_uri` `{uri}` is no https address")),
            },
        };
        Ok(Self { issuer, keys, audiences, unused: unused.into_keys().collect() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_as_istio_has_them() {
        let audiences = vec!["a".to_owned(), "b".to_owned()];
        let issuer = "https://issuer.example".to_owned();
        let discovered = r#"{"issuer": "https://issuer.example", "audiences": ["a", "b"]}"#;
        let keys = Source::Discovery(issuer.clone());
        let rule = JwtRule { issuer, keys, audiences, unused: Vec::new() };
        assert_eq!(discovered.parse(), Ok(rule.clone()));
        for name in ["jwks_uri", "jwksUri"] {
            let text = discovered.replace('{', &format!(r#"{{"{name}": "https://keys.example/jwks", "#));
            let keys = Source::Url("https://keys.example/jwks".to_owned());
            assert_eq!(text.parse(), Ok(JwtRule { keys, ..rule.clone() }));
        }
        let more = discovered.replace('{', r#"{"fromHeaders": [{"name": "x"}], "jwks": "{}", "#);
        let unused = vec!["fromHeaders".to_owned(), "jwks".to_owned()];
        assert_eq!(more.parse(), Ok(JwtRule { unused, ..rule }));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_remedy() {
        for (text, reason) in [
            ("issuer", r#"write {"issuer":"#),
            ("{}", "missing field `issuer`"),
            (r#"{"issuer": "", "audiences": ["a"]}"#, "name the `iss`"),
            (r#"{"issuer": "https://a"}"#, "no `audiences`"),
            (r#"{"issuer": "https://a", "audiences": "a"}"#, "expected a sequence"),
            (r#"{"issuer": "kubernetes", "audiences": ["a"]}"#, "say where they are in `jwks_uri`"),
            (
                r#"{"issuer": "a", "jwks_uri": "/etc/jwks", "audiences": ["a"]}"#,
                "`/etc/jwks` is no https address",
            ),
        ] {
            let said = text.parse::<JwtRule>().unwrap_err();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,80}", uri in ".{0,40}") {
            let _ = text.parse::<JwtRule>();
            let rule = serde_json::json!({ "issuer": text, "jwks_uri": uri, "audiences": ["a"] });
            let _ = rule.to_string().parse::<JwtRule>();
        }
    }
}
