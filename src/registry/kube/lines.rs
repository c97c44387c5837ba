//! The lines of a watch, as they come.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::time::timeout;

use super::failure::{Failure, with_causes};

/// An object of etcd has 1.5 MiB at most, its JSON some more.
const MAX_LINE: usize = 32 << 20;
/// API servers end a watch after this many seconds, at least; at most twice as many.
const LIFETIME: u64 = 300;
/// A watch that ends sooner was none.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// The path of a watch of a collection. `path` ends with `?` or `&`; `from` are the options that say from where on.
pub fn watch_path(path: &str, from: &str) -> String {
    let seconds = rand::random_range(LIFETIME..=2 * LIFETIME);
    format!("{path}watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}")
}

/// Reads whole lines.
pub struct Lines {
    body: Body,
    rest: BytesMut,
    /// How long nothing may come.
    silence: Duration,
}

impl Lines {
    pub fn new(body: Body, silence: Duration) -> Self {
        Self { body, rest: BytesMut::new(), silence }
    }

    /// How long silence is from now on.
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// The whole lines that have come, at least one; none at the end. A line that the end cuts off is not one. May be
    /// cancelled at any time: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match timeout(self.silence, self.body.frame()).await {
                Err(_) => return Err(Failure::Silent(self.silence)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Failure::Unreachable(with_causes(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(data) = frame.data_ref() else { continue };
            // What was there before has no end of a line in it.
            let end = memchr::memrchr(b'\n', data).map(|at| self.rest.len() + at + 1);
            self.rest.extend_from_slice(data);
            match end {
                Some(end) => return Ok(Some(self.rest.split_to(end).freeze())),
                None if self.rest.len() > MAX_LINE => {
                    return Err(Failure::Garbage(format!("a line is longer than {} MiB", MAX_LINE >> 20)));
                }
                None => {}
            }
        }
    }
}
