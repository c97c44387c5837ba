//! The bytes of a snapshot: a line that says what it is, with a checksum of all that follows; a line that says of what; and
//! a line of JSON for each object.
//!
//! ```text
//! landbridge-snapshot/2 0f343b0931126a20f133d67c2b018a3b
//! {"controlPlane":"east","cluster":"west","server":"https://192.0.2.1:6443/","joined":true,"taken":1790000000,"objects":1}
//! {"namespace":"production","name":"backend","object":{"Service":{…}}}
//! ```
//!
//! Fields that are new to an object are read as their defaults, and need no new version. A new kind, a field whose
//! absence would mean something else than it did, or another meaning of an old one does: what cannot be read whole is not
//! served at all.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::model::{ClusterId, Kind, Object};

const MAGIC: &str = "landbridge-snapshot/";
/// The version that is written. 2: with ServiceExports and ServiceImports.
const VERSION: u32 = 2;
/// The oldest version that is read: what it says means the same still.
const OLDEST: u32 = 1;
/// A header is two short lines.
const LONGEST_HEADER: u64 = 64 * 1024;

/// Of what a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The cluster that the control plane belongs to: whose configuration was in force.
    pub control_plane: ClusterId,
    /// The cluster that was read.
    pub cluster: ClusterId,
    /// The address of its API server.
    pub server: Arc<str>,
    /// A remote secret named it, not a flag.
    pub joined: bool,
    /// Seconds since 1970.
    pub taken: u64,
    /// How many follow.
    pub objects: usize,
}

/// A line: an object and its name, for not every kind knows its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// As it was in force.
    pub object: Object,
}

/// Why a snapshot is not served.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It does not begin like one.
    #[error("it is not a snapshot of landbridge")]
    Other,
    /// It is of another version of the format.
    #[error("its format is version {0}, and this landbridge reads versions {OLDEST} to {VERSION}")]
    Version(u32),
    /// Its checksum is not that of its content.
    #[error("it is damaged or cut off: its checksum does not fit")]
    Damaged,
    /// It is of something else.
    #[error("it was taken of {what} {found}, and this is {wanted}")]
    Foreign {
        /// What differs.
        what: &'static str,
        /// In the snapshot.
        found: String,
        /// Here.
        wanted: String,
    },
    /// Something in it means nothing to this landbridge.
    #[error("line {0}: {1}")]
    Unreadable(usize, serde_json::Error),
    /// An object cannot be written.
    #[error("{0} cannot be written: {1}")]
    Unwritable(String, serde_json::Error),
}

/// A snapshot of these; secrets among them are left out.
pub fn encode(header: &Header, items: &[Item]) -> Result<Vec<u8>, Unusable> {
    let unwritable = |name: &str, error| Unusable::Unwritable(name.to_owned(), error);
    let mut body = serde_json::to_vec(header).map_err(|error| unwritable("its header", error))?;
    body.push(b'\n');
    // Credentials stay in memory.
    for item in items.iter().filter(|item| item.object.kind() != Kind::RemoteSecret) {
        serde_json::to_writer(&mut body, item).map_err(|error| unwritable(&item.name, error))?;
        body.push(b'\n');
    }
    let mut bytes = first_line(VERSION, &body).into_bytes();
    bytes.append(&mut body);
    Ok(bytes)
}

/// Reads a snapshot whole, or not at all.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<Item>), Unusable> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| not_whole(bytes))?;
    let (first, body) = bytes.split_at(end + 1);
    let version = read_version(first)?;
    if first != first_line(version, body).as_bytes() {
        return Err(Unusable::Damaged);
    }
    let mut lines = body.split_inclusive(|b| *b == b'\n');
    let unreadable = |line| move |error| Unusable::Unreadable(line, error);
    let header: Header = serde_json::from_slice(lines.next().unwrap_or_default()).map_err(unreadable(2))?;
    let mut items = Vec::with_capacity(header.objects.min(bytes.len()));
    for (i, line) in lines.enumerate() {
        items.push(serde_json::from_slice(line).map_err(unreadable(i + 3))?);
    }
    Ok((header, items))
}

/// Reads only of what a snapshot is. Its content is not looked at, and may be damaged.
pub fn decode_header(path: &Path) -> io::Result<Header> {
    let mut lines = BufReader::new(File::open(path)?.take(LONGEST_HEADER)).lines();
    let mut line = || lines.next().unwrap_or_else(|| Ok(String::new()));
    read_version((line()? + "\n").as_bytes()).map_err(io::Error::other)?;
    serde_json::from_str(&line()?).map_err(io::Error::other)
}

pub(super) fn first_line(version: u32, body: &[u8]) -> String {
    format!("{MAGIC}{version} {:032x}\n", xxh3_128(body))
}

fn read_version(first: &[u8]) -> Result<u32, Unusable> {
    let text = std::str::from_utf8(first).ok().and_then(|text| text.strip_prefix(MAGIC));
    let version = text.and_then(|text| text.split_once(' ')).and_then(|(version, _)| version.parse().ok());
    match version {
        None => Err(Unusable::Other),
        Some(version @ OLDEST..=VERSION) => Ok(version),
        Some(other) => Err(Unusable::Version(other)),
    }
}

/// Without the end of its first line.
fn not_whole(bytes: &[u8]) -> Unusable {
    let begins = bytes.starts_with(MAGIC.as_bytes()) || MAGIC.as_bytes().starts_with(bytes);
    if begins { Unusable::Damaged } else { Unusable::Other }
}

// === impl Header ===

impl Header {
    /// Whether it is of this cluster, read by this control plane at this address. An address that is not known is not compared.
    pub fn check(
        &self,
        control_plane: &ClusterId,
        cluster: &ClusterId,
        server: Option<&str>,
    ) -> Result<(), Unusable> {
        let pairs = [
            ("cluster", self.cluster.as_str(), cluster.as_str()),
            ("what was known to the control plane of", self.control_plane.as_str(), control_plane.as_str()),
            ("the API server at", &*self.server, server.unwrap_or(&self.server)),
        ];
        let foreign = pairs.into_iter().find(|(_, found, wanted)| found != wanted);
        foreign.map_or(Ok(()), |(what, found, wanted)| {
            Err(Unusable::Foreign { what, found: found.to_owned(), wanted: wanted.to_owned() })
        })
    }
}

// === impl Unusable ===

impl Unusable {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Other => "keep other files out of the state directory's folder `clusters`",
            Self::Version(_) | Self::Damaged | Self::Unreadable(..) => {
                "nothing: it is written again once the cluster was read"
            }
            Self::Foreign { .. } => {
                "nothing, if the cluster was replaced or moved: it is written again once the cluster was read; \
                 else give each control plane a --state-dir of its own"
            }
            Self::Unwritable(..) => "report this",
        }
    }
}
