//! What calls have to say: from their bodies to the output, as windows allow.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;

use super::{call::Stage, core::Core, error::code, say};
use crate::{
    fetch,
    frame::{self, Header, flag, kind},
};

/// Larger frames than this would keep other streams waiting, whatever the client takes.
const LARGEST_DATA: u32 = 64 << 10;
/// Of how many streams that were ended before the client had ended its half this is remembered: frames of them may be
/// on their way.
const REMEMBERED: usize = 100;

impl<S, B> Core<S, B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Polls the call of a stream, if it is still there, and sends what comes of it.
    pub fn poll_call(&mut self, stream: u32) {
        let Some(at) = self.position(stream) else { return };
        let call = &mut self.calls[at].1;
        fetch(&*call.request.inbox);
        call.lister.unlist();
        let waker = call.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if let Stage::Answering(answer) = &mut call.stage {
            match answer.as_mut().poll(&mut cx) {
                Poll::Pending => return self.give_back(at),
                Poll::Ready(response) => {
                    let (head, body) = response.into_parts();
                    let last = body.is_end_stream();
                    call.stage = Stage::Sending(body);
                    self.say(stream, Some(head.status), &head.headers, last);
                    if last {
                        return self.finish(at);
                    }
                }
            }
        }
        while let Some(at) = self.position(stream) {
            let call = &mut self.calls[at].1;
            if !call.chunk.is_empty() {
                break;
            }
            let Stage::Sending(body) = &mut call.stage else { break };
            match Pin::new(body).poll_frame(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => {
                        call.chunk = chunk;
                        self.send(at);
                    }
                    Err(frame) => {
                        self.say(stream, None, &frame.into_trailers().unwrap_or_default(), true);
                        return self.finish(at);
                    }
                },
                Poll::Ready(Some(Err(_))) => return self.reset(at, code::INTERNAL),
                Poll::Ready(None) => {
                    let header = Header { length: 0, kind: kind::DATA, flags: flag::END_STREAM, stream };
                    self.out.frame(header, Bytes::new());
                    return self.finish(at);
                }
            }
        }
        if let Some(at) = self.position(stream) {
            self.give_back(at);
        }
    }

    /// Lets those send that waited for the socket or for the connection's window, in turn. Lists the calls that want to
    /// be polled for more.
    pub fn send_queued(&mut self, more: &mut Vec<u32>) {
        for _ in 0..self.queue.len() {
            if !self.has_room() {
                return;
            }
            let Some(stream) = self.queue.pop_front() else { return };
            let Some(at) = self.position(stream) else { continue };
            self.calls[at].1.queued = false;
            self.send(at);
            if self.calls[at].1.chunk.is_empty() {
                more.push(stream);
            }
        }
    }

    /// Whether somebody waits for the socket who could send.
    pub fn can_send(&self) -> bool {
        self.has_room() && !self.queue.is_empty()
    }

    fn has_room(&self) -> bool {
        self.window > 0 && self.out.len() < self.settings.output
    }

    /// Sends of a call's chunk what there is room for. What waits for room is put into the queue; what waits for the stream's
    /// window is not.
    fn send(&mut self, at: usize) {
        while self.has_room() {
            let (stream, call) = &mut self.calls[at];
            let most = call.window.min(self.window).min(i64::from(self.peer_frame.min(LARGEST_DATA)));
            let length = call.chunk.len().min(usize::try_from(most).unwrap_or(0));
            if length == 0 {
                return;
            }
            let part = call.chunk.split_to(length);
            if call.chunk.is_empty() {
                // What is left of a shared chunk would keep all of it.
                call.chunk = Bytes::new();
            }
            call.window -= length as i64;
            self.window -= length as i64;
            self.out
                .frame(Header { length: length as u32, kind: kind::DATA, flags: 0, stream: *stream }, part);
        }
        self.queue(at);
    }

    /// Goes on with a stream in its turn, if its window lets it.
    pub(super) fn queue(&mut self, at: usize) {
        let (stream, call) = &mut self.calls[at];
        if !call.chunk.is_empty() && call.window > 0 && !mem::replace(&mut call.queued, true) {
            self.queue.push_back(*stream);
        }
    }

    fn say(&mut self, stream: u32, status: Option<StatusCode>, headers: &HeaderMap, last: bool) {
        let block = say::block(status, headers, mem::take(&mut self.empty_table));
        let limit = self.peer_frame;
        self.out.write(|own| frame::write_headers(own, stream, &block, limit, last));
    }

    /// Our half of a stream has ended.
    fn finish(&mut self, at: usize) {
        if self.calls[at].1.request.ended {
            let stream = self.calls[at].0;
            self.remove(stream);
        } else {
            // The client need not send the rest of its request (RFC 9113, 8.1).
            self.reset(at, code::NO_ERROR);
        }
    }

    pub(super) fn reset(&mut self, at: usize, code: u32) {
        let stream = self.calls[at].0;
        self.out.word(kind::RST_STREAM, stream, code);
        if !self.calls[at].1.request.ended {
            self.remember(stream);
        }
        self.remove(stream);
    }

    pub(super) fn remember(&mut self, stream: u32) {
        if self.ended_early.len() == REMEMBERED {
            self.ended_early.pop_front();
        }
        self.ended_early.push_back(stream);
    }

    /// Forgets a stream and drops its call.
    pub(super) fn remove(&mut self, stream: u32) {
        if let Some(at) = self.position(stream) {
            let (_, call) = self.calls.remove(at);
            self.owe(call.request.unread);
        }
    }

    /// Tells the client of what was read of a call's request.
    fn give_back(&mut self, at: usize) {
        let (stream, call) = &mut self.calls[at];
        let read = call.request.read();
        call.request.owed += read;
        if call.request.owed > self.settings.stream_window / 2 && !call.request.ended {
            let owed = mem::take(&mut call.request.owed);
            call.request.window += owed;
            self.out.word(kind::WINDOW_UPDATE, *stream, owed);
        }
        self.owe(read);
    }

    pub(super) fn owe(&mut self, read: u32) {
        self.owed += read;
        if self.owed > self.settings.connection_window / 2 {
            let owed = mem::take(&mut self.owed);
            self.receive_window += owed;
            self.out.word(kind::WINDOW_UPDATE, 0, owed);
        }
    }

    /// Where a stream is among the calls.
    pub(super) fn position(&self, stream: u32) -> Option<usize> {
        self.calls.binary_search_by_key(&stream, |(id, _)| *id).ok()
    }
}
