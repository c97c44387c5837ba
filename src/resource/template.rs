//! Messages that are alike but for some texts, encoded once.
//!
//! Most of a resource is the same for all services with the same settings, and making prost's objects for it, an
//! allocation each, takes several times as long as copying the bytes. So a builder makes the message once, with a
//! [`place`] wherever a text of the service's belongs. A [`Template`] of it is bytes and places; a resource is a copy with
//! the texts filled in.

use std::cell::RefCell;

use prost::{
    Message,
    encoding::{WireType, decode_varint, encode_varint},
};

/// The first and last byte of a place. No message begins with it: its first field would have the number 0.
const EDGE: u8 = 1;
/// More levels than any message has. A text from outside may look like messages in messages without end.
const LEVELS: usize = 32;

/// Stands for text number `n`, alone in a field of a message that a template is made of. A repeated field may have many
/// texts there, or none.
pub fn place(n: u8) -> String {
    place_within(n, 0)
}

/// As [`place`], where what is there once for each text is not the field, but the message so many levels above it.
pub fn place_within(n: u8, levels: u8) -> String {
    [EDGE, b'0' + n, b'0' + levels, EDGE].map(char::from).into_iter().collect()
}

/// An encoded message with places.
#[derive(Debug)]
struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// A field for each text of a place.
    Text {
        key: u64,
        place: usize,
    },
    /// A field with further parts in it.
    Message {
        key: u64,
        parts: Vec<Part>,
    },
    /// Once for each text of a place.
    Each {
        place: usize,
        part: Box<Part>,
    },
}

impl Template {
    /// The template of a message with places.
    fn new(message: &impl Message) -> Self {
        let bytes = message.encode_to_vec();
        let parts = parse(&bytes, LEVELS).map(|(parts, _)| parts);
        Self { parts: parts.unwrap_or_else(|| vec![Part::Bytes(bytes)]) }
    }

    /// The message with these texts, by the numbers of their places: the bytes that prost has for it, except that an empty
    /// text is written, too.
    fn fill(&self, texts: &[&[&str]], scratch: &mut Backwards) -> Vec<u8> {
        put_all(&self.parts, Texts { all: texts, chosen: None }, scratch);
        scratch.take()
    }
}

// === reading ===

/// Of a place that belongs to a message above: the place, and how far above.
type Within = Option<(usize, u8)>;

/// None: these bytes are no message of so many levels.
fn parse(message: &[u8], levels: usize) -> Option<(Vec<Part>, Within)> {
    let below = levels.checked_sub(1)?;
    let (mut parts, mut within) = (Vec::new(), None);
    let mut alike = message;
    let mut rest = message;
    while !rest.is_empty() {
        let before = rest;
        let key = decode_varint(&mut rest).ok()?;
        match WireType::try_from(key & 7).ok()? {
            WireType::Varint => drop(decode_varint(&mut rest).ok()?),
            WireType::SixtyFourBit => rest = rest.get(8..)?,
            WireType::ThirtyTwoBit => rest = rest.get(4..)?,
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (content, after) = rest.split_at_checked(len)?;
                rest = after;
                if let Some((part, found)) = parse_field(key, content, below) {
                    push_bytes(&mut parts, &alike[..alike.len() - before.len()]);
                    parts.push(part);
                    within = found.or(within);
                    alike = rest;
                }
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        }
    }
    push_bytes(&mut parts, alike);
    Some((parts, within))
}

fn push_bytes(parts: &mut Vec<Part>, bytes: &[u8]) {
    if !bytes.is_empty() {
        parts.push(Part::Bytes(bytes.to_vec()));
    }
}

/// None: there is no place in it.
fn parse_field(key: u64, content: &[u8], levels: usize) -> Option<(Part, Within)> {
    if let [EDGE, n, above, EDGE] = content {
        let (place, above) = (usize::from(n.checked_sub(b'0')?), above.checked_sub(b'0')?);
        return Some((Part::Text { key, place }, (above > 0).then_some((place, above))));
    }
    if !content.contains(&EDGE) {
        return None;
    }
    let (parts, within) = parse(content, levels)?;
    if parts.iter().all(|part| matches!(part, Part::Bytes(_))) {
        return None;
    }
    let part = Part::Message { key, parts };
    Some(match within {
        Some((place, 1)) => (Part::Each { place, part: Box::new(part) }, None),
        Some((place, above)) => (part, Some((place, above - 1))),
        None => (part, None),
    })
}

// === writing ===

/// The texts of each place, or the one that it is about.
#[derive(Clone, Copy)]
struct Texts<'a> {
    all: &'a [&'a [&'a str]],
    chosen: Option<(usize, &'a [&'a str])>,
}

impl<'a> Texts<'a> {
    fn of(self, place: usize) -> &'a [&'a str] {
        match self.chosen {
            Some((chosen, text)) if chosen == place => text,
            _ => self.all.get(place).copied().unwrap_or_default(),
        }
    }
}

/// The last part first: a length is written when what it is of is there.
fn put_all(parts: &[Part], texts: Texts, out: &mut Backwards) {
    for part in parts.iter().rev() {
        put(part, texts, out);
    }
}

fn put(part: &Part, texts: Texts, out: &mut Backwards) {
    let before = out.written;
    match part {
        Part::Bytes(bytes) => out.put(bytes),
        Part::Message { key, parts } => {
            put_all(parts, texts, out);
            out.put_head(*key, out.written - before);
        }
        Part::Text { key, place } => {
            for text in texts.of(*place).iter().rev() {
                out.put(text.as_bytes());
                out.put_head(*key, text.len());
            }
        }
        Part::Each { place, part } => {
            for text in texts.of(*place).chunks(1).rev() {
                put(part, Texts { chosen: Some((*place, text)), ..texts }, out);
            }
        }
    }
}

/// Bytes of which the last are written first.
#[derive(Default)]
struct Backwards {
    bytes: Vec<u8>,
    /// How many there are, at the end of `bytes`.
    written: usize,
}

impl Backwards {
    fn put(&mut self, bytes: &[u8]) {
        let written = self.written + bytes.len();
        if written > self.bytes.len() {
            let mut grown = vec![0; 2 * written];
            let at = grown.len() - self.written;
            grown[at..].copy_from_slice(&self.bytes[self.bytes.len() - self.written..]);
            self.bytes = grown;
        }
        let at = self.bytes.len() - written;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.written = written;
    }

    /// A field's key and length, before what is in it.
    fn put_head(&mut self, key: u64, len: usize) {
        let mut head = [0; 20];
        let mut room = head.as_mut_slice();
        encode_varint(key, &mut room);
        encode_varint(len as u64, &mut room);
        let unused = room.len();
        self.put(&head[..20 - unused]);
    }

    /// What was written; the room stays for the next.
    fn take(&mut self) -> Vec<u8> {
        let start = self.bytes.len() - self.written;
        self.written = 0;
        self.bytes[start..].to_vec()
    }
}

// === keeping ===

/// The templates of all that `S` says of a message but its texts.
pub struct Templates<S>(RefCell<Kept<S>>);

struct Kept<S> {
    /// Those last used first.
    templates: Vec<Box<(S, Template)>>,
    scratch: Backwards,
}

impl<S: PartialEq + Clone> Templates<S> {
    /// More than a mesh has, unless its rules all differ: these then cost a template each time.
    const KEPT: usize = 64;

    /// None yet.
    pub const fn new() -> Self {
        let scratch = Backwards { bytes: Vec::new(), written: 0 };
        Self(RefCell::new(Kept { templates: Vec::new(), scratch }))
    }

    /// A message of this shape with these texts. `message` makes it with places, if there is no template of it.
    pub fn fill<M: Message>(&self, shape: &S, message: impl FnOnce(&S) -> M, texts: &[&[&str]]) -> Vec<u8> {
        let Kept { templates, scratch } = &mut *self.0.borrow_mut();
        let found = templates.iter().position(|kept| kept.0 == *shape).unwrap_or_else(|| {
            templates.truncate(Self::KEPT - 1);
            templates.push(Box::new((shape.clone(), Template::new(&message(shape)))));
            templates.len() - 1
        });
        templates[..=found].rotate_right(1);
        templates[0].1.fill(texts, scratch)
    }
}

#[cfg(test)]
mod tests {
    use landbridge_proto::envoy::{
        config::route::v3::{Route, RouteAction, VirtualHost, route::Action, route_action::ClusterSpecifier},
        extensions::transport_sockets::tls::v3::{CertificateValidationContext, SubjectAltNameMatcher},
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::resource::proto::any;

    fn host(name: String, domains: Vec<String>, cluster: String) -> VirtualHost {
        let specifier = Some(ClusterSpecifier::Cluster(cluster));
        let action = RouteAction { cluster_specifier: specifier, ..Default::default() };
        VirtualHost {
            name,
            domains,
            routes: vec![Route { action: Some(Action::Route(action)), ..Default::default() }],
            include_request_attempt_count: true,
            ..Default::default()
        }
    }

    fn trust(identities: Vec<String>) -> CertificateValidationContext {
        let matcher = |identity| SubjectAltNameMatcher {
            san_type: 3,
            matcher: Some(StringMatcher {
                match_pattern: Some(MatchPattern::Exact(identity)),
                ignore_case: true,
            }),
            ..Default::default()
        };
        CertificateValidationContext {
            match_typed_subject_alt_names: identities.into_iter().map(matcher).collect(),
            only_verify_leaf_cert_crl: true,
            ..Default::default()
        }
    }

    fn texts(texts: &[String]) -> Vec<&str> {
        texts.iter().map(String::as_str).collect()
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_what_prost_has(
            name in ".{1,200}",
            cluster in ".{1,20000}",
            domains in proptest::collection::vec(".{0,20}", 0..5),
        ) {
            let template = Template::new(&host(place(0), vec![place(1)], place(2)));
            let filled = template.fill(&[&[&name], &texts(&domains), &[&cluster]], &mut Backwards::default());
            prop_assert_eq!(filled, host(name, domains, cluster).encode_to_vec());
        }

        #[test]
        fn a_message_above_a_place_is_there_for_each_text(
            identities in proptest::collection::vec(".{1,300}", 0..5),
        ) {
            // In an `Any`, too, whose value is bytes.
            let template = Template::new(&any("t", &trust(vec![place_within(0, 2)])));
            let filled = template.fill(&[&texts(&identities)], &mut Backwards::default());
            prop_assert_eq!(filled, any("t", &trust(identities)).encode_to_vec());
        }
    }

    #[test]
    fn a_text_that_only_contains_a_place_stays_as_it_is() {
        let odd = format!("a{}", place(0));
        let message = host(odd.clone(), vec![odd.clone(), place(1)], odd.clone());
        let filled = Template::new(&message).fill(&[&["x"], &["y"]], &mut Backwards::default());
        assert_eq!(filled, host(odd.clone(), vec![odd.clone(), "y".into()], odd).encode_to_vec());
    }

    #[test]
    fn a_text_like_messages_in_messages_is_not_followed_without_end() {
        let nested =
            |levels| (0..levels).fold(place(0), |text, _| format!("\n{}{text}", text.len() as u8 as char));
        for (levels, followed) in [(LEVELS - 2, true), (LEVELS, false), (60, false)] {
            let message = host(nested(levels), Vec::new(), String::new());
            let filled = Template::new(&message).fill(&[&["x"]], &mut Backwards::default());
            assert_eq!(filled != message.encode_to_vec(), followed, "{levels}");
        }
    }

    #[test]
    fn a_template_is_made_once_for_each_shape() {
        let templates = Templates::<usize>::new();
        let mut made = 0;
        let mut fill = |shape: usize, text: &str| {
            let make = |shape: &usize| {
                made += 1;
                host(place(0), vec![shape.to_string()], String::new())
            };
            let filled = templates.fill(&shape, make, &[&[text]]);
            assert_eq!(filled, host(text.to_owned(), vec![shape.to_string()], String::new()).encode_to_vec());
        };
        for shape in 0..3 * Templates::<usize>::KEPT {
            fill(shape, "a");
            fill(shape, "b");
            fill(0, "c");
        }
        assert_eq!(made, 3 * Templates::<usize>::KEPT);
    }
}
