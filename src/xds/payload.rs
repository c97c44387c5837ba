//! A response on its way to HTTP/2.

use std::{cell::Cell, fmt::Display, io::Write, mem, sync::Arc};

use bytes::{BufMut, Bytes};
use landbridge_proto::wire::{field_len, put_field};

use super::{
    Frame, Protocol,
    contents::{Contents, Part, field},
};
use crate::{grpc, snapshot::Encoded};

/// Small resources are gathered into chunks of about so many bytes. Each chunk costs a turn through HTTP/2, and each
/// stream that a slow client does not read keeps a few of them.
const PAGE: usize = 64 * 1024;

/// A resource of at least so many bytes is a chunk of its own, shared with every other stream. Copying a smaller one costs
/// less than a DATA frame.
const SHARED: usize = 16 * 1024;

/// Pages of at most so many bytes are written into memory that is used again and again: that is in the processor's cache.
const SMALL: usize = 4096;

thread_local! {
    /// Such memory, if no page is in it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Fields of both protocols' responses, beside their resources (`envoy.service.discovery.v3`): `version_info` and
/// `system_version_info`, and so on.
const VERSION: u32 = 1;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED: u32 = 6;

/// A response as chunks. Each is made when HTTP/2 has room for it, so a response of megabytes that waits for its client is
/// a list of pointers.
///
/// Fields may stand in any order, so what is a stream's own goes first, and then come the fields that each resource
/// carries ready-made.
#[derive(Debug)]
pub struct Payload {
    protocol: Protocol,
    head: Vec<u8>,
    resources: Contents,
    /// Where the next chunk begins: in which part of the resources, and with which resource or page of it.
    at: (usize, usize),
    left: usize,
}

impl Payload {
    /// A response in the form of this protocol.
    pub fn new(protocol: Protocol, frame: Frame) -> Self {
        let left = frame.resources.length(protocol);
        let head = head(protocol, &frame, left);
        Self { protocol, head, resources: frame.resources, at: (0, 0), left }
    }
}

/// Resources in chunks, without an envelope.
pub(super) fn pages(protocol: Protocol, resources: &[Arc<Encoded>]) -> Vec<Bytes> {
    let resources = Contents::from(resources.to_vec());
    let left = resources.length(protocol);
    Payload { protocol, head: Vec::new(), resources, at: (0, 0), left }.collect()
}

/// The envelope without its resources, after the prefix of the whole message.
fn head(protocol: Protocol, frame: &Frame, resources: usize) -> Vec<u8> {
    let (version, nonce) = (Short::of(frame.version), Short::of(frame.nonce));
    let texts = [(VERSION, version.text()), (TYPE_URL, frame.kind.type_url()), (NONCE, nonce.text())];
    let removed = match protocol {
        Protocol::Delta => frame.removed.as_slice(),
        // It has no such field.
        Protocol::Sotw => &[],
    };
    let fields = || texts.into_iter().chain(removed.iter().map(|name| (REMOVED, &**name)));
    let len: usize = fields().map(|(_, text)| field_len(text.len())).sum();
    // A single small resource follows in the same buffer.
    let room = if resources < SHARED { resources } else { 0 };
    let room = grpc::PREFIX + len + room;
    let mut head = if room <= SMALL { SPARE.take() } else { Vec::new() };
    head.reserve_exact(room);
    head.put_slice(&grpc::prefix(len + resources));
    fields().for_each(|(tag, text)| put_field(&mut head, tag, text.as_bytes()));
    head
}

/// The text of a number, on the stack.
struct Short {
    bytes: [u8; 20],
    len: usize,
}

impl Short {
    fn of(number: impl Display) -> Self {
        let mut bytes = [0; 20];
        let mut room = bytes.as_mut_slice();
        // A number of 64 bits has 20 digits at most.
        let _ = write!(room, "{number}");
        let len = 20 - room.len();
        Self { bytes, len }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

/// A page whose memory is used again by the next one.
struct Small(Vec<u8>);

impl AsRef<[u8]> for Small {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.0.clear();
        SPARE.set(mem::take(&mut self.0));
    }
}

fn small_or_not(page: Vec<u8>) -> Bytes {
    if page.capacity() <= SMALL { Bytes::from_owner(Small(page)) } else { page.into() }
}

impl Iterator for Payload {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut page = mem::take(&mut self.head);
        let (part, at) = &mut self.at;
        while let Some(of) = self.resources.part(*part, self.protocol) {
            let next = match of {
                Part::Pages(pages) => pages.get(*at).map(|page| (&**page, Some(page.clone()))),
                Part::Resources(resources) => resources.get(*at).map(|resource| {
                    let bytes = field(self.protocol, resource);
                    (bytes, (bytes.len() >= SHARED).then(|| resource.share(bytes)))
                }),
            };
            let Some((bytes, shared)) = next else {
                (*part, *at) = (*part + 1, 0);
                continue;
            };
            let size = bytes.len();
            if !page.is_empty() && (shared.is_some() || page.len() + size > PAGE) {
                break;
            }
            if shared.is_none() {
                if page.capacity() - page.len() < size {
                    page.reserve(PAGE.min(self.left));
                }
                page.put_slice(bytes);
            }
            (*at, self.left) = (*at + 1, self.left - size);
            if shared.is_some() {
                return shared;
            }
        }
        (!page.is_empty()).then(|| small_or_not(page))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let is_done = self.left == 0 && self.head.is_empty();
        (usize::from(!is_done), is_done.then_some(0))
    }
}

#[cfg(test)]
mod tests {
    use landbridge_proto::landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message as _;

    use super::*;
    use crate::{
        snapshot::{ResourceType, Resources, Snapshot},
        xds::{FrameVersion, Kind, Nonce, Step},
    };

    fn delta(frame: &Frame) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: frame.version.to_string(),
            resources: frame.resources.iter().map(|r| r.resource()).collect(),
            type_url: frame.kind.type_url().to_owned(),
            nonce: frame.nonce.to_string(),
            removed_resources: frame.removed.iter().map(ToString::to_string).collect(),
            control_plane: None,
        }
    }

    fn sotw(frame: &Frame) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: frame.version.to_string(),
            resources: frame.resources.iter().map(|r| r.any()).collect(),
            type_url: frame.kind.type_url().to_owned(),
            nonce: frame.nonce.to_string(),
            control_plane: None,
        }
    }

    fn frame(sizes: &[usize]) -> Frame {
        let kind = Kind::Snapshot(ResourceType::Cluster);
        let resource = |(i, size): (usize, &usize)| {
            let name: Arc<str> = format!("n{i}").into();
            Arc::new(Encoded::new(name, kind.type_url(), &vec![7; *size], None, Arc::new([])))
        };
        Frame {
            kind,
            nonce: Nonce::FIRST,
            version: FrameVersion::Epoch(12),
            resources: sizes.iter().enumerate().map(resource).collect::<Vec<_>>().into(),
            removed: vec!["gone".into()],
            step: Arc::new(Step {
                sequence: 1,
                snapshot: Arc::new(Snapshot::empty()),
                secrets: Resources::default(),
            }),
            push: false,
        }
    }

    #[test]
    fn chunks_make_up_the_message() {
        let cases: [&[usize]; 7] = [
            &[],
            &[0],
            &[2000],
            &[100_000],
            &[10, 20_000, 10, SHARED - 1],
            &[300_000, 300_000, 5],
            &[1000; 500],
        ];
        for sizes in cases {
            let frame = frame(sizes);
            let chunks: Vec<Bytes> = Payload::new(Protocol::Delta, frame.clone()).collect();
            let mut bytes = chunks.concat();
            let message = bytes.split_off(grpc::PREFIX);
            assert_eq!(bytes, grpc::prefix(message.len()), "{sizes:?}");
            let read = DeltaDiscoveryResponse::decode(message.as_slice()).expect("a response");
            assert_eq!(read, delta(&frame));

            let message = Payload::new(Protocol::Sotw, frame.clone()).collect::<Vec<_>>().concat();
            let read = DiscoveryResponse::decode(&message[grpc::PREFIX..]).expect("a response");
            assert_eq!(read, sotw(&frame));
        }
    }

    #[test]
    fn small_resources_share_a_chunk_and_large_ones_are_shared() {
        let sizes = |frame: &Frame| -> Vec<usize> {
            Payload::new(Protocol::Delta, frame.clone()).map(|chunk| chunk.len()).collect()
        };
        assert_eq!(sizes(&frame(&[2000])).len(), 1);
        let many = sizes(&frame(&[1000; 500]));
        assert!(many.len() < 10 && many.iter().all(|size| *size <= PAGE), "{many:?}");
        let large = frame(&[5, 100_000, 5]);
        let chunks: Vec<Bytes> = Payload::new(Protocol::Delta, large.clone()).collect();
        assert_eq!(chunks.len(), 3);
        assert_eq!(
            chunks[1].as_ptr(),
            large.resources.iter().nth(1).map(|r| r.delta_field().as_ptr()).unwrap(),
            "the same memory"
        );
    }
}
