//! A stream and the call on it.

use std::{future::Future, pin::Pin, sync::Arc, task::Waker};

use bytes::Bytes;
use http::Response;

use super::{
    error::code,
    incoming::{Inbox, Reset},
    ready::CallWaker,
};

/// What a call comes to.
pub type Answer<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// A stream that is open, at least from our side.
pub struct Call<B> {
    pub stage: Stage<B>,
    pub waker: Waker,
    pub lister: Arc<CallWaker>,
    /// Of the body, what waits for windows.
    pub chunk: Bytes,
    /// What the client will take. Less than zero if it changed its mind (RFC 9113, 6.9.2).
    pub window: i64,
    /// It is among those that wait for the socket or the connection's window.
    pub queued: bool,
    pub request: RequestHalf,
}

/// What we are at.
pub enum Stage<B> {
    /// The call works on its answer.
    Answering(Answer<B>),
    /// The body is on its way.
    Sending(B),
}

/// The client's half of a stream.
pub struct RequestHalf {
    pub inbox: Arc<Inbox>,
    /// What the client may send.
    pub window: u32,
    /// Received, and not known to be read.
    pub unread: u32,
    /// Read, and not given back to the window.
    pub owed: u32,
    /// What it may have said about the length of the body, less what came.
    missing: Option<u64>,
    /// Everything is there.
    pub ended: bool,
}

impl RequestHalf {
    /// Nothing came so far. `window`: what may; `length`: what the client says that will, if it does.
    pub fn new(inbox: Arc<Inbox>, window: u32, length: Option<u64>) -> Self {
        Self { inbox, window, unread: 0, owed: 0, missing: length, ended: false }
    }

    /// Takes the payload of a DATA frame: `content` and its padding. An error is the code to reset the stream with.
    pub fn data(&mut self, content: &[u8], len: u32) -> Result<(), u32> {
        // Whatever becomes of it, it is given back to the connection's window.
        self.unread += content.len() as u32;
        if self.ended {
            return Err(code::STREAM_CLOSED);
        }
        self.window = self.window.checked_sub(len).ok_or(code::FLOW_CONTROL)?;
        if let Some(missing) = &mut self.missing {
            *missing = missing.checked_sub(content.len() as u64).ok_or(code::PROTOCOL)?;
        }
        if !content.is_empty() {
            self.inbox.put(content);
        }
        Ok(())
    }

    /// There is no more.
    pub fn end(&mut self) -> Result<(), u32> {
        if self.missing.is_some_and(|missing| missing > 0) {
            return Err(code::PROTOCOL);
        }
        self.ended = true;
        self.inbox.end(Ok(()));
        Ok(())
    }

    /// How much was read since this was asked last.
    pub fn read(&mut self) -> u32 {
        let read = u32::try_from(self.inbox.read()).unwrap_or(u32::MAX).min(self.unread);
        self.unread -= read;
        read
    }
}

impl Drop for RequestHalf {
    /// Who reads elsewhere shall not wait for ever.
    fn drop(&mut self) {
        self.inbox.end(Err(Reset));
    }
}
