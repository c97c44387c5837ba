//! What a gateway says of its client's certificate: Envoy's header `x-forwarded-client-cert`. Pure.
//!
//! ```text
//! By=URI;Hash=HEX;Subject="CN=a,O=b";URI=spiffe://cluster.local/ns/a/sa/b,By=...;URI=...
//! \----------- an element: what one proxy saw of its client ------------/ \- the next -/
//! ```
//!
//! **Only the last element counts.** It is what the gateway saw itself (`SANITIZE_SET`, `APPEND_FORWARD`); those before it were said
//! by whoever came to the gateway, who may be anybody. istiod takes every element's word: there, a client whose own certificate is
//! worth nothing can write any identity before it. A gateway that passes the header on as it came (`FORWARD_ONLY`,
//! `ALWAYS_FORWARD_ONLY`) is not to be trusted at all, and nothing here can notice it.
//!
//! The last element must have one URI, as a client certificate must (`peer_cert`), and it must be a workload identity of our own trust
//! domain. DNS names and subjects, which istiod takes for identities, too, prove nothing here.

use std::borrow::Cow;

use crate::model::identity::{Spiffe, SpiffeError};
use crate::text::printable;

/// What one proxy saw of its client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// The URI names of the client's certificate.
    pub uris: Vec<Cow<'a, str>>,
}

/// Why a header proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    /// Not in Envoy's form, at this byte.
    #[error("it is not in Envoy's form at byte {at}: {reason}")]
    Malformed {
        /// From 0.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Which one counts would be anybody's guess.
    #[error(
        "its last element has {0} URIs, and needs one, the client's SPIFFE id: let the gateway set the header (SANITIZE_SET) with its URI"
    )]
    UriCount(usize),
    /// The URI is no workload identity.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// Somebody else's workload.
    #[error("`{identity}` is not of trust domain `{expected}`")]
    TrustDomain {
        /// Whose.
        identity: String,
        /// Ours.
        expected: String,
    },
}

/// Whom the gateway vouches for.
pub fn identity(header: &str, trust_domain: &str) -> Result<Spiffe, XfccError> {
    let elements = parse(header)?;
    let uris = elements.last().map_or(&[][..], |element| &element.uris);
    let [uri] = uris else { return Err(XfccError::UriCount(uris.len())) };
    let identity: Spiffe = uri.parse()?;
    if identity.trust_domain() != trust_domain {
        let (identity, expected) = (printable(&identity.to_string()), trust_domain.to_owned());
        return Err(XfccError::TrustDomain { identity, expected });
    }
    Ok(identity)
}

/// Takes a header apart: all elements, at least one. Keys are read in any case; those that are not needed are passed over, but have to be in
/// order, so that no quote that somebody left open hides what follows.
pub fn parse(header: &str) -> Result<Vec<Element<'_>>, XfccError> {
    let mut elements = vec![Element::default()];
    let mut at = 0;
    loop {
        let rest = &header[at..];
        let malformed = |at, reason| XfccError::Malformed { at, reason };
        let end = rest.find(['=', ',', ';', '"']).filter(|end| rest[*end..].starts_with('='));
        let end = end.ok_or(malformed(at, "a key and `=` are expected"))?;
        let key = rest[..end].trim();
        if key.is_empty() {
            return Err(malformed(at, "a key is expected before `=`"));
        }
        at += end + 1;
        let (value, length) = value(&header[at..]).map_err(|reason| malformed(at, reason))?;
        at += length;
        if let Some(element) = elements.last_mut().filter(|_| key.eq_ignore_ascii_case("uri")) {
            element.uris.push(value);
        }
        match header[at..].bytes().next() {
            None => return Ok(elements),
            Some(b';') => {}
            Some(b',') => elements.push(Element::default()),
            Some(_) => return Err(malformed(at, "`;`, `,` or the end is expected after a value")),
        }
        at += 1;
    }
}

/// A value at the beginning of `text`, and the length of what it takes there: to the next separator, or in quotes, where a backslash
/// takes the next character as it is.
fn value(text: &str) -> Result<(Cow<'_, str>, usize), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find([',', ';', '"']).unwrap_or(text.len());
        return Ok((text[..length].trim().into(), length));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value.into(), at + 2)),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    Err("a quote is not closed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uris(header: &str) -> Result<Vec<Vec<String>>, String> {
        let elements = parse(header).map_err(|error| error.to_string())?;
        let owned = |element: Element<'_>| element.uris.into_iter().map(Cow::into_owned).collect();
        Ok(elements.into_iter().map(owned).collect())
    }

    #[test]
    fn headers_as_envoy_writes_them() {
        let one = "By=spiffe://td/ns/g/sa/g;Hash=468ed33b;Subject=\"CN=a,O=b;URI=spiffe://td/ns/x/sa/x\";URI=spiffe://td/ns/a/sa/b;DNS=a.b";
        for (header, expected) in [
            (one.to_owned(), vec![vec!["spiffe://td/ns/a/sa/b"]]),
            (format!("{one},By=x;URI=u"), vec![vec!["spiffe://td/ns/a/sa/b"], vec!["u"]]),
            ("Hash=1,URI=u;uri=v".to_owned(), vec![vec![], vec!["u", "v"]]),
            (r#"Subject="\"a\\";URI="u,\"v;w""#.to_owned(), vec![vec!["u,\"v;w"]]),
            ("By=;URI=".to_owned(), vec![vec![""]]),
            ("Hash=1, URI=a=b ; DNS=x".to_owned(), vec![vec![], vec!["a=b"]]),
        ] {
            assert_eq!(uris(&header).unwrap(), expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_header_says_where() {
        for (header, reason) in [
            ("", "byte 0: a key"),
            ("garbage", "byte 0: a key"),
            ("=x", "byte 0: a key is expected before"),
            ("By=a,", "byte 5: a key"),
            ("By=a,,URI=b", "byte 5: a key"),
            ("By=a;;URI=b", "byte 5: a key"),
            ("Subject=\"a;URI=b", "byte 8: a quote is not closed"),
            ("Subject=\"a\\", "byte 8: a quote is not closed"),
            ("Subject=\"a\"b;URI=c", "byte 11: `;`, `,` or the end"),
            ("By=a\"b\";URI=c", "byte 4: `;`, `,` or the end"),
        ] {
            let said = uris(header).unwrap_err();
            assert!(said.contains(reason), "{header}: {said}");
        }
    }

    #[test]
    fn the_last_element_counts_and_nothing_else() {
        let own = |name: &str| format!("spiffe://cluster.local/ns/a/sa/{name}");
        let (victim, client) = (own("victim"), own("client"));
        let ask = |header: &str| identity(header, "cluster.local").map(|identity| identity.to_string());
        assert_eq!(ask(&format!("URI={client}")), Ok(client.clone()));
        assert_eq!(ask(&format!("URI={victim},By=x;URI={client}")), Ok(client.clone()));
        assert_eq!(ask(&format!("URI=\"{client}\"")), Ok(client.clone()));
        for (header, reason) in [
            // What a client wrote is before what the gateway saw of it: a certificate without an identity of ours.
            (format!("URI={victim},Hash=1"), "last element has 0 URIs"),
            (format!("URI={victim},Hash=1;URI=https://a"), "`https://a` is not a workload identity"),
            (format!("URI={victim},URI=spiffe://other/ns/a/sa/b"), "is not of trust domain `cluster.local`"),
            (format!("URI={victim};URI={client}"), "last element has 2 URIs"),
            (format!("By={victim};DNS={victim};Subject=\"URI={victim}\""), "last element has 0 URIs"),
            (format!("URI={client},"), "not in Envoy's form"),
        ] {
            let said = ask(&header).unwrap_err().to_string();
            assert!(said.contains(reason), "{header}: {said}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,200}", pieces in prop::collection::vec(
            prop::sample::select(vec!["URI", "=", ",", ";", "\"", "\\", " ", "ä", "spiffe://cluster.local/ns/a/sa/b", "By"]), 0..40,
        )) {
            for text in [&text, &pieces.concat()] {
                let _ = parse(text);
                if let Ok(identity) = identity(text, "cluster.local") {
                    prop_assert_eq!(identity.trust_domain(), "cluster.local");
                }
            }
        }

        /// Whatever stands in other values, quoted as Envoy does it, hides nothing and adds nothing.
        #[test]
        fn quoted_values_are_values(subject in ".{0,60}", before in ".{0,60}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let uri = "spiffe://cluster.local/ns/a/sa/b";
            let header = format!("URI={},By=x;Subject={};URI={uri};DNS=a", quote(&before), quote(&subject));
            prop_assert_eq!(uris(&header).unwrap(), vec![vec![before], vec![uri.to_owned()]]);
        }
    }
}
