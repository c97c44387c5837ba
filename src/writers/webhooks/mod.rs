//! Keeps the validating webhooks of the own cluster, while this replica leads there: the roots that the API server trusts us by
//! (`caBundle`), and that what we would refuse cannot be stored at all (`failurePolicy`) once it is proven that we are asked.
//!
//! ```text
//!  ValidatingWebhookConfigurations, roots --> Plan (pure): what is due --> write it
//!                                                                     '--> prove it: a dry run that has to be refused
//! ```

mod plan;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use self::plan::{Due, Plan, Unproven};
use super::{PATIENCE, Standing, Writer, metrics::Outcome, news_or, remedy};
use crate::{
    model::ClusterId,
    registry::{
        Problem, Severity,
        kubernetes::{self, Access, Failure, Seen},
    },
    webhook::ALWAYS_REJECT,
};

/// What problems are said under.
pub(super) const TOPIC: &str = "webhooks";
/// Which are ours. There is one revision of landbridge in a cluster, Istio's `default`.
const LABEL: (&str, &str) = ("istio.io/rev", "default");
const ALL: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
/// For a dry run: the API server waits ten seconds for a webhook that it does not reach.
const LONG: Duration = Duration::from_secs(15);
/// Versions of Istio's Gateway, the newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// One leader's term.
pub(super) struct Patcher<'a> {
    writer: &'a Writer,
    cluster: &'a ClusterId,
    access: &'a Access,
    standing: watch::Receiver<Standing>,
    plan: Mutex<Plan>,
    /// The plan is to be looked at again.
    news: Notify,
    unread: Mutex<Option<Failure>>,
}

impl<'a> Patcher<'a> {
    pub fn new(
        writer: &'a Writer,
        cluster: &'a ClusterId,
        access: &'a Access,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        let (plan, unread) = (Mutex::new(Plan::default()), Mutex::default());
        Self { writer, cluster, access, standing, plan, news: Notify::new(), unread }
    }

    /// For ever; dropped when the term is over.
    pub async fn run(self) {
        let path = format!("{ALL}?labelSelector={}%3D{}&", LABEL.0.replace('/', "%2F"), LABEL.1);
        let look = kubernetes::follow::<Value>(self.access, &path, |seen| {
            let mut plan = self.plan.lock();
            let mut unread = None;
            match seen {
                Seen::All(all) => plan.all(all),
                Seen::Now(configuration) => plan.now(configuration),
                Seen::Gone(configuration) => plan.gone(&configuration),
                Seen::Away(failure) => unread = Some(failure),
            }
            *self.unread.lock() = unread;
            self.news.notify_one();
        });
        tokio::select! {
            never = look => match never {},
            () = self.follow_roots() => {}
            () = self.do_what_is_due() => {}
        }
    }

    async fn follow_roots(&self) {
        let mut roots = self.writer.roots.clone();
        loop {
            let bundle = roots.borrow_and_update().as_ref().map(|roots| STANDARD.encode(&**roots));
            self.plan.lock().set_bundle(bundle);
            self.news.notify_one();
            if roots.changed().await.is_err() {
                // The process ends.
                return std::future::pending().await;
            }
        }
    }

    async fn do_what_is_due(&self) {
        loop {
            let (due, next) = {
                let mut plan = self.plan.lock();
                let now = Instant::now();
                (plan.due(now), plan.next(now))
            };
            self.writer.notices.set(self.cluster, TOPIC, self.problems());
            match due {
                Some(Due::Write { name, configuration, outcome }) => {
                    self.write(name, &configuration, outcome).await;
                }
                Some(Due::Prove) => tokio::select! {
                    proof = self.prove() => self.plan.lock().proven(proof, Instant::now()),
                    // There may be something to write, which is more urgent.
                    () = self.news.notified() => {}
                },
                None => news_or(&self.news, next).await,
            }
        }
    }

    /// Writes one, if this replica may still do so, and not for longer than it may.
    async fn write(&self, name: String, configuration: &Value, outcome: Outcome) {
        let Some(left) = self.standing.borrow().left() else {
            return self.plan.lock().put_back(&name, Instant::now());
        };
        let path = format!("{ALL}/{name}");
        let result = self.access.client().put(&path, configuration, left.min(PATIENCE)).await;
        let cluster = self.cluster;
        match &result {
            Ok(_) => tracing::info!(%cluster, %name, ?outcome, "ValidatingWebhookConfiguration"),
            Err(failure) => {
                tracing::debug!(%cluster, %name, %failure, "ValidatingWebhookConfiguration not written");
            }
        }
        self.writer.metrics.webhook(cluster, if result.is_ok() { outcome } else { Outcome::Failed });
        self.plan.lock().written(&name, result, Instant::now());
    }

    /// Whether the API server asks us before it stores an object: one that is always refused is, and by us.
    async fn prove(&self) -> Result<(), Unproven> {
        let namespace = &self.writer.namespace;
        let mut failure = None;
        for version in VERSIONS {
            let object = json!({
                "apiVersion": format!("networking.istio.io/{version}"), "kind": "Gateway",
                "metadata": { "name": "invalid-gateway", "namespace": namespace,
                    "labels": { LABEL.0: LABEL.1 }, "annotations": { ALWAYS_REJECT: "true" } },
                "spec": {},
            });
            let path =
                format!("/apis/networking.istio.io/{version}/namespaces/{namespace}/gateways?dryRun=All");
            let body = object.to_string().into_bytes();
            failure = self.access.client().post(&path, body, LONG).await.err();
            if !failure.as_ref().is_some_and(Failure::is_missing) {
                break;
            }
        }
        plan::judge(failure)
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |name: &str, reason: String, remedy: String| {
            let object = format!("ValidatingWebhookConfiguration/{name}");
            let (cluster, field) = (&self.cluster.0, String::new());
            Problem::of_object(cluster, Some(object), field, Severity::Warning, reason, remedy)
        };
        let kind = "validatingwebhookconfigurations";
        let mut problems = Vec::new();
        if let Some(failure) = &*self.unread.lock() {
            let reason = format!("is not kept, because {kind} cannot be read: {failure}");
            problems.push(problem("*", reason, remedy(failure, &format!("list and watch on {kind}"))));
        }
        let plan = self.plan.lock();
        for (name, failure) in plan.failures() {
            let reason = format!("its caBundle and failurePolicy are not kept: {failure}");
            problems.push(problem(name, reason, remedy(failure, &format!("update on {kind} {name}"))));
        }
        for name in plan.fights(Instant::now()) {
            let reason = "is changed back again and again; it is put right more and more rarely".to_owned();
            let remedy = "one control plane writes it: end the other one (an istiod?)".to_owned();
            problems.push(problem(name, reason, remedy));
        }
        if let Some((unproven, names)) = plan.unproven() {
            let reason = format!(
                "failurePolicy stays as it is, so that broken objects may be stored: {}",
                unproven.reason()
            );
            let remedy = match unproven {
                Unproven::Failed(failure) => remedy(failure, "create on gateways of networking.istio.io"),
                Unproven::Taken => "let the API server reach 15017 of landbridge (Service istiod, port 443): is a firewall between?".to_owned(),
            };
            problems.push(problem(&names.join(", "), reason, remedy));
        }
        problems
    }
}
