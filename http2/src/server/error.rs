use std::io;

use crate::frame;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The client did what HTTP/2 does not allow; it was told so.
    #[error("the client violates HTTP/2: {0}")]
    Violation(#[from] Violation),
    /// The client does not answer.
    #[error("the client is gone: it did not answer a ping")]
    Silent,
}

/// What the connection is ended for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({})", frame::reason(*.code))]
pub struct Violation {
    /// The code of RFC 9113, 7.
    pub code: u32,
    /// In words.
    pub why: &'static str,
}

/// The codes (RFC 9113, 7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL: u32 = 1;
    pub const INTERNAL: u32 = 2;
    pub const FLOW_CONTROL: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const COMPRESSION: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// An error of the type PROTOCOL_ERROR, by far the most.
pub fn protocol(why: &'static str) -> Violation {
    Violation { code: code::PROTOCOL, why }
}

/// An error of the type FRAME_SIZE_ERROR.
pub fn frame_size(why: &'static str) -> Violation {
    Violation { code: code::FRAME_SIZE, why }
}

/// An error of the type FLOW_CONTROL_ERROR.
pub fn flow_control(why: &'static str) -> Violation {
    Violation { code: code::FLOW_CONTROL, why }
}
