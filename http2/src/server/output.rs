//! What waits for the socket.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::{
    frame::{self, HEADER_BYTES, Header},
    scratch,
};

/// Smaller payloads are copied: a slice of its own costs three allocations.
const SMALL: usize = 4096;
/// Slices that are written at once.
const SLICES: usize = 16;

/// Frames in their order: pieces that are shared, and after them bytes of our own. Keeps no memory when it is empty.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    own: Vec<u8>,
    /// Of `own`, what has been written.
    written: usize,
    len: usize,
}

impl Output {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds what `write` appends.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.len == 0 {
            self.own = scratch::buffer();
        }
        let before = self.own.len();
        write(&mut self.own);
        self.len += self.own.len() - before;
    }

    /// Adds a frame of one 32-bit word.
    pub fn word(&mut self, kind: u8, stream: u32, word: u32) {
        self.write(|own| frame::write_word(own, kind, stream, word));
    }

    /// Adds a frame.
    pub fn frame(&mut self, header: Header, payload: Bytes) {
        let copied = if payload.len() < SMALL { payload.len() } else { 0 };
        self.write(|own| {
            own.reserve(HEADER_BYTES + copied);
            header.write(own);
            own.extend_from_slice(&payload[..copied]);
        });
        if copied == payload.len() {
            return;
        }
        let mut own = Bytes::from(mem::take(&mut self.own));
        own.advance(mem::take(&mut self.written));
        self.len += payload.len();
        self.pieces.extend([own, payload]);
    }

    /// Writes until nothing waits. Whatever the socket took until then is gone from here.
    pub fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let pieces = self.pieces.iter().map(|piece| &**piece);
            let all = pieces.chain([&self.own[self.written..]]);
            let count = slices.iter_mut().zip(all).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let polled = match &slices[..count] {
                [only] => Pin::new(&mut *io).poll_write(cx, only),
                several => Pin::new(&mut *io).poll_write_vectored(cx, several),
            };
            if polled.is_pending() {
                // It may take a while, and others write meanwhile.
                self.own.shrink_to_fit();
            }
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.len -= written;
        if self.len == 0 {
            scratch::give_back(mem::take(self).own);
            return;
        }
        while let Some(piece) = self.pieces.front_mut() {
            if piece.len() > written {
                return piece.advance(written);
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        self.written += written;
    }
}
