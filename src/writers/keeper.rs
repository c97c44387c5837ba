//! Keeps the ConfigMap with the roots in every namespace of a cluster, while this replica leads there.

use std::time::Instant;

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    PATIENCE, Standing, Writer,
    metrics::Outcome,
    news_or, remedy,
    root_certs::{self, Due, Map, NAME, Namespace, Plan},
};
use crate::{
    model::ClusterId,
    registry::{
        Problem, Severity,
        kubernetes::{self, Access, Failure, Seen},
    },
};

/// What problems are said under.
pub(super) const TOPIC: &str = "root certificates";
/// Written at a time.
const AT_ONCE: usize = 8;
/// So many namespaces are named.
const NAMED: usize = 5;

/// One leader's term.
pub(super) struct Keeper<'a> {
    writer: &'a Writer,
    cluster: &'a ClusterId,
    access: &'a Access,
    standing: watch::Receiver<Standing>,
    plan: Mutex<Plan>,
    /// The plan is to be looked at again.
    news: Notify,
    /// Why namespaces or ConfigMaps cannot be read.
    unread: Mutex<[Option<Failure>; 2]>,
}

impl<'a> Keeper<'a> {
    pub fn new(
        writer: &'a Writer,
        cluster: &'a ClusterId,
        access: &'a Access,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        let plan = Mutex::new(Plan::new(writer.namespace.clone()));
        Self { writer, cluster, access, standing, plan, news: Notify::new(), unread: Mutex::default() }
    }

    /// For ever; dropped when the term is over.
    pub async fn run(self) {
        let namespaces = kubernetes::follow::<Namespace>(self.access, "/api/v1/namespaces?", |seen| {
            self.see(0, seen, |plan, seen| match seen {
                Seen::All(all) => plan.all_namespaces(all),
                Seen::Now(namespace) => plan.namespace(namespace),
                Seen::Gone(namespace) => plan.no_such_namespace(&namespace),
                Seen::Away(_) => {}
            });
        });
        let path = format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{NAME}&");
        let maps = kubernetes::follow::<Map>(self.access, &path, |seen| {
            self.see(1, seen, |plan, seen| match seen {
                Seen::All(all) => plan.all_maps(all),
                Seen::Now(map) => plan.map(map),
                Seen::Gone(map) => plan.no_map(&map),
                Seen::Away(_) => {}
            });
        });
        tokio::select! {
            never = namespaces => match never {},
            never = maps => match never {},
            () = self.follow_inputs() => {}
            () = self.write_what_is_due() => {}
        }
    }

    fn see<T>(&self, which: usize, seen: Seen<T>, take: impl FnOnce(&mut Plan, Seen<T>)) {
        let failure = match &seen {
            Seen::Away(failure) => Some(failure.clone()),
            _ => None,
        };
        self.unread.lock()[which] = failure;
        take(&mut self.plan.lock(), seen);
        self.news.notify_one();
    }

    async fn follow_inputs(&self) {
        let (mut roots, mut mesh) = (self.writer.roots.clone(), self.writer.discovery.subscribe());
        loop {
            {
                let mut plan = self.plan.lock();
                plan.set_roots(roots.borrow_and_update().clone());
                let mesh = mesh.borrow_and_update();
                plan.set_selectors(mesh.as_ref().map(|mesh| mesh.discovery_selectors.as_slice().into()));
            }
            self.news.notify_one();
            let changed = tokio::select! {
                changed = roots.changed() => changed,
                changed = mesh.changed() => changed,
            };
            if changed.is_err() {
                // Who could say more is gone: the process ends.
                return std::future::pending().await;
            }
        }
    }

    async fn write_what_is_due(&self) {
        let mut waiting = Vec::new();
        let mut writing = FuturesUnordered::new();
        loop {
            let next = {
                let mut plan = self.plan.lock();
                waiting.extend(plan.due(Instant::now()));
                plan.next(Instant::now())
            };
            while writing.len() < AT_ONCE
                && let Some(due) = waiting.pop()
            {
                writing.push(self.write(due));
            }
            self.writer.notices.set(self.cluster, TOPIC, self.problems());
            tokio::select! {
                () = news_or(&self.news, next) => {}
                Some(()) = writing.next() => {}
            }
        }
    }

    /// Writes one, if this replica may still do so, and not for longer than it may.
    async fn write(&self, due: Due) {
        let Some(left) = self.standing.borrow().left() else {
            return self.plan.lock().put_back(&due, Instant::now());
        };
        let path = format!("/api/v1/namespaces/{}/configmaps/{NAME}", due.namespace);
        let result = self.access.client().apply(&path, &root_certs::object(&due), left.min(PATIENCE)).await;
        let outcome = if result.is_ok() { due.outcome } else { Outcome::Failed };
        self.writer.metrics.root_cert(self.cluster, outcome);
        let (cluster, namespace) = (self.cluster, &due.namespace);
        match &result {
            Ok(_) => tracing::debug!(%cluster, %namespace, ?outcome, "ConfigMap {NAME}"),
            Err(failure) => tracing::debug!(%cluster, %namespace, %failure, "ConfigMap {NAME} not written"),
        }
        self.plan.lock().done(&due, result, Instant::now());
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |object: String, reason: String, remedy: String| {
            let (cluster, field) = (&self.cluster.0, String::new());
            Problem::of_object(cluster, Some(object), field, Severity::Warning, reason, remedy)
        };
        let mut problems = Vec::new();
        let unread = self.unread.lock().clone();
        for (failure, what) in unread.into_iter().zip(["namespaces", "ConfigMaps"]) {
            if let Some(failure) = failure {
                let remedy =
                    remedy(&failure, &format!("get, list and watch on {what} (ConfigMaps: only {NAME})"));
                let reason = format!("is not kept in namespaces, because {what} cannot be read: {failure}");
                problems.push(problem(format!("ConfigMap/{NAME}"), reason, remedy));
            }
        }
        let plan = self.plan.lock();
        for (failure, namespaces) in plan.failures().into_values() {
            let remedy =
                remedy(&failure, &format!("create on configmaps, and get, list, watch and patch on {NAME}"));
            let reason = format!("is not written in {}: {failure}", named(&namespaces));
            problems.push(problem(format!("ConfigMap/{NAME}"), reason, remedy));
        }
        let fights = plan.fights(Instant::now());
        if let Some((_, rival)) = fights.first() {
            let namespaces: Vec<_> = fights.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "is changed back again and again in {} by {rival}; it is put right more and more rarely",
                named(&namespaces)
            );
            let remedy =
                "one control plane writes it: end the other one (an istiod?), or give both the same root";
            problems.push(problem(format!("ConfigMap/{NAME}"), reason, remedy.to_owned()));
        }
        problems
    }
}

fn named(namespaces: &[&str]) -> String {
    let first = namespaces.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match namespaces.len() {
        1 => format!("namespace {first}"),
        n if n <= NAMED => format!("{n} namespaces ({first})"),
        n => format!("{n} namespaces ({first}, …)"),
    }
}
