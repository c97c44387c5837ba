//! From secrets to clusters. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{SecretName, Secrets};
use crate::{
    model::{ClusterId, remote_secret::Kubeconfig},
    registry::{Problem, Severity},
};

/// A cluster that should be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Which secret says so.
    pub secret: SecretName,
    /// How to reach it.
    pub kubeconfig: Kubeconfig,
}

/// The clusters that secrets name, and what is wrong with them.
///
/// The own cluster's id is passed over without a word: secrets are copied around. Of two secrets that name the same cluster
/// the oldest counts, of equally old ones the first by name, so that a second one changes nothing until the first goes.
/// A cluster that flags name (`given`) is read as these say.
pub fn desired(
    secrets: &Secrets,
    own: &ClusterId,
    given: &BTreeSet<ClusterId>,
) -> (BTreeMap<ClusterId, Desired>, Vec<Problem>) {
    let mut clusters = BTreeMap::<ClusterId, Desired>::new();
    let mut problems = Vec::new();
    let mut by_age: Vec<_> = secrets.by_name.iter().collect();
    by_age.sort_by_key(|(name, secret)| (secret.created, *name));
    for (name, secret) in by_age {
        for (cluster, kubeconfig) in &secret.kubeconfigs {
            let mut ignored = |reason: String, remedy: String| {
                problems.push(problem(own, name, cluster, Severity::Warning, reason, remedy));
            };
            if cluster == own {
                continue;
            }
            if given.contains(cluster) {
                ignored(
                    format!("is not used: --kube or --files says where cluster {cluster} is read from"),
                    "remove the flag, or the key".into(),
                );
            } else if let Some(first) = clusters.get(cluster) {
                ignored(
                    format!(
                        "is not used: Secret {}, which is older, names cluster {cluster}, too",
                        first.secret
                    ),
                    "delete one of the two; when the older goes, this one takes over without a gap".into(),
                );
            } else {
                let desired = Desired { secret: name.clone(), kubeconfig: kubeconfig.clone() };
                clusters.insert(cluster.clone(), desired);
            }
        }
    }
    (clusters, problems)
}

/// Something about a key of a secret.
pub(super) fn problem(
    own: &ClusterId,
    secret: &SecretName,
    cluster: &ClusterId,
    severity: Severity,
    reason: String,
    remedy: String,
) -> Problem {
    let object = format!("{}/Secret/{}", secret.namespace, secret.name);
    Problem::of_object(&own.0, Some(object), format!("data.{cluster}"), severity, reason, remedy)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::remote_secret::RemoteSecret;

    /// Name, age, and kubeconfigs by cluster.
    type Mk<'a> = (&'a str, i64, &'a [(&'a str, &'a str)]);

    fn secrets(all: &[Mk]) -> Secrets {
        let secret = |(name, created, keys): &Mk| {
            let name = SecretName { namespace: "istio-system".into(), name: (*name).into() };
            let config = |(id, text): &(&str, &str)| (ClusterId::from(*id), Kubeconfig::new(text.as_bytes()));
            let kubeconfigs = keys.iter().map(config).collect();
            (name, Arc::new(RemoteSecret { created: *created, kubeconfigs }))
        };
        Secrets {
            by_name: all.iter().map(secret).collect(),
            settled: true,
            whole: true,
            events: Default::default(),
        }
    }

    /// Cluster, secret and kubeconfig of each; who is told what.
    fn of(all: &[Mk]) -> (Vec<String>, Vec<String>) {
        let (clusters, problems) = desired(&secrets(all), &"east".into(), &["files".into()].into());
        let text = |(id, d): (&ClusterId, &Desired)| {
            format!("{id} {} {}", d.secret.name, String::from_utf8_lossy(d.kubeconfig.expose()))
        };
        (clusters.iter().map(text).collect(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_secret_may_name_several_clusters_and_not_the_own_one() {
        let (clusters, problems) = of(&[("a", 5, &[("west", "w"), ("north", "n"), ("east", "e")])]);
        assert_eq!(clusters, ["north a n", "west a w"]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(of(&[]), (vec![], vec![]));
    }

    #[test]
    fn of_two_the_oldest_counts_then_the_first_by_name_and_the_other_is_told() {
        for (one, two, used) in
            [((1, "b"), (2, "a"), "b"), ((2, "b"), (1, "a"), "a"), ((1, "b"), (1, "a"), "a")]
        {
            let (clusters, problems) =
                of(&[(one.1, one.0, &[("west", "w")]), (two.1, two.0, &[("west", "w"), ("north", "n")])]);
            assert_eq!(clusters, ["north a n".to_owned(), format!("west {used} w")]);
            let other = if used == "a" { "b" } else { "a" };
            let [problem] = &problems[..] else { panic!("{problems:?}") };
            assert!(
                problem.contains(&format!("istio-system/Secret/{other}: data.west: is not used"))
                    && problem.contains(&format!("istio-system/{used}")),
                "{problem}"
            );
        }
    }

    #[test]
    fn flags_are_stronger() {
        let (clusters, problems) = of(&[("a", 1, &[("files", "f"), ("west", "w")])]);
        assert_eq!(clusters, ["west a w"]);
        assert!(problems[0].contains("data.files") && problems[0].contains("--files"), "{problems:?}");
    }
}
