//! One call on a connection, and how its messages go out as windows open.

use lean_http2::frame::{Header, flag, kind};

use super::grpc::{Answer, Assembler};

/// The state of a call that has not ended.
#[derive(Debug)]
pub struct Stream {
    pub id: u32,
    pub send_window: i64,
    /// Messages that the windows have not let through.
    pub pending: Vec<u8>,
    /// No more messages come.
    pub finishing: bool,
    finished: bool,
    /// Taken since the stream's window was last opened.
    pub taken: u32,
    pub answer: Answer,
    pub assembler: Assembler,
}

impl Stream {
    pub fn new(id: u32, window: u32) -> Self {
        Self {
            id,
            send_window: i64::from(window),
            pending: Vec::new(),
            finishing: false,
            finished: false,
            taken: 0,
            answer: Answer::default(),
            assembler: Assembler::default(),
        }
    }

    /// Moves to `out` what both windows allow, in frames of at most `limit` bytes. Between messages no memory is kept.
    pub fn write_to(&mut self, out: &mut Vec<u8>, connection_window: &mut i64, limit: u32) {
        let mut sent = 0;
        loop {
            let window = self.send_window.min(*connection_window).min(i64::from(limit));
            let part = (self.pending.len() - sent).min(usize::try_from(window).unwrap_or(0));
            let last = self.finishing && sent + part == self.pending.len();
            if self.finished || (part == 0 && !last) {
                break;
            }
            let flags = if last { flag::END_STREAM } else { 0 };
            Header { length: part as u32, kind: kind::DATA, flags, stream: self.id }.write(out);
            out.extend_from_slice(&self.pending[sent..sent + part]);
            sent += part;
            self.send_window -= part as i64;
            *connection_window -= part as i64;
            self.finished = last;
        }
        if sent == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..sent);
        }
    }
}
