//! `--stale-cluster`: what is done to the endpoints of clusters that are away.

use super::duration;
use crate::model::staleness::{StalePolicies, StalePolicy};

/// Every cluster that is not named.
const ALL: &str = "*";
const EXAMPLE: &str = "such as west=deprioritise:30s,withdraw:10m or *=keep";

/// A cluster's name, or `*`, and its policy.
pub type Given = (String, StalePolicy);

/// Reads `NAME=keep` or `NAME=deprioritise:30s,withdraw:10m`; for `clap`'s `value_parser`.
pub fn parse(text: &str) -> Result<Given, String> {
    let (name, effects) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("write a cluster's name or *, `=` and what is done, {EXAMPLE}"))?;
    let mut policy = StalePolicy::default();
    if effects != "keep" {
        for effect in effects.split(',') {
            let (word, after) =
                effect.split_once(':').ok_or_else(|| format!("`{effect}` has no time: {EXAMPLE}"))?;
            let place = match word {
                "deprioritise" | "deprioritize" => &mut policy.deprioritise,
                "withdraw" => &mut policy.withdraw,
                _ => return Err(format!("`{word}` is none of keep, deprioritise and withdraw: {EXAMPLE}")),
            };
            if place.replace(duration::parse(after)?).is_some() {
                return Err(format!("`{word}` is there twice"));
            }
        }
    }
    if let StalePolicy { deprioritise: Some(first), withdraw: Some(then) } = policy
        && first > then
    {
        return Err("endpoints cannot be withdrawn before they are deprioritised: make the latter time the longer one".to_owned());
    }
    Ok((name.to_owned(), policy))
}

/// Each cluster once.
pub fn policies(given: Vec<Given>) -> anyhow::Result<StalePolicies> {
    let mut policies = StalePolicies::default();
    let mut named = std::collections::BTreeSet::new();
    for (name, policy) in given {
        anyhow::ensure!(
            named.insert(name.clone()),
            "--stale-cluster names {name} twice; leave one of the two"
        );
        if name == ALL {
            policies.others = policy;
        } else {
            policies.by_cluster.insert(name.as_str().into(), policy);
        }
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn effects_have_times_and_clusters_are_named_once() {
        let seconds = |s| Some(Duration::from_secs(s));
        let both = StalePolicy { deprioritise: seconds(30), withdraw: seconds(600) };
        let last = StalePolicy { withdraw: seconds(0), ..StalePolicy::default() };
        for (text, name, policy) in [
            ("west=deprioritise:30s,withdraw:10m", "west", both),
            ("*=withdraw:10m,deprioritize:30s", "*", both),
            ("a=b=withdraw:0s", "", last),
            ("west=withdraw:0s", "west", last),
            ("*=keep", "*", StalePolicy::default()),
        ] {
            match parse(text) {
                Ok(found) => assert_eq!(found, (name.to_owned(), policy)),
                Err(error) => assert!(name.is_empty(), "{text}: {error}"),
            }
        }
        for (text, word) in [
            ("west", "a cluster's name or *"),
            ("=keep", "a cluster's name or *"),
            ("west=", "has no time"),
            ("west=withdraw", "has no time"),
            ("west=forget:1s", "none of keep"),
            ("west=withdraw:soon", "not a duration"),
            ("west=withdraw:1s,withdraw:2s", "twice"),
            ("west=withdraw:1s,deprioritise:2s", "before they are deprioritised"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let given = |texts: &[&str]| policies(texts.iter().map(|text| parse(text).unwrap()).collect());
        let policies = given(&["*=deprioritise:30s,withdraw:10m", "west=keep"]).unwrap();
        assert_eq!(
            (policies.of(&"west".into()), policies.of(&"east".into())),
            (StalePolicy::default(), both)
        );
        assert!(given(&["west=keep", "west=keep"]).unwrap_err().to_string().contains("twice"));
    }
}
