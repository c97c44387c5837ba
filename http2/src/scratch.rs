//! Where connections read to.

use std::{
    cell::RefCell,
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
