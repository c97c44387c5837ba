//! Says what is wrong with objects at the objects, as Events, while this replica leads in their cluster.
//!
//! ```text
//!  sources, remote secrets, notices --Problem--> Plan (pure): what is new, how often, how fast --> Reporter: one at a time
//! ```
//!
//! It looks by itself at what is known to be wrong: nobody waits for it, and what is solved before a look is not said.

mod object;
mod plan;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant, SystemTime};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use self::plan::{AGAIN, Done, Due, MOST, MOST_OF_OBJECT, Note, Plan};
use super::{PATIENCE, Standing, Writer, metrics::Told, remedy};
use crate::{
    model::{ClusterId, mcs::Api},
    registry::{
        Problem, Severity, Sources,
        kubernetes::{Access, Client, Failure, Named, Reference},
    },
};

/// What problems are said under.
pub(super) const TOPIC: &str = "events";
/// Between looks.
const LOOK: Duration = Duration::from_secs(1);

/// One leader's term.
pub(super) struct Reporter<'a> {
    writer: &'a Writer,
    cluster: &'a ClusterId,
    access: &'a Access,
    standing: watch::Receiver<Standing>,
}

impl<'a> Reporter<'a> {
    pub fn new(
        writer: &'a Writer,
        cluster: &'a ClusterId,
        access: &'a Access,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        Self { writer, cluster, access, standing }
    }

    /// For ever; dropped when the term is over.
    pub async fn run(self, sources: &Sources) {
        let mut plan = Plan::new(Instant::now());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let mut problems = sources.problems(self.cluster);
            if *self.cluster == self.writer.own {
                problems.extend(sources.problems_of_members(self.cluster));
            }
            let notes = problems.iter().filter_map(|problem| note(problem, &self.writer.mcs_api));
            let left_out = plan.see(notes, Instant::now());
            self.writer.metrics.told(self.cluster, Told::LeftOut, left_out);
            if let Some(due) = plan.due(Instant::now()) {
                let done = self.say(&due).await;
                plan.done(&due, done, Instant::now());
                // There may be more: look at once.
                look.reset_immediately();
            }
            self.writer.notices.set(self.cluster, TOPIC, self.problems(&plan));
        }
    }

    async fn say(&self, due: &Due) -> Done {
        let Some(left) = self.standing.borrow().left() else { return Done::NotNow };
        // Nothing is sent after this replica may write for sure.
        let said = tokio::time::timeout(left, self.write(due)).await;
        let (cluster, object) = (self.cluster, &due.note.object);
        match said.unwrap_or(Err(Failure::Silent(left))) {
            Ok(Some((told, count))) => {
                tracing::debug!(%cluster, %object, count, "Event");
                if let Some(told) = told {
                    self.writer.metrics.told(cluster, told, 1);
                }
                Done::Said(count)
            }
            Ok(None) => Done::NoObject,
            Err(failure) => {
                tracing::debug!(%cluster, %object, %failure, "Event not written");
                self.writer.metrics.told(cluster, Told::Failed, 1);
                Done::Failed(failure)
            }
        }
    }

    /// Writes what is due, unless it was said lately; how, and what the Event counts then.
    async fn write(&self, due: &Due) -> Result<Option<(Option<Told>, u32)>, Failure> {
        let client = self.access.client();
        let Some(named) = Named::parse(&due.note.object, &self.writer.mcs_api) else { return Ok(None) };
        let Some(object) = named.find(&client, PATIENCE).await? else { return Ok(None) };
        let path = format!("{}/{}", object::collection(&object), object::name(&object, &due.note));
        if let Some(before) = due.before {
            match count(&client, &path, before + due.times).await {
                // It was forgotten.
                Err(failure) if failure.is_missing() => {}
                counted => return counted.map(Some),
            }
        }
        match self.create(&client, &object, due).await {
            // One that led before us, or this replica before a restart, has said so.
            Err(failure) if failure.code() == Some(409) => {}
            created => return created.map(Some),
        }
        // Changes nothing, and shows it: the right to read Events is not needed.
        let event = client.merge(&path, &serde_json::json!({}), PATIENCE).await?;
        match object::seen(&event, SystemTime::now()) {
            (before, age) if age < AGAIN => Ok(Some((None, before))),
            (before, _) => count(&client, &path, before + due.times).await.map(Some),
        }
    }

    async fn create(
        &self,
        client: &Client,
        object: &Reference,
        due: &Due,
    ) -> Result<(Option<Told>, u32), Failure> {
        let event = object::new(object, &due.note, due.times, &self.writer.identity, SystemTime::now());
        client.post(&object::collection(object), event.to_string().into_bytes(), PATIENCE).await?;
        Ok((Some(Told::Written), due.times))
    }

    fn problems(&self, plan: &Plan) -> Vec<Problem> {
        let problem = |reason: String, remedy: String| {
            Problem::of_object(&self.cluster.0, None, String::new(), Severity::Warning, reason, remedy)
        };
        let failed = plan.failure().map(|(note, failure)| {
            let reason = format!("Events about objects such as {} are not written: {failure}", note.object);
            problem(
                reason,
                remedy(
                    failure,
                    "create and patch on events of events.k8s.io, and list on the kinds that are read",
                ),
            )
        });
        let left_out = (plan.left_out() > 0).then(|| {
            let reason = format!("more is wrong with objects than Events say: up to {MOST_OF_OBJECT} of an object, {MOST} in all");
            problem(reason, "see /debug/sourcez for all of it".to_owned())
        });
        failed.into_iter().chain(left_out).collect()
    }
}

/// What is said of an object that can be found.
fn note(problem: &Problem, mcs: &Api) -> Option<Note> {
    Note::of(problem).filter(|note| Named::parse(&note.object, mcs).is_some())
}

async fn count(client: &Client, path: &str, count: u32) -> Result<(Option<Told>, u32), Failure> {
    client.merge(path, &object::series(count, SystemTime::now()), PATIENCE).await?;
    Ok((Some(Told::Repeated), count))
}
