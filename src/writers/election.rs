//! Stands for election by a Lease of the cluster that is to be written to.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use tokio::sync::{Notify, watch};

use super::{
    PATIENCE, Writer,
    lease::{Bid, Elector, Lease, Record},
    remedy,
};
use crate::{
    model::ClusterId,
    registry::{
        Notices, Problem, Severity,
        kubernetes::{self, Access, Failure, Seen},
    },
};

/// What problems are said under.
pub(super) const TOPIC: &str = "lease";
/// The Lease of all writers of a cluster.
const NAME: &str = "landbridge-leader";
/// Between tries of one who does not lead and is refused, at most.
const SELDOM: Duration = Duration::from_secs(10);

/// Who leads, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// This replica does until then.
    pub until: Option<Instant>,
    /// What holds the Lease; empty: nothing, or nobody knows.
    pub holder: String,
    /// Why it is not possible to stand for election, if it is not.
    pub refused: Option<Failure>,
}

/// One who stands for election in one cluster.
pub(super) struct Election {
    cluster: ClusterId,
    access: Access,
    namespace: Arc<str>,
    elector: Elector,
    terms: super::Terms,
    notices: Notices,
}

// === impl Standing ===

impl Standing {
    /// Whether this replica may write now.
    pub fn leads(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// For how long what is written now may take; none: nothing may be written, as the term is over or about to be renewed.
    pub fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }
}

// === impl Election ===

impl Election {
    pub fn new(writer: &Writer, cluster: &ClusterId, access: Access) -> Self {
        Self {
            cluster: cluster.clone(),
            access,
            namespace: writer.namespace.clone(),
            elector: Elector::new(writer.identity.clone(), writer.terms),
            terms: writer.terms,
            notices: writer.notices.clone(),
        }
    }

    /// Takes and renews the Lease, for ever. May be cancelled at any time.
    ///
    /// The Lease is watched, so that its time begins for us when it begins for its holder, and not up to a try later. Without
    /// that right it works as well, a little later.
    pub async fn run(&mut self, standing: &watch::Sender<Standing>) {
        let (access, renewed) = (self.access.clone(), Notify::new());
        let path = format!("{}?fieldSelector=metadata.name%3D{NAME}&", self.path(""));
        let watch = kubernetes::follow::<Value>(&access, &path, |seen| {
            if !matches!(seen, Seen::Away(_)) {
                renewed.notify_one();
            }
        });
        tokio::select! {
            never = watch => match never {},
            () = self.stand(standing, &renewed) => {}
        }
    }

    async fn stand(&mut self, standing: &watch::Sender<Standing>, renewed: &Notify) {
        let mut failures = 0_u32;
        loop {
            let outcome = self.round().await;
            let now = Instant::now();
            let leads = self.elector.leads(now);
            let refused = match outcome {
                Ok(()) => {
                    failures = 0;
                    self.notices.set(&self.cluster, TOPIC, Vec::new());
                    None
                }
                // Somebody else was faster.
                Err(failure) if failure.code() == Some(409) => None,
                Err(failure) => {
                    failures = failures.saturating_add(1);
                    self.notices.set(&self.cluster, TOPIC, vec![self.problem(&failure)]);
                    Some(failure)
                }
            };
            let next = Standing {
                until: self.elector.until().filter(|_| leads),
                holder: self.elector.holder().to_owned(),
                refused,
            };
            standing.send_replace(next);
            if leads {
                tokio::time::sleep(self.terms.retry).await;
                continue;
            }
            let wait = if failures > 3 { SELDOM } else { self.terms.retry };
            // Those who wait for the same Lease do not all ask at once.
            let look = now + wait.mul_f64(rand::random_range(1.0..1.2));
            let at = self.elector.free_at().filter(|at| *at > now).map_or(look, |free| free.min(look));
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = renewed.notified() => {}
            }
        }
    }

    /// Reads if that is needed, and writes what may be written.
    async fn round(&mut self) -> Result<(), Failure> {
        if self.elector.must_read() {
            let found = self.read().await?;
            self.elector.saw(found, Instant::now());
        }
        let Some(bid) = self.elector.bid(Instant::now(), SystemTime::now()) else { return Ok(()) };
        let sent = Instant::now();
        // Cancelled or failed from here on, it is not known what was stored.
        self.elector.lost();
        let stored = self.write(bid).await?;
        self.elector.won(stored, sent, Instant::now());
        Ok(())
    }

    /// Gives the Lease back, if it is held; nothing may be written any more. What fails only costs the next one time.
    pub async fn release(&mut self) {
        if let Some(bid) = self.elector.resign(SystemTime::now()) {
            self.elector.lost();
            match self.write(bid).await {
                Ok(_) => tracing::info!(cluster = %self.cluster, "the Lease is given back"),
                Err(failure) => {
                    tracing::warn!(cluster = %self.cluster, %failure, "the Lease is not given back; it runs out by itself");
                }
            }
        }
    }

    async fn read(&self) -> Result<Option<Lease>, Failure> {
        match self.access.client().get_json(&self.path(NAME), PATIENCE).await {
            Ok(object) => lease(&object).map(Some),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn write(&self, bid: Bid) -> Result<Lease, Failure> {
        let client = self.access.client();
        let stored = match bid {
            Bid::Create(record) => {
                let object = self.object(&record, None).to_string().into_bytes();
                let answer = client.post(&self.path(""), object, PATIENCE).await?;
                serde_json::from_slice(&answer).map_err(|e| Failure::Garbage(e.to_string()))?
            }
            Bid::Update(version, record) => {
                client.put(&self.path(NAME), &self.object(&record, Some(&version)), PATIENCE).await?
            }
        };
        lease(&stored)
    }

    fn path(&self, name: &str) -> String {
        let all = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace);
        if name.is_empty() { all } else { format!("{all}/{name}") }
    }

    fn object(&self, record: &Record, version: Option<&str>) -> Value {
        let holder = Some(&record.holder).filter(|holder| !holder.is_empty());
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": NAME, "namespace": self.namespace, "resourceVersion": version },
            "spec": {
                // Nobody: an empty name is refused.
                "holderIdentity": holder,
                "leaseDurationSeconds": record.duration.as_secs().max(1),
                "acquireTime": micros(record.acquired), "renewTime": micros(record.renewed),
                "leaseTransitions": record.transitions,
            },
        })
    }

    fn problem(&self, failure: &Failure) -> Problem {
        let remedy = match failure.code() {
            Some(404) => format!("make the namespace: `kubectl create namespace {}`", self.namespace),
            _ => remedy(
                failure,
                "create on leases, and get, list, watch and update on this one (a Role and its binding)",
            ),
        };
        let object = format!("{}/Lease/{NAME}", self.namespace);
        let reason = format!(
            "cannot be read or written, so that this replica writes nothing to the cluster: {failure}"
        );
        let (cluster, field) = (&self.cluster.0, String::new());
        Problem::of_object(cluster, Some(object), field, Severity::Warning, reason, remedy)
    }
}

/// Reads a Lease. What a field does not say in a way that makes sense counts as not said: nobody holds it, or since ever.
fn lease(object: &Value) -> Result<Lease, Failure> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let number = |path: &str| object.pointer(path).and_then(Value::as_u64);
    let time = |path: &str| {
        text(path)
            .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
            .map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
    };
    let version = text("/metadata/resourceVersion").filter(|version| !version.is_empty());
    let version = version.ok_or_else(|| Failure::Garbage("a Lease has no version".into()))?;
    Ok(Lease {
        version: version.to_owned(),
        record: Record {
            holder: text("/spec/holderIdentity").unwrap_or_default().to_owned(),
            duration: Duration::from_secs(number("/spec/leaseDurationSeconds").unwrap_or(0).clamp(1, 3600)),
            acquired: time("/spec/acquireTime"),
            renewed: time("/spec/renewTime"),
            transitions: number("/spec/leaseTransitions").and_then(|n| n.try_into().ok()).unwrap_or(0),
        },
    })
}

/// As Kubernetes writes its `MicroTime`.
pub(super) fn micros(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from(at).format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_however_strange_they_are() {
        let object = json!({ "metadata": { "resourceVersion": "12" }, "spec": {
            "holderIdentity": "pod-a", "leaseDurationSeconds": 15, "acquireTime": "2026-01-02T03:04:05.000006Z",
            "renewTime": "2026-01-02T03:04:07.500000Z", "leaseTransitions": 2 } });
        let found = lease(&object).expect("a Lease");
        assert_eq!((&*found.version, &*found.record.holder, found.record.transitions), ("12", "pod-a", 2));
        assert_eq!(micros(found.record.renewed), "2026-01-02T03:04:07.500000Z");
        assert_eq!(micros(found.record.acquired), "2026-01-02T03:04:05.000006Z");
        for spec in
            [json!(null), json!({ "leaseDurationSeconds": -1, "leaseTransitions": 1e99, "renewTime": "x" })]
        {
            let strange = json!({ "metadata": { "resourceVersion": "1" }, "spec": spec });
            let found = lease(&strange).expect("a Lease").record;
            assert_eq!((&*found.holder, found.duration, found.transitions), ("", Duration::from_secs(1), 0));
        }
        let huge =
            json!({ "metadata": { "resourceVersion": "1" }, "spec": { "leaseDurationSeconds": u64::MAX } });
        assert_eq!(lease(&huge).expect("a Lease").record.duration, Duration::from_secs(3600));
        assert!(lease(&json!({})).is_err());
    }
}
