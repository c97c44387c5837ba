//! What is wrong with objects that no source reads: those that are written, and the Secret with the authority's key.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::problem::{Problem, log_difference};
use crate::model::ClusterId;

/// Shared by who finds out and who shows it.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<ByTopic>>);

/// By cluster and topic.
type ByTopic = BTreeMap<(ClusterId, &'static str), Vec<Problem>>;

impl Notices {
    /// Replaces what there is to say about a topic in a cluster. Each problem is logged when it appears and when it is gone.
    pub fn set(&self, cluster: &ClusterId, topic: &'static str, problems: Vec<Problem>) {
        let mut all = self.0.lock();
        let key = (cluster.clone(), topic);
        log_difference(all.get(&key).map_or(&[], Vec::as_slice), &problems);
        if problems.is_empty() {
            all.remove(&key);
        } else {
            all.insert(key, problems);
        }
    }

    /// Everything.
    pub fn all(&self) -> Vec<Problem> {
        self.0.lock().values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Severity;

    #[test]
    fn a_topic_is_replaced_and_others_stay() {
        let notices = Notices::default();
        let problem = |reason: &str| Problem {
            cluster: "east".into(),
            file: None,
            line: None,
            object: Some("istio-system/Secret/cacerts".into()),
            field: "ca-key.pem".into(),
            severity: Severity::Error,
            reason: reason.into(),
            remedy: "mend it".into(),
        };
        let of = || notices.all().into_iter().map(|p| p.reason).collect::<Vec<_>>();
        notices.set(&"east".into(), "a", vec![problem("one")]);
        notices.set(&"east".into(), "b", vec![problem("two")]);
        notices.set(&"east".into(), "a", vec![problem("three")]);
        assert_eq!(of(), ["three", "two"]);
        notices.set(&"east".into(), "a", vec![]);
        assert_eq!(of(), ["two"]);
    }
}
