//! Where connections read to, and write from.
//!
//! Memory that a thread uses again and again is in its processor's cache; memory that is allocated anew mostly is not.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// What one read takes at most.
pub const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// One for all connections of a thread: within a poll nobody else needs it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
    /// An empty buffer with room, if nobody writes from it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The largest buffer that is kept for the next writer.
const SPARE_BYTES: usize = 16 << 10;

/// An empty buffer. It may have room that somebody had before.
pub fn buffer() -> Vec<u8> {
    SPARE.take()
}

/// Gives a buffer back.
pub fn give_back(mut buffer: Vec<u8>) {
    if (1..=SPARE_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    }
}

/// Reads once, and gives what came to `take`: nothing, if this is the end. Ready: there may be more. `take` must not read
/// in its turn.
pub fn poll_read<T>(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    })
}
