//! One watch: lists a collection, follows it, and begins again wherever it breaks.
//!
//! ```text
//! version unknown -- streamed list, or pages --> version known -- watch from there --> ends, breaks, is silent
//!        ^ 410, asked to                              ^ with jittered, growing waits -----------'
//! ```

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    backoff::{Backoff, jitter},
    client::{Client, JSON, METADATA},
    failure::Failure,
    kinds::{Need, Resource},
    lines::{Lines, SHORTEST, watch_path},
    source::{Deaf, Shared},
    view::Said,
};
use crate::model::Change;

/// Reads one collection of a cluster.
pub(super) struct Watcher<'a> {
    shared: &'a Shared,
    resource: Resource,
    access: watch::Receiver<Arc<Client>>,
    /// The client in use.
    client: Arc<Client>,
    /// Which version of the collection's API.
    api: usize,
    /// Everything up to it is known; 0: nothing is.
    version: u64,
    /// The API server knows streamed lists.
    streams: bool,
    backoff: Backoff,
}

/// Why a round ended.
enum End {
    /// The API server ended the watch, as it does from time to time.
    Over,
    /// There is another client.
    Swapped,
    /// Another list is needed.
    Relist,
    Failed(Failure),
    Deaf,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Deaf> for End {
    fn from(Deaf: Deaf) -> Self {
        Self::Deaf
    }
}

impl<'a> Watcher<'a> {
    pub fn new(shared: &'a Shared, resource: Resource, mut access: watch::Receiver<Arc<Client>>) -> Self {
        let client = access.borrow_and_update().clone();
        let (shortest, longest) = shared.timing.backoff;
        let backoff = Backoff::new(shortest, longest);
        Self { shared, resource, access, client, api: 0, version: 0, streams: true, backoff }
    }

    /// Ends only when nobody receives any more.
    pub async fn run(mut self) {
        self.shared.pass_gate(&self.resource).await;
        loop {
            let began = Instant::now();
            let wait = match self.round().await {
                End::Over if began.elapsed() < SHORTEST => self.backoff.next(None),
                End::Over | End::Swapped => continue,
                End::Deaf => return,
                End::Relist => {
                    self.version = 0;
                    continue;
                }
                End::Failed(failure) if self.version == 0 && self.streams && failure.is_unsupported() => {
                    self.streams = false;
                    continue;
                }
                End::Failed(failure) if failure.is_missing() && self.resource.need == Need::Installed => {
                    if self.resource.path(self.api + 1, &self.shared.root_namespace).is_some() {
                        self.api += 1;
                        continue;
                    }
                    self.api = 0;
                    if self.not_installed(failure).await.is_err() {
                        return;
                    }
                    jitter(self.shared.timing.uninstalled)
                }
                End::Failed(failure) => {
                    if failure.is_expired() {
                        self.version = 0;
                    }
                    let wait = self.backoff.next(failure.retry_after());
                    tracing::debug!(cluster = %self.shared.cluster, kind = ?self.resource.kind, %failure, ?wait, "watch ended");
                    self.shared.failed(self.resource.kind, failure);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // New credentials, or another address: worth a try at once.
                _ = self.access.changed() => self.backoff.reset(),
            }
        }
    }

    async fn round(&mut self) -> End {
        self.client = self.access.borrow_and_update().clone();
        let opened = Instant::now();
        match self.list_and_follow().await {
            Err(end) => end,
            Ok(true) => End::Over,
            Ok(false) if opened.elapsed() >= SHORTEST => End::Over,
            Ok(false) => Failure::Unreachable("the watch was ended as soon as it was open".into()).into(),
        }
    }

    /// Until the API server ends the watch; whether it had said something.
    async fn list_and_follow(&mut self) -> Result<bool, End> {
        let kind = self.resource.kind;
        if self.version == 0 && !self.streams {
            self.list().await?;
        }
        let listing = self.version == 0;
        let from = if listing {
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned()
        } else {
            format!("resourceVersion={}", self.version)
        };
        let path = watch_path(&self.path(), &from);
        let timing = self.shared.timing;
        let answer = self.client.get(&path, JSON, timing.answer).await?;
        self.shared.opened(kind);
        if listing {
            self.shared.view.lock().begin(kind);
            self.follow(Lines::new(answer.into_body(), timing.answer), true).await
        } else {
            self.follow(Lines::new(answer.into_body(), timing.silence), false).await
        }
    }

    async fn follow(&mut self, mut lines: Lines, mut listing: bool) -> Result<bool, End> {
        let kind = self.resource.kind;
        let (shared, relist) = (self.shared, self.shared.relist.get(&kind));
        let asked_to_list = async || match relist {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        };
        let mut said_something = false;
        loop {
            let chunk = tokio::select! {
                _ = self.access.changed() => return Err(End::Swapped),
                () = asked_to_list(), if !listing => return Err(End::Relist),
                chunk = lines.next() => chunk,
            };
            let chunk = match chunk {
                // Idle, or dead: opened again where it is, that shows.
                Err(Failure::Silent(_)) if !listing => return Ok(true),
                chunk => chunk?,
            };
            let Some(chunk) = chunk else {
                return match listing {
                    true => Err(Failure::Unreachable("a list broke off".into()).into()),
                    false => Ok(said_something),
                };
            };
            let seen = Instant::now();
            let mut changes = Vec::new();
            let taken = self.take_in(&chunk, &mut listing, &mut changes);
            shared.send(changes, seen).await?;
            if !listing {
                shared.advanced(kind, self.version);
            }
            if taken? {
                shared.listed(kind, self.api);
                lines.set_silence(shared.timing.silence);
            }
            if !listing {
                said_something = true;
                shared.heard(kind);
                self.backoff.reset();
            }
        }
    }

    /// Takes in whole lines; whether one of them ended a list. What came before a failure counts.
    fn take_in(
        &mut self,
        chunk: &Bytes,
        listing: &mut bool,
        changes: &mut Vec<Change>,
    ) -> Result<bool, Failure> {
        let mut view = self.shared.view.lock();
        let mut ended = false;
        for line in chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            match view.line(self.resource.kind, line, changes)? {
                Said::Listed(version) => {
                    (self.version, *listing, ended) = (version, false, true);
                }
                // Objects of a list have versions of their own.
                Said::Change(version) | Said::Progress(version) if !*listing && version > 0 => {
                    self.version = version
                }
                _ => {}
            }
        }
        Ok(ended)
    }

    /// Lists page by page.
    async fn list(&mut self) -> Result<(), End> {
        let kind = self.resource.kind;
        self.shared.view.lock().begin(kind);
        let mut next = Box::<str>::default();
        let mut version = 0;
        loop {
            let body = self.client.get_page(&self.path(), JSON, &next, self.shared.timing.answer).await?;
            let seen = Instant::now();
            let mut changes = Vec::new();
            let page = self.shared.view.lock().page(kind, &body, &mut changes);
            let whole = page.as_ref().is_ok_and(|page| page.next.is_empty());
            if whole {
                self.shared.view.lock().end(kind, &mut changes);
            }
            self.shared.send(changes, seen).await?;
            let page = page?;
            // Pages are of one version of the collection, the first one's.
            version = if version == 0 { page.version } else { version };
            if whole {
                self.version = version;
                self.shared.listed(kind, self.api);
                self.shared.advanced(kind, version);
                return Ok(());
            }
            next = page.next;
        }
    }

    /// Of the collection, to be followed by options.
    fn path(&self) -> String {
        self.resource.path(self.api, &self.shared.root_namespace).unwrap_or_default()
    }

    /// The API server has no such kind. That its objects are gone is believed if their definition is.
    async fn not_installed(&mut self, failure: Failure) -> Result<(), Deaf> {
        let kind = self.resource.kind;
        self.version = 0;
        let known = self.shared.view.lock().table(kind).is_some_and(|table| !table.is_empty());
        if known {
            let definition = self.resource.definition();
            let answer = self.client.get_all(&definition, METADATA, self.shared.timing.answer).await;
            if !answer.is_err_and(|failure| failure.is_missing()) {
                self.shared.failed(kind, failure);
                return Ok(());
            }
            let mut changes = Vec::new();
            {
                let mut view = self.shared.view.lock();
                view.begin(kind);
                view.end(kind, &mut changes);
            }
            self.shared.send(changes, Instant::now()).await?;
        }
        self.shared.missing(kind);
        Ok(())
    }
}
