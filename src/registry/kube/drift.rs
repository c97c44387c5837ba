//! What is known, compared from time to time with what the API server has: names and versions only, so that it is cheap.
//! A watch that lost something is begun again with a list, and what that repairs is counted.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::sleep};

use super::{
    backoff::jitter,
    client::{Client, METADATA_LIST},
    failure::Failure,
    kinds::Resource,
    source::Shared,
    table::Table,
};
use crate::{model::ObjectKey, registry::SourceStatus};

/// How long a watch may take to catch up with the list that it is compared with. It may never say so: see [`super::source::Timing::silence`].
const CATCH_UP: Duration = Duration::from_secs(90);
/// Of objects that drifted, so many are named in the log.
const NAMED: usize = 5;

/// Objects that may have drifted, and the version in which each is known.
type Suspects = HashMap<ObjectKey, Option<u64>>;

/// Compares every collection once in a while, for ever.
pub(super) async fn compare(
    shared: &Shared,
    resources: &[Resource],
    access: watch::Receiver<Arc<Client>>,
    status: &SourceStatus,
) {
    loop {
        let mut whole = true;
        for resource in resources {
            sleep(jitter(shared.timing.compare / u32::try_from(resources.len()).unwrap_or(1).max(1))).await;
            let client = access.borrow().clone();
            match compare_one(shared, resource, &client).await {
                Ok(0) => {}
                Ok(repaired) => status.repaired(repaired),
                // A custom resource that was taken away.
                Err(failure) if failure.is_missing() => {}
                // The watch meets the same failure, and says so.
                Err(failure) => {
                    whole = false;
                    tracing::debug!(cluster = %shared.cluster, kind = ?resource.kind, %failure, "not compared")
                }
            }
        }
        if whole {
            status.compared(SystemTime::now());
        }
    }
}

/// How many objects had drifted.
async fn compare_one(shared: &Shared, resource: &Resource, client: &Client) -> Result<u64, Failure> {
    let kind = resource.kind;
    let Some(api) = shared.watched_api(kind) else { return Ok(0) };
    let path = resource.path(api, &shared.root_namespace).unwrap_or_default();
    let mut listed = HashMap::new();
    let (mut next, mut version) = (Box::<str>::default(), 0);
    loop {
        let body = client.get_page(&path, METADATA_LIST, &next, shared.timing.answer).await?;
        let page = shared.view.lock().names(kind, &body, &mut listed)?;
        version = if version == 0 { page.version } else { version };
        if page.next.is_empty() {
            break;
        }
        next = page.next;
    }
    let mut suspects =
        shared.view.lock().table(kind).map(|t| suspects(t, &listed, version)).unwrap_or_default();
    if suspects.is_empty() {
        return Ok(0);
    }
    // Most of the time that is what the watch is about to say.
    let lists = shared.lists(kind);
    let until = Instant::now() + CATCH_UP.min(shared.timing.silence);
    while shared.progress(kind) < version && Instant::now() < until {
        sleep(shared.timing.tick).await;
    }
    keep_standing(shared, resource, &mut suspects);
    if suspects.is_empty() || shared.lists(kind) != lists {
        return Ok(0);
    }
    shared.list_again(kind);
    while shared.lists(kind) == lists && Instant::now() < until + CATCH_UP {
        sleep(shared.timing.tick).await;
    }
    let before = suspects.len();
    let all: Vec<_> = suspects.keys().take(NAMED).map(ToString::to_string).collect();
    keep_standing(shared, resource, &mut suspects);
    // Those that the list did not change were no drift: made and gone again meanwhile.
    let repaired = before - suspects.len();
    if repaired > 0 {
        tracing::warn!(cluster = %shared.cluster, ?kind, repaired, among = ?all,
            "a watch had missed changes; they were found by comparing, and repaired");
    }
    Ok(repaired as u64)
}

/// What the list and the table disagree about, but for what the watch already knows better.
fn suspects(table: &Table, listed: &HashMap<ObjectKey, u64>, version: u64) -> Suspects {
    let newer = listed.iter().filter_map(|(key, there)| {
        let known = table.version(key);
        known.is_none_or(|known| known < *there).then(|| (key.clone(), known))
    });
    let gone = table.versions().filter(|(key, known)| *known <= version && !listed.contains_key(key));
    newer.chain(gone.map(|(key, known)| (key, Some(known)))).collect()
}

/// Keeps those of which nothing was heard since.
fn keep_standing(shared: &Shared, resource: &Resource, suspects: &mut Suspects) {
    let view = shared.view.lock();
    if let Some(table) = view.table(resource.kind) {
        suspects.retain(|key, known| table.version(key) == *known);
    }
}
