//! What a session makes of a server's bytes, cut anywhere.

use lean_http2::frame::{Header, MAX_WINDOW, PREFACE, flag, kind, setting, write_word};
use proptest::prelude::*;

use super::{Error, Event, Status, StreamId, grpc::write_message, session::Session};

/// `:status: 200`, and `grpc-status: 0`.
const OK: &[u8] = b"\x88";
const DONE: &[u8] = b"\x00\x0bgrpc-status\x010";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { length: payload.len() as u32, kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

fn grpc(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(&mut out, message);
    out
}

fn opened() -> Session {
    let mut session = Session::new();
    session.open(false, "a", "/s/m", &[]).expect("ids are left");
    session.out.clear();
    session
}

fn events(session: &mut Session) -> Vec<(StreamId, Event)> {
    std::iter::from_fn(|| session.next_event()).collect()
}

/// The frames of `out`.
fn frames(mut out: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = out.split_first_chunk() {
        let header = Header::read(header);
        let (payload, after) = rest.split_at(header.length as usize);
        frames.push((header, payload.to_vec()));
        out = after;
    }
    frames
}

#[test]
fn a_call_begins_with_preface_settings_window_and_headers() {
    let mut session = Session::new();
    session.open(true, "a", "/s/m", &[]).expect("ids are left");
    let kinds: Vec<_> =
        frames(&session.out[PREFACE.len()..]).iter().map(|(h, _)| (h.kind, h.stream)).collect();
    assert_eq!(kinds, [(kind::SETTINGS, 0), (kind::WINDOW_UPDATE, 0), (kind::HEADERS, 1)]);
}

fn conversation() -> (Vec<u8>, Vec<(StreamId, Event)>) {
    let long = grpc(&[7; 300]);
    let mut padded = vec![3];
    padded.extend_from_slice(&long[100..]);
    padded.extend_from_slice(b"pad");
    let wire = [
        frame(kind::SETTINGS, 0, 0, &[]),
        frame(kind::HEADERS, 0, 1, OK),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[]),
        frame(kind::DATA, 0, 1, &[grpc(b"one"), grpc(b"two")].concat()),
        frame(kind::DATA, 0, 1, &long[..100]),
        frame(kind::PING, 0, 0, b"12345678"),
        frame(99, 0xff, 5, b"an extension"),
        frame(kind::DATA, flag::PADDED, 1, &padded),
        frame(kind::DATA, flag::PADDED, 1, b"\x02.."),
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, DONE),
    ];
    let message = |bytes: &[u8]| (StreamId(1), Event::Message(bytes.to_vec()));
    let done = (StreamId(1), Event::Closed(Status { code: 0, message: String::new() }));
    (wire.concat(), vec![message(b"one"), message(b"two"), message(&[7; 300]), done])
}

#[test]
fn a_conversation_is_understood_however_it_is_cut() {
    let (wire, expected) = conversation();
    for cut in 1..wire.len() {
        let mut session = opened();
        for piece in wire.chunks(cut) {
            session.receive(piece).expect("this is allowed");
        }
        assert_eq!(events(&mut session), expected, "in pieces of {cut}");
        let answers: Vec<_> = frames(&session.out).iter().map(|(h, _)| (h.kind, h.flags)).collect();
        assert_eq!(answers, [(kind::SETTINGS, flag::ACK), (kind::PING, flag::ACK)]);
        session.out.clear();
        session.send(StreamId(1), b"late");
        assert!(session.out.is_empty(), "the stream has ended");
    }
}

#[test]
fn ends_are_told_with_their_reason() {
    let goaway = [&7_u32.to_be_bytes()[..], &11_u32.to_be_bytes(), b"slow down"].concat();
    let early = [&0_u32.to_be_bytes()[..], &0_u32.to_be_bytes(), b"bye"].concat();
    let cases: &[(Vec<u8>, Option<&str>)] = &[
        (
            frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
            Some("UNAVAILABLE (14): the server reset the stream: CANCEL"),
        ),
        (
            frame(kind::HEADERS, 5, 1, b"\x8d"),
            Some("UNIMPLEMENTED (12): the server answered HTTP 404 without a gRPC status"),
        ),
        (frame(kind::GOAWAY, 0, 0, &early), Some("UNAVAILABLE (14): the server sent GOAWAY: NO_ERROR bye")),
        (frame(kind::GOAWAY, 0, 0, &goaway), None),
        (
            [frame(kind::DATA, 0, 1, b"\0\0"), frame(kind::HEADERS, 5, 1, DONE)].concat(),
            Some("UNKNOWN (2): the stream ended within a message, with status OK (0)"),
        ),
    ];
    for (wire, expected) in cases {
        let mut session = opened();
        session.receive(wire).expect("this is allowed");
        let seen: Vec<_> = events(&mut session)
            .into_iter()
            .map(|(_, event)| match event {
                Event::Closed(status) => status.to_string(),
                Event::Message(_) => panic!("no message was sent"),
            })
            .collect();
        assert_eq!(seen, Vec::from_iter(*expected));
        if wire[3] == kind::GOAWAY {
            assert!(matches!(session.open(false, "a", "/s/m", &[]), Err(Error::NoMoreStreams)));
        }
    }
}

#[test]
fn the_body_of_a_refusal_is_skipped() {
    let mut session = opened();
    let wire = [
        frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x8e"),
        frame(kind::DATA, flag::END_STREAM, 1, b"<html>no gRPC here</html>"),
    ];
    session.receive(&wire.concat()).expect("this is allowed");
    let status = "UNKNOWN (2): the server answered HTTP 500 without a gRPC status";
    assert!(matches!(&events(&mut session)[..], [(_, Event::Closed(s))] if s.to_string() == status));
}

#[test]
fn what_is_not_allowed_is_an_error() {
    let cases: &[(Vec<u8>, &str)] = &[
        (frame(kind::DATA, 0, 3, b""), "DATA on a stream that was never opened"),
        (frame(kind::DATA, 0, 0, b"x"), "DATA on the connection"),
        (frame(kind::DATA, flag::PADDED, 1, b"\x09x"), "too much padding"),
        (frame(kind::DATA, flag::PADDED, 1, b""), "no padding length"),
        (frame(kind::CONTINUATION, 4, 1, b""), "a continuation of nothing"),
        ([frame(kind::HEADERS, 0, 1, b""), frame(kind::PING, 0, 0, b"12345678")].concat(), "an interruption"),
        (frame(kind::HEADERS, 4, 1, b"\x80"), "a bad block"),
        (frame(kind::SETTINGS, 0, 0, b"12345"), "bad settings"),
        (frame(kind::SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"), "a bad window"),
        (
            [0_u8, 1]
                .iter()
                .flat_map(|_| frame(kind::WINDOW_UPDATE, 0, 0, &MAX_WINDOW.to_be_bytes()))
                .collect(),
            "overflow",
        ),
        (frame(kind::PING, 0, 0, b"1"), "a short ping"),
        (frame(kind::GOAWAY, 0, 0, b"1234567"), "a short goaway"),
        (frame(kind::PUSH_PROMISE, 4, 1, b"1234"), "a push"),
        (frame(kind::HEADERS, 4, 1, &vec![0; 70_000]), "a large block"),
        (frame(kind::DATA, 0, 1, b"\x01\0\0\0\0"), "compression"),
    ];
    for (wire, what) in cases {
        assert!(opened().receive(wire).is_err(), "{what}");
    }
}

#[test]
fn messages_wait_for_windows() {
    let mut session = opened();
    let id = StreamId(1);
    session.send(id, &[1; 100_000]);
    session.finish(id);
    let sizes = |out: &[u8]| frames(out).iter().map(|(h, _)| (h.length, h.flags)).collect::<Vec<_>>();
    assert_eq!(sizes(&session.out), [(16_384, 0), (16_384, 0), (16_384, 0), (16_383, 0)], "65,535 in all");
    session.out.clear();

    let mut wire = Vec::new();
    write_word(&mut wire, kind::WINDOW_UPDATE, 0, 1 << 20);
    session.receive(&wire).expect("this is allowed");
    assert!(session.out.is_empty(), "the stream's own window is still closed");

    let settings: Vec<u8> = [(setting::MAX_FRAME_SIZE, 20_000_u32), (setting::INITIAL_WINDOW_SIZE, 100_004)]
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    session.receive(&frame(kind::SETTINGS, 0, 0, &settings)).expect("this is allowed");
    assert_eq!(sizes(&session.out), [(0, flag::ACK), (20_000, 0), (14_469, 0)], "one byte is left");
    session.out.clear();

    wire.clear();
    write_word(&mut wire, kind::WINDOW_UPDATE, 1, 10);
    session.receive(&wire).expect("this is allowed");
    assert_eq!(sizes(&session.out), [(1, flag::END_STREAM)]);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(frames in proptest::collection::vec((0_u8..12, any::<u8>(), 0_u32..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..30), tail in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut session = opened();
        session.send(StreamId(1), b"request");
        for (kind, flags, stream, payload) in frames {
            if session.receive(&frame(kind, flags, stream, &payload)).is_err() {
                return Ok(());
            }
        }
        let _ = session.receive(&tail);
    }

    #[test]
    fn a_damaged_conversation_never_panics(at in 0_usize..500, to in any::<u8>(), cut in 1_usize..100) {
        let (mut wire, _) = conversation();
        let at = at % wire.len();
        wire[at] = to;
        let mut session = opened();
        for piece in wire.chunks(cut) {
            if session.receive(piece).is_err() {
                break;
            }
        }
    }
}
