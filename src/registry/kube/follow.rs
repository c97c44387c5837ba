//! A small collection, followed whole: for what is written as well as read. Nothing of it goes to the pipeline.

use std::{convert::Infallible, time::Instant};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    backoff::Backoff,
    client::{Client, JSON},
    failure::Failure,
    lines::{Lines, SHORTEST, watch_path},
    source::{Access, Timing},
};
use crate::registry::convert::watched::Status;

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
    let timing = Timing::default();
    let mut clients = access.subscribe();
    let mut backoff = Backoff::new(timing.backoff.0, timing.backoff.1);
    let mut version = None;
    loop {
        let client = clients.borrow_and_update().clone();
        let began = Instant::now();
        let ended = tokio::select! {
            ended = round(&client, &timing, path, &mut version, &mut seen) => ended,
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
                if failure.is_missing() {
                    // The kind is gone with all objects. What comes back is another collection, and is listed.
                    version = None;
                }
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
    timing: &Timing,
    path: &str,
    version: &mut Option<String>,
    seen: &mut impl FnMut(Seen<T>),
) -> Result<(), Failure> {
    let from = match version {
        Some(version) => version.clone(),
        None => {
            let (all, listed) = list(client, timing, path).await?;
            seen(Seen::All(all));
            version.insert(listed).clone()
        }
    };
    let path = watch_path(path, &format!("resourceVersion={from}"));
    let answer = client.get(&path, JSON, timing.answer).await?;
    let mut lines = Lines::new(answer.into_body(), timing.silence);
    loop {
        let chunk = match lines.next().await {
            Ok(Some(chunk)) => chunk,
            // Over; or idle, or dead: opened again where it is, that shows.
            Ok(None) | Err(Failure::Silent(_)) => return Ok(()),
            Err(failure) => return Err(failure),
        };
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
}

async fn list<T: DeserializeOwned>(
    client: &Client,
    timing: &Timing,
    path: &str,
) -> Result<(Vec<T>, String), Failure> {
    let (mut all, mut next, mut version) = (Vec::new(), String::new(), None);
    loop {
        let body = client.get_page(path, JSON, &next, timing.answer).await?;
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
