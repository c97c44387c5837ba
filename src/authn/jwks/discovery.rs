//! OpenID Connect Discovery 1.0: where an issuer's keys are, as it says itself. Pure.

use serde::Deserialize;

use crate::text::printable;

#[derive(Deserialize)]
struct Document {
    issuer: Option<String>,
    jwks_uri: Option<String>,
}

/// The address of an issuer's document (section 4).
pub fn document(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// The address of the keys of `issuer` (section 4.3: a document of another issuer must not be used). The error says what is
/// wrong with the document.
pub fn keys(document: &[u8], issuer: &str) -> Result<String, String> {
    let Document { issuer: named, jwks_uri } = serde_json::from_slice(document)
        .map_err(|error| format!("it is no OpenID configuration: {error}"))?;
    let named = named.ok_or("it is no OpenID configuration: it has no `issuer`")?;
    if named != issuer {
        return Err(format!(
            "it is of issuer `{}`: tokens name their issuer to the letter, so name it so here, or find out who answers",
            printable(&named)
        ));
    }
    let keys = jwks_uri.filter(|uri| !uri.is_empty()).ok_or("it has no `jwks_uri`: give it with --jwks")?;
    let scheme = keys.split_once("://").map_or("", |(scheme, _)| scheme);
    match (scheme, is_https(issuer)) {
        ("https", _) | ("http", false) => Ok(keys),
        ("http", true) => Err(format!("its `jwks_uri` {} is not encrypted", printable(&keys))),
        _ => Err(format!("its `jwks_uri` {} is no https address", printable(&keys))),
    }
}

/// Whether an address is encrypted.
pub fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_document_is_below_the_issuer() {
        for issuer in ["https://issuer.example/a", "https://issuer.example/a/"] {
            assert_eq!(document(issuer), "https://issuer.example/a/.well-known/openid-configuration");
        }
    }

    #[test]
    fn what_documents_say() {
        let issuer = "https://issuer.example";
        let good =
            r#"{"issuer": "https://issuer.example", "jwks_uri": "https://keys.example/jwks", "x": []}"#;
        assert_eq!(keys(good.as_bytes(), issuer).unwrap(), "https://keys.example/jwks");
        let plain = r#"{"issuer": "http://issuer.example", "jwks_uri": "http://issuer.example/jwks"}"#;
        assert_eq!(keys(plain.as_bytes(), "http://issuer.example").unwrap(), "http://issuer.example/jwks");
        for (text, reason) in [
            ("", "no OpenID configuration"),
            ("<html>", "no OpenID configuration"),
            ("[]", "no OpenID configuration"),
            ("{}", "no `issuer`"),
            (r#"{"issuer": 1}"#, "no OpenID configuration"),
            (r#"{"issuer": "https://issuer.example/"}"#, "of issuer `https://issuer.example/`"),
            (r#"{"issuer": "https://other.example\n"}"#, r"of issuer `https://other.example\n`"),
            (r#"{"issuer": "https://issuer.example"}"#, "no `jwks_uri`"),
            (r#"{"issuer": "https://issuer.example", "jwks_uri": ""}"#, "no `jwks_uri`"),
            (r#"{"issuer": "https://issuer.example", "jwks_uri": "http://a"}"#, "not encrypted"),
            (r#"{"issuer": "https://issuer.example", "jwks_uri": "file:///etc/passwd"}"#, "no https address"),
            (r#"{"issuer": "https://issuer.example", "jwks_uri": "/jwks"}"#, "no https address"),
        ] {
            let said = keys(text.as_bytes(), issuer).unwrap_err();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, issuer in ".{0,40}", uri in ".{0,40}") {
            let _ = keys(&bytes, &issuer);
            let document = serde_json::json!({ "issuer": issuer, "jwks_uri": uri }).to_string();
            if let Ok(found) = keys(document.as_bytes(), &issuer) {
                prop_assert!(found.starts_with("http") && found.contains("://"));
            }
        }
    }
}
