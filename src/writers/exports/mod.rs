//! Makes a ServiceExport for every Service that is not local to its cluster, while this replica leads there
//! (`ENABLE_MCS_AUTO_EXPORT`).
//!
//! ```text
//!  Services, ServiceExports, namespaces, mesh --> Plan (pure): what is due --> Exporter: one at a time
//! ```
//!
//! As istiod: an export that is there is left as it is, whoever made it; nothing is ever deleted, because an export goes with its
//! Service; and where the kind is not installed there is nothing to do. Other than there, what is deleted is made again without a
//! restart, and so is what the mesh's settings come to allow: a Service stays out by `serviceSettings` with `clusterLocal`.

mod plan;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::plan::{Due, Name, Object, Plan};
use super::{PATIENCE, Standing, Writer, metrics::Outcome, news_or, remedy};
use crate::{
    model::ClusterId,
    registry::{
        Problem, Severity,
        kubernetes::{self, Access, Failure, Seen},
    },
};

/// What problems are said under.
pub(super) const TOPIC: &str = "service exports";
/// So many Services are named.
const NAMED: usize = 5;

/// One leader's term.
pub(super) struct Exporter<'a> {
    writer: &'a Writer,
    cluster: &'a ClusterId,
    access: &'a Access,
    standing: watch::Receiver<Standing>,
    plan: Mutex<Plan>,
    /// The plan is to be looked at again.
    news: Notify,
    /// What cannot be read, and why.
    unread: Mutex<BTreeMap<&'static str, Failure>>,
}

impl<'a> Exporter<'a> {
    pub fn new(
        writer: &'a Writer,
        cluster: &'a ClusterId,
        access: &'a Access,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        let plan = Mutex::new(Plan::new(writer.namespace.clone(), writer.domain.clone()));
        Self { writer, cluster, access, standing, plan, news: Notify::new(), unread: Mutex::default() }
    }

    /// For ever; dropped when the term is over.
    pub async fn run(self) {
        let namespaces = kubernetes::follow::<Object>(self.access, "/api/v1/namespaces?", |seen| {
            self.see("namespaces", seen, |plan, seen, now| match seen {
                Seen::All(all) => plan.all_namespaces(all, now),
                Seen::Now(namespace) => plan.namespace(namespace, now),
                Seen::Gone(namespace) => plan.no_namespace(&namespace, now),
                Seen::Away(_) => {}
            });
        });
        let services = kubernetes::follow::<Object>(self.access, "/api/v1/services?", |seen| {
            self.see("services", seen, |plan, seen, now| match seen {
                Seen::All(all) => plan.all_services(all, now),
                Seen::Now(service) => plan.service(service, now),
                Seen::Gone(service) => plan.no_service(&service, now),
                Seen::Away(_) => {}
            });
        });
        let exports = format!("{}/serviceexports?", self.api());
        let exports = kubernetes::follow::<Object>(self.access, &exports, |seen| {
            self.see("serviceexports", seen, |plan, seen, now| match seen {
                Seen::All(all) => plan.all_exports(all, now),
                Seen::Now(export) => plan.export(&export, now),
                Seen::Gone(export) => plan.no_export(&export, now),
                Seen::Away(failure) if failure.is_missing() => plan.no_kind(now),
                Seen::Away(_) => {}
            });
        });
        tokio::select! {
            never = namespaces => match never {},
            never = services => match never {},
            never = exports => match never {},
            () = self.follow_mesh() => {}
            () = self.make_what_is_due() => {}
        }
    }

    fn see<T>(&self, what: &'static str, seen: Seen<T>, take: impl FnOnce(&mut Plan, Seen<T>, Instant)) {
        {
            let mut unread = self.unread.lock();
            match &seen {
                // A kind that is not installed is no problem: then there is nothing to do.
                Seen::Away(failure) if !failure.is_missing() => drop(unread.insert(what, failure.clone())),
                _ => drop(unread.remove(what)),
            }
        }
        take(&mut self.plan.lock(), seen, Instant::now());
        self.news.notify_one();
    }

    async fn follow_mesh(&self) {
        let mut mesh = self.writer.discovery.subscribe();
        loop {
            let known = mesh.borrow_and_update().clone();
            self.plan.lock().set_mesh(known, Instant::now());
            self.news.notify_one();
            if mesh.changed().await.is_err() {
                // The process ends.
                return std::future::pending().await;
            }
        }
    }

    async fn make_what_is_due(&self) {
        loop {
            let (due, next) = {
                let mut plan = self.plan.lock();
                (plan.due(Instant::now()), plan.next())
            };
            self.writer.notices.set(self.cluster, TOPIC, self.problems());
            let Some(due) = due else {
                news_or(&self.news, next).await;
                continue;
            };
            self.make(&due).await;
        }
    }

    /// Makes one, if this replica may still do so, and not for longer than it may.
    async fn make(&self, due: &Due) {
        let Some(left) = self.standing.borrow().left() else {
            return self.plan.lock().put_back(due, Instant::now());
        };
        let (cluster, (namespace, name)) = (self.cluster, &due.name);
        let path = format!("{}/namespaces/{namespace}/serviceexports?fieldManager=landbridge", self.api());
        let object = plan::object(due, &self.writer.mcs_api).to_string().into_bytes();
        let made = self.access.client().post(&path, object, left.min(PATIENCE)).await;
        let made = made.and_then(|made| {
            serde_json::from_slice::<Object>(&made).map_err(|error| Failure::Garbage(error.to_string()))
        });
        match &made {
            Ok(_) => {
                tracing::debug!(%cluster, %namespace, %name, "ServiceExport made");
                self.writer.metrics.export(cluster, Outcome::Written);
            }
            // Somebody else was faster; the watch brings it.
            Err(failure) if failure.code() == Some(409) => {}
            Err(failure) => {
                tracing::debug!(%cluster, %namespace, %name, %failure, "ServiceExport not made");
                self.writer.metrics.export(cluster, Outcome::Failed);
            }
        }
        self.plan.lock().done(due, made.as_ref().map_err(Clone::clone), Instant::now());
    }

    /// The path of the API.
    fn api(&self) -> String {
        let api = &self.writer.mcs_api;
        format!("/apis/{}/{}", api.group, api.version)
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |reason: String, remedy: String| {
            let (cluster, field) = (&self.cluster.0, String::new());
            let object = Some("ServiceExport".to_owned());
            Problem::of_object(cluster, object, field, Severity::Warning, reason, remedy)
        };
        let mut problems = Vec::new();
        for (what, failure) in &*self.unread.lock() {
            let remedy = remedy(failure, &format!("list and watch on {what}"));
            problems.push(problem(format!("is not made, because {what} cannot be read: {failure}"), remedy));
        }
        for (failure, services) in self.plan.lock().failures().into_values() {
            let remedy = remedy(&failure, &format!("create on serviceexports.{}", self.writer.mcs_api.group));
            problems.push(problem(format!("is not made for {}: {failure}", named(&services)), remedy));
        }
        problems
    }
}

fn named(services: &[&Name]) -> String {
    let first = services.iter().take(NAMED).map(|(namespace, name)| format!("{namespace}/{name}"));
    let first = first.collect::<Vec<_>>().join(", ");
    match services.len() {
        1 => format!("Service {first}"),
        n if n <= NAMED => format!("{n} Services ({first})"),
        n => format!("{n} Services ({first}, …)"),
    }
}
