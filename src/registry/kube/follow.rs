//! A small collection, followed whole: for what is written as well as read. Nothing of it goes to the pipeline.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    backoff::Backoff,
    client::{Client, JSON},
    failure::Failure,
    lines::Lines,
    source::Access,
};
use crate::registry::convert::watched::Status;

/// For the head of an answer, and between parts of a list.
const ANSWER: Duration = Duration::from_secs(30);
/// On a watch. API servers send a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(90);
/// API servers end a watch after this many seconds, at least; at most twice as many.
const LIFETIME: u64 = 300;
/// A watch that ends sooner was none.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between tries, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What there is to know of the collection.
#[derive(Debug)]
pub enum Seen<T> {
    /// These are all that there are.
    All(Vec<T>),
    /// This one came or changed.
    Now(T),
    /// This one is gone; as it was last.
    Gone(T),
    /// It cannot be read for now. What was seen stays true until something else is.
    Away(Failure),
}

/// Tells all of a collection and then what changes, for ever. `path` ends with `?` or `&`, so that options can follow. An object
/// that cannot be read is passed over.
pub async fn follow<T: DeserializeOwned>(
    access: &Access,
    path: &str,
    mut seen: impl FnMut(Seen<T>),
) -> Infallible {
    let mut clients = access.subscribe();
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut version = None;
    loop {
        let client = clients.borrow_and_update().clone();
        let began = Instant::now();
        let ended = tokio::select! {
            ended = round(&client, path, &mut version, &mut seen) => ended,
            // New credentials go on at the same version.
            _ = clients.changed() => continue,
        };
        if began.elapsed() >= SHORTEST {
            backoff.reset();
        }
        let wait = match ended {
            Ok(()) if began.elapsed() >= SHORTEST => continue,
            Ok(()) => backoff.next(None),
            Err(failure) if failure.is_expired() && version.take().is_some() => continue,
            Err(failure) => {
                let wait = backoff.next(failure.retry_after());
                seen(Seen::Away(failure));
                wait
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = clients.changed() => backoff.reset(),
        }
    }
}

/// Lists, unless a version is known to go on from, and watches until the API server ends the watch.
async fn round<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    version: &mut Option<String>,
    seen: &mut impl FnMut(Seen<T>),
) -> Result<(), Failure> {
    let from = match version {
        Some(version) => version.clone(),
        None => {
            let (all, listed) = list(client, path).await?;
            seen(Seen::All(all));
            version.insert(listed).clone()
        }
    };
    let seconds = rand::random_range(LIFETIME..=2 * LIFETIME);
    let path =
        format!("{path}watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}");
    let answer = client.get(&path, JSON, ANSWER).await?;
    let mut lines = Lines::new(answer.into_body(), SILENCE);
    while let Some(chunk) = lines.next().await? {
        for line in chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let Line { r#type, object } = read(line)?;
            if r#type == "ERROR" {
                return Err(Failure::of_status(&Status::deserialize(object).unwrap_or_default()));
            }
            let now = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            let now = now.map(str::to_owned);
            match (&*r#type, T::deserialize(object)) {
                ("ADDED" | "MODIFIED", Ok(object)) => seen(Seen::Now(object)),
                ("DELETED", Ok(object)) => seen(Seen::Gone(object)),
                _ => {}
            }
            *version = now.or(version.take());
        }
    }
    Ok(())
}

async fn list<T: DeserializeOwned>(client: &Client, path: &str) -> Result<(Vec<T>, String), Failure> {
    let (mut all, mut next, mut version) = (Vec::new(), String::new(), None);
    loop {
        let body = client.get_page(path, JSON, &next, ANSWER).await?;
        let List { metadata, items } = read(&body)?;
        all.extend(items.into_iter().filter_map(|item| T::deserialize(item).ok()));
        // Pages are of one version of the collection, the first one's.
        let of_page = metadata.resource_version.filter(|version| !version.is_empty());
        version = version.or(of_page);
        match metadata.r#continue.filter(|next| !next.is_empty()) {
            Some(more) => next = more,
            None => break,
        }
    }
    // Something that has no version is no answer of an API server, and must not pass for an empty list.
    version.map(|version| (all, version)).ok_or_else(|| Failure::Garbage("a list has no version".into()))
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Value,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    // The parser's words would quote values.
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::Garbage(format!("{:?} at column {}", e.classify(), e.column())))
}
