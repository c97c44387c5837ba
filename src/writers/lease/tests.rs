use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lease(version: u32, holder: &str, renewed: u64) -> Lease {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let duration = Terms::default().lease;
    let record =
        Record { holder: holder.into(), duration, acquired: at(0), renewed: at(renewed), transitions: 3 };
    Lease { version: version.to_string(), record }
}

fn elector() -> Elector {
    Elector::new("me".into(), Terms::default())
}

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

#[test]
fn a_lease_that_is_absent_or_free_is_taken_at_once() {
    let now = Instant::now();
    let mut elector = elector();
    assert!(elector.must_read() && elector.bid(now, clock()).is_none(), "nothing is known");
    elector.saw(None, now);
    let Some(Bid::Create(record)) = elector.bid(now, clock()) else { panic!("no bid") };
    assert_eq!((&*record.holder, record.transitions, record.duration), ("me", 0, 15 * SECOND));
    elector.saw(Some(lease(4, "", 1)), now);
    let Some(Bid::Update(version, record)) = elector.bid(now, clock()) else { panic!("no bid") };
    assert_eq!((&*version, &*record.holder, record.transitions), ("4", "me", 4));
}

#[test]
fn a_lease_of_another_is_taken_when_it_was_seen_unchanged_for_its_duration() {
    let now = Instant::now();
    let mut elector = elector();
    elector.saw(Some(lease(4, "you", 1)), now);
    assert!(elector.bid(now + 14 * SECOND, clock()).is_none());
    assert_eq!(elector.free_at(), Some(now + 15 * SECOND));
    // Something else of the object changed: the record is what counts.
    elector.saw(Some(lease(5, "you", 1)), now + 14 * SECOND);
    assert!(elector.bid(now + 15 * SECOND, clock()).is_some());
    // Renewed: it begins again.
    elector.saw(Some(lease(6, "you", 2)), now + 15 * SECOND);
    assert!(elector.bid(now + 29 * SECOND, clock()).is_none());
    // Reading it does not make it younger, and a bid that failed neither.
    elector.saw(Some(lease(6, "you", 2)), now + 29 * SECOND);
    elector.lost();
    assert!(elector.must_read() && elector.bid(now + 30 * SECOND, clock()).is_none());
    elector.saw(Some(lease(6, "you", 2)), now + 30 * SECOND);
    assert_eq!(elector.holder(), "you");
    assert!(
        matches!(elector.bid(now + 30 * SECOND, clock()), Some(Bid::Update(version, _)) if version == "6")
    );
}

#[test]
fn a_leader_leads_for_the_deadline_after_it_began_to_renew() {
    let now = Instant::now();
    let mut elector = elector();
    elector.saw(None, now);
    elector.won(lease(7, "me", 1), now, now + 2 * SECOND);
    assert!(!elector.must_read(), "it renews without reading");
    assert!(elector.leads(now + 9 * SECOND) && !elector.leads(now + 10 * SECOND));
    // What failed changes nothing until then.
    elector.lost();
    assert!(elector.must_read() && elector.leads(now + 9 * SECOND));
    elector.saw(Some(lease(7, "me", 1)), now + 12 * SECOND);
    assert!(!elector.leads(now + 12 * SECOND), "reading its own name is no renewal");
    let Some(Bid::Update(_, record)) = elector.bid(now + 12 * SECOND, clock()) else { panic!("no bid") };
    assert_eq!((record.transitions, record.acquired), (3, SystemTime::UNIX_EPOCH), "it is the same term");
    // Somebody else's name ends it at once.
    elector.won(lease(8, "me", 2), now + 12 * SECOND, now + 12 * SECOND);
    elector.saw(Some(lease(9, "you", 3)), now + 13 * SECOND);
    assert!(!elector.leads(now + 13 * SECOND));
    assert_eq!(elector.resign(clock()), None, "it is not ours to give");
}

#[test]
fn who_resigns_stops_first_and_leaves_the_lease_free() {
    let now = Instant::now();
    let mut elector = elector();
    elector.won(lease(7, "me", 1), now, now);
    let Some(Bid::Update(version, record)) = elector.resign(clock()) else { panic!("no bid") };
    assert_eq!((&*version, &*record.holder, record.duration), ("7", "", SECOND));
    assert!(!elector.leads(now));
}

/// A server with one Lease, and requests on their way to it and back.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u32,
}

impl Server {
    fn store(&mut self, bid: Bid) -> Option<Lease> {
        let record = match (bid, &self.lease) {
            (Bid::Create(record), None) => record,
            (Bid::Update(version, record), Some(lease)) if lease.version == version => record,
            _ => return None,
        };
        self.version += 1;
        self.lease = Some(Lease { version: self.version.to_string(), record });
        self.lease.clone()
    }
}

/// What happens to one replica.
#[derive(Clone, Debug)]
enum Happens {
    /// It reads, and the answer takes so many tenths of a second.
    Read { after: u64 },
    /// It writes what it may: that arrives after so long, maybe after it was given up, and the answer needs so long, or is lost.
    Write { arrives: u64, answered: Option<u64> },
    /// It is stopped, or nothing happens, for so long.
    Nothing { of: u64 },
    /// It ends well.
    Resign,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0..50_u64).prop_map(|after| Happens::Read { after }),
        6 => (prop_oneof![8 => 0..40_u64, 1 => 100..300_u64], proptest::option::weighted(0.8, 0..40_u64))
            .prop_map(|(arrives, answered)| Happens::Write { arrives, answered }),
        3 => (0..200_u64).prop_map(|of| Happens::Nothing { of }),
        1 => Just(Happens::Resign),
    ]
}

enum Flight {
    Arrives { of: usize, bid: Bid, sent: Instant, answered: Option<u64> },
    Stored { of: usize, lease: Option<Lease>, sent: Instant },
    Read { of: usize, found: Option<Lease> },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is late, lost or stopped: no two lead at the same time, and what is stored never has two owners.
    #[test]
    fn no_two_lead_at_once(story in proptest::collection::vec((0..3_usize, happens()), 1..80)) {
        let start = Instant::now();
        let tenth = |n: u64| start + Duration::from_millis(100 * n);
        let mut electors: Vec<_> =
            ["a", "b", "c"].iter().map(|id| Elector::new((*id).into(), Terms::default())).collect();
        let mut server = Server::default();
        let mut flights: VecDeque<(u64, Flight)> = VecDeque::new();
        // Each replica does one thing after the other, a pause between them.
        let mut free = [0_u64; 3];
        let mut stories: [VecDeque<Happens>; 3] = Default::default();
        for (of, what) in story {
            stories[of].push_back(what);
        }
        for now in 0..6_000_u64 {
            while let Some(at) = flights.iter().position(|(at, _)| *at <= now) {
                let Some((_, flight)) = flights.remove(at) else { break };
                match flight {
                    Flight::Arrives { of, bid, sent, answered } => {
                        let lease = server.store(bid);
                        if let Some(after) = answered {
                            flights.push_back((now + after, Flight::Stored { of, lease, sent }));
                        }
                    }
                    Flight::Stored { of, lease, sent } => match lease {
                        Some(lease) if lease.record.holder.is_empty() => electors[of].lost(),
                        Some(lease) => electors[of].won(lease, sent, tenth(now)),
                        None => electors[of].lost(),
                    },
                    Flight::Read { of, found } => electors[of].saw(found, tenth(now)),
                }
            }
            for of in 0..3 {
                if free[of] > now {
                    continue;
                }
                let Some(what) = stories[of].pop_front() else { continue };
                let sent = tenth(now);
                free[of] = now + 1;
                match what {
                    Happens::Read { after } => {
                        // What is read was so at some moment before the answer.
                        flights.push_back((now + after, Flight::Read { of, found: server.lease.clone() }));
                        free[of] = now + after + 1;
                    }
                    Happens::Write { arrives, answered } => {
                        let Some(bid) = electors[of].bid(sent, clock() + Duration::from_millis(now)) else { continue };
                        // Given up after five seconds: its answer means nothing any more.
                        let answered = answered.filter(|after| arrives + after <= 50);
                        if answered.is_none() {
                            electors[of].lost();
                        }
                        let end = answered.map_or(50, |after| arrives + after);
                        flights.push_back((now + arrives, Flight::Arrives { of, bid, sent, answered }));
                        free[of] = now + end + 1;
                    }
                    Happens::Nothing { of: long } => free[of] = now + long,
                    Happens::Resign => {
                        if let Some(bid) = electors[of].resign(clock()) {
                            flights.push_back((now, Flight::Arrives { of, bid, sent, answered: None }));
                            electors[of].lost();
                        }
                    }
                }
            }
            let leading: Vec<_> = electors.iter().filter(|e| e.leads(tenth(now))).map(|e| &*e.identity).collect();
            prop_assert!(leading.len() <= 1, "{leading:?} at {now}");
            if stories.iter().all(VecDeque::is_empty) && flights.is_empty() && free.iter().all(|at| *at < now) {
                break;
            }
        }
    }
}
