//! Workload identities: SPIFFE names as Istio writes them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::shorten;

/// The longest SPIFFE id that the SPIFFE standard allows, in bytes.
const MAX_LEN: usize = 2048;

/// The identity of a workload, `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
///
/// Cheap to clone: it is a map key for certificates and travels with every stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spiffe {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not a workload identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// The text does not have the five segments of a workload identity.
    #[error(
        "`{0}` is not a workload identity: expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT"
    )]
    Shape(String),
    /// One segment is empty or holds a character that SPIFFE does not allow there.
    #[error("the {what} `{value}` cannot be part of a workload identity: use only {allowed}")]
    Segment {
        /// Which segment: trust domain, namespace or service account.
        what: &'static str,
        /// The offending text, shortened.
        value: String,
        /// The characters that are allowed.
        allowed: &'static str,
    },
}

// === impl Spiffe ===

impl Spiffe {
    /// Builds an identity from its parts. Refuses empty parts and characters that would change the meaning of the URI.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        check("trust domain", trust_domain, "a-z, 0-9, `.`, `-` and `_`", |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
        })?;
        for (what, value) in [("namespace", namespace), ("service account", service_account)] {
            check(what, value, "letters, digits, `.`, `-` and `_`", |b| {
                b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
            })?;
        }
        Ok(Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain, such as `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Spiffe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for Spiffe {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || SpiffeError::Shape(shorten(text));
        if text.len() > MAX_LEN {
            return Err(shape());
        }
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(shape)?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(td), Some("ns"), Some(ns), Some("sa"), Some(sa), None) => Self::new(td, ns, sa),
            _ => Err(shape()),
        }
    }
}

fn check(
    what: &'static str,
    value: &str,
    allowed: &'static str,
    is_allowed: impl Fn(u8) -> bool,
) -> Result<(), SpiffeError> {
    // SPIFFE forbids `.` and `..` as whole path segments: URI normalisation would swallow them.
    let dots_only = matches!(value, "." | "..");
    if value.is_empty() || dots_only || value.len() > 255 || !value.bytes().all(is_allowed) {
        return Err(SpiffeError::Segment { what, value: shorten(value), allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_and_writes_the_same_text() {
        for text in [
            "spiffe://cluster.local/ns/production/sa/backend",
            "spiffe://company.com/ns/a/sa/b.c",
            "spiffe://td_1/ns/kube-system/sa/default",
        ] {
            assert_eq!(text.parse::<Spiffe>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("spiffe://cluster.local/ns/a/sa/{}", "x".repeat(3000));
        for text in [
            "",
            "spiffe://",
            "cluster.local/ns/a/sa/b",
            "https://cluster.local/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/NS/a/sa/b",
            "spiffe://cluster.local/sa/b/ns/a",
            "spiffe://Cluster.Local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/./sa/b",
            "spiffe://cluster.local/ns/a%2Fb/sa/c",
            "spiffe://cluster.local/ns/a/sa/b?x=1",
            "spiffe://cluster.local/ns/a/sa/b#f",
            "spiffe://cluster.local/ns/a b/sa/c",
            "spiffe://cluster.local/ns/ä/sa/c",
            " spiffe://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b\n",
            &long,
        ] {
            assert!(text.parse::<Spiffe>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_error_names_the_bad_part_and_stays_short() {
        let error = Spiffe::new("cluster.local", "a/b", "c").unwrap_err().to_string();
        assert!(error.contains("namespace `a/b`"), "{error}");
        let error = "z".repeat(100_000).parse::<Spiffe>().unwrap_err().to_string();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}
