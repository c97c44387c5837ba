//! Cuts what comes into frames.

use std::mem;

use super::error::{Violation, frame_size, protocol};
use crate::frame::{DEFAULT_FRAME_BYTES, HEADER_BYTES, Header, PREFACE};

/// Where the input stands. Between frames it keeps nothing.
#[derive(Debug, Default)]
pub struct Reader {
    /// Of the preface.
    greeted: usize,
    /// The beginning of a frame.
    kept: Vec<u8>,
}

impl Reader {
    /// Hands every frame that is complete to `each`. The input may be cut anywhere.
    pub fn read(
        &mut self,
        input: &[u8],
        mut each: impl FnMut(Header, &[u8]) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut input = self.greet(input)?;
        while !self.kept.is_empty() {
            let missing = wanted(&self.kept)? - self.kept.len();
            let (part, rest) = input.split_at(input.len().min(missing));
            self.kept.extend_from_slice(part);
            input = rest;
            if part.len() < missing {
                return Ok(());
            }
            if let Some((header, payload)) = whole(&self.kept)? {
                each(header, payload)?;
                self.kept = Vec::new();
            }
        }
        while let Some((header, payload)) = whole(input)? {
            each(header, payload)?;
            input = &input[HEADER_BYTES + payload.len()..];
        }
        self.kept.extend_from_slice(input);
        Ok(())
    }

    /// What comes after the preface.
    fn greet<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Violation> {
        let wanted = &PREFACE[self.greeted..];
        let (part, rest) = input.split_at(input.len().min(wanted.len()));
        if part != &wanted[..part.len()] {
            return Err(protocol("it does not begin with the preface of HTTP/2"));
        }
        self.greeted += part.len();
        Ok(rest)
    }
}

/// How many bytes the frame that begins so has, as far as is known; more than there are, or as many.
fn wanted(bytes: &[u8]) -> Result<usize, Violation> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(HEADER_BYTES) };
    let length = Header::read(header).length;
    if length > DEFAULT_FRAME_BYTES {
        return Err(frame_size("a frame is longer than 16,384 bytes"));
    }
    Ok(HEADER_BYTES + length as usize)
}

/// The frame at the beginning, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<(Header, &[u8])>, Violation> {
    let wanted = wanted(bytes)?;
    let frame = bytes.get(..wanted).and_then(|frame| frame.split_first_chunk::<HEADER_BYTES>());
    Ok(frame.map(|(header, payload)| (Header::read(header), payload)))
}

/// Puts header blocks together that come in several frames.
#[derive(Debug, Default)]
pub struct Blocks {
    open: Option<Block>,
}

#[derive(Debug)]
struct Block {
    header: Header,
    bytes: Vec<u8>,
    frames: u32,
}

/// The longest block, compressed.
const BLOCK_BYTES: usize = 64 << 10;
/// The most frames of one block: empty ones cost no bytes.
const BLOCK_FRAMES: u32 = 32;

impl Blocks {
    /// Refuses what must not stand between the parts of a block.
    pub fn check(&self, header: Header, continues: bool) -> Result<(), Violation> {
        match &self.open {
            Some(block) if continues && block.header.stream == header.stream => Ok(()),
            None if !continues => Ok(()),
            Some(_) => Err(protocol("a header block is interrupted")),
            None => Err(protocol("a CONTINUATION continues nothing")),
        }
    }

    /// The first part of a block that is not complete.
    pub fn begin(&mut self, header: Header, part: &[u8]) {
        self.open = Some(Block { header, bytes: part.to_vec(), frames: 1 });
    }

    /// The next part; the whole block if it is the last.
    pub fn add(&mut self, part: &[u8], last: bool) -> Result<Option<(Header, Vec<u8>)>, Violation> {
        let Some(block) = &mut self.open else { return Err(protocol("a CONTINUATION continues nothing")) };
        block.bytes.extend_from_slice(part);
        block.frames += 1;
        if block.bytes.len() > BLOCK_BYTES || block.frames > BLOCK_FRAMES {
            let code = super::error::code::ENHANCE_YOUR_CALM;
            return Err(Violation { code, why: "a header block is larger than 64 KiB or in over 32 frames" });
        }
        Ok(if last { mem::take(&mut self.open).map(|block| (block.header, block.bytes)) } else { None })
    }
}
