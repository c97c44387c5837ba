//! Which resources a proxy refused, from Envoy's words.
//!
//! An xDS error says nothing else about it: one text for the whole response, most of which may have been applied.

use std::sync::Arc;

use super::kind::Kind;
use crate::snapshot::{Encoded, ResourceType};

/// The resources of a refused response that `reason` blames. Empty: it names none of several.
///
/// Envoy writes `Error adding/updating cluster(s) NAME: why, NAME: why` and `Error adding/updating listener(s) NAME:
/// why\n NAME: why`; other texts quote a name or put it after a word such as `route` or `cluster`.
pub fn culprits(kind: Kind, reason: &str, resources: &[Arc<Encoded>]) -> Vec<Arc<Encoded>> {
    if let [only] = resources {
        return vec![only.clone()];
    }
    let by = |blamed: fn(&str, &str) -> bool| -> Vec<Arc<Encoded>> {
        resources.iter().filter(|r| blamed(reason, &r.name)).cloned().collect()
    };
    match kind {
        Kind::Snapshot(ResourceType::Cluster | ResourceType::Listener) => {
            let listed = by(listed);
            // A text of another form, such as a failed validation of one message.
            if listed.is_empty() { by(quoted) } else { listed }
        }
        _ => by(quoted),
    }
}

/// `NAME: why`, at the start of an entry of the list.
fn listed(reason: &str, name: &str) -> bool {
    let Some((_, list)) = reason.split_once("Error adding/updating ") else { return false };
    occurrences(list, name).any(|(before, after)| {
        after.starts_with(": ") && (before.ends_with("(s) ") || before.ends_with(", ") || ends_line(before))
    })
}

fn ends_line(before: &str) -> bool {
    before.trim_end_matches([' ', '\t']).ends_with('\n')
}

/// In quotes, or after a word that announces a name, and not as a part of a longer one.
fn quoted(reason: &str, name: &str) -> bool {
    const ANNOUNCES: [&str; 12] = [
        "route ",
        "route: ",
        "route configuration ",
        "cluster ",
        "cluster: ",
        "listener ",
        "listener: ",
        "resource ",
        "resource: ",
        "name ",
        "name: ",
        "configuration: ",
    ];
    occurrences(reason, name).any(|(before, after)| {
        let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || "'\"`,;:)]".contains(c));
        let is_quoted = before.ends_with(['\'', '"', '`']) && after.starts_with(['\'', '"', '`']);
        is_quoted || (ends && ANNOUNCES.iter().any(|word| before.ends_with(word)))
    })
}

/// What stands before and after each occurrence of `name`.
fn occurrences<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let found = if name.is_empty() { "" } else { text };
    found.match_indices(name).map(move |(at, _)| (&text[..at], &text[at + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(kind: ResourceType, reason: &str, names: &[&str]) -> Vec<String> {
        let resources: Vec<_> = names
            .iter()
            .map(|n| Arc::new(Encoded::new((*n).into(), "t", n.as_bytes(), None, Arc::new([]))))
            .collect();
        culprits(Kind::Snapshot(kind), reason, &resources).iter().map(|r| r.name.to_string()).collect()
    }

    #[test]
    fn envoys_texts_are_understood() {
        use ResourceType::{Cluster, Endpoint, Listener, Route};
        let a = "outbound|80||a.shop.svc.cluster.local";
        let aa = "outbound|80||aa.shop.svc.cluster.local";
        let sub = "outbound|80|v1|a.shop.svc.cluster.local";
        let cases: [(ResourceType, String, &[&str], &[&str]); 12] = [
            (
                Cluster,
                format!("Error adding/updating cluster(s) {a}: unknown extension"),
                &[a, aa, sub],
                &[a],
            ),
            (
                Cluster,
                format!("Error adding/updating cluster(s) {a}: bad: x, y, {sub}: STRICT_DNS needs one"),
                &[a, aa, sub],
                &[a, sub],
            ),
            (Cluster, "Error adding/updating cluster(s) b: depends on a: gone".into(), &["a", "b"], &["b"]),
            (Cluster, "Proto constraint validation failed".into(), &[a, aa], &[]),
            (Cluster, "Proto constraint validation failed".into(), &[aa], &[aa]),
            (Cluster, "duplicate cluster aa found".into(), &["aa", "a"], &["aa"]),
            (
                Listener,
                "Error adding/updating listener(s) 0.0.0.0_80: route: unknown cluster 'x'\n10.0.0.1_443: \
                 Failed to load certificate chain from <inline>\n"
                    .into(),
                &["0.0.0.0_80", "10.0.0.1_443", "10.0.0.1_44", "x"],
                &["0.0.0.0_80", "10.0.0.1_443"],
            ),
            (
                Listener,
                "Error adding/updating listener(s) virtualInbound: error adding listener '0.0.0.0:15006': \
                 filter chain 'a' has the same matching rules"
                    .into(),
                &["virtualInbound", "virtualOutbound", "a"],
                &["virtualInbound"],
            ),
            (
                Route,
                "Only unique values for domains are permitted. Duplicate entry of domain 80 in route 8080"
                    .into(),
                &["80", "8080"],
                &["8080"],
            ),
            (Route, "route: unknown cluster 'outbound|80||x'".into(), &["80", "8080"], &[]),
            (Endpoint, format!("malformed IP address: nonsense in cluster {aa}"), &[a, aa], &[aa]),
            (Endpoint, format!("Unexpected EDS cluster (expecting '{a}'): 'x'"), &[a, aa], &[a]),
        ];
        for (kind, reason, names, expected) in cases {
            assert_eq!(blamed(kind, &reason, names), expected, "{reason}");
        }
    }

    #[test]
    fn hostile_texts_do_no_harm() {
        for reason in ["", "'", "''", ": ", "Error adding/updating ", "é'é'\u{0}"] {
            assert!(blamed(ResourceType::Route, reason, &["", "é", "x"]).len() <= 1, "{reason:?}");
        }
    }
}
