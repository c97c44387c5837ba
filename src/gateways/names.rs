//! What the host names of gateways mean. Pure: time and chance are arguments.
//!
//! An answer holds for its TTL, but neither shorter than 30 s nor longer than an hour (istiod's bounds). A name that does not
//! resolve any more keeps what it meant last: that DNS fails says nothing about a gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::index::Addresses;

/// An answer holds at least so long.
pub const SHORTEST: Duration = Duration::from_secs(30);
/// And at most so long.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// After a failure; doubled with each further one, up to a minute.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// More addresses of one name are not used: load balancers have one for each zone.
const ADDRESSES: usize = 64;
/// So many names that nobody asks for now are remembered.
const REMEMBERED: usize = 1_000;

/// An answer: addresses, and for how long they hold.
pub type Answer = Result<(Vec<IpAddr>, Duration), String>;

/// What is known of all names.
#[derive(Debug, Default)]
pub struct Names {
    followed: BTreeMap<Arc<str>, Name>,
    /// What names meant that were followed before, also before the process began.
    remembered: Addresses,
}

#[derive(Debug)]
struct Name {
    addresses: Vec<IpAddr>,
    due: Instant,
    asked: bool,
    failures: u32,
    problem: Option<String>,
}

// === impl Names ===

impl Names {
    /// What names meant when the process ended last.
    pub fn remember(addresses: Addresses) -> Self {
        Self { followed: BTreeMap::new(), remembered: addresses }
    }

    /// Follows exactly these from now on; new ones mean what they meant last, until there is an answer.
    pub fn follow(&mut self, hosts: &BTreeSet<Arc<str>>, now: Instant) {
        let (kept, gone): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.followed).into_iter().partition(|(host, _)| hosts.contains(host));
        self.followed = kept;
        for (host, name) in gone {
            if !name.addresses.is_empty() && self.remembered.len() < REMEMBERED {
                self.remembered.insert(host, name.addresses);
            }
        }
        for host in hosts {
            self.followed.entry(host.clone()).or_insert_with(|| Name {
                addresses: self.remembered.remove(host).unwrap_or_default(),
                due: now,
                asked: false,
                failures: 0,
                problem: None,
            });
        }
    }

    /// When a name is to be asked for next.
    pub fn next(&self) -> Option<Instant> {
        self.followed.values().filter(|name| !name.asked).map(|name| name.due).min()
    }

    /// The names to ask for now.
    pub fn ask(&mut self, now: Instant) -> Vec<Arc<str>> {
        let due = self.followed.iter_mut().filter(|(_, name)| !name.asked && name.due <= now);
        due.map(|(host, name)| {
            name.asked = true;
            host.clone()
        })
        .collect()
    }

    /// Takes in an answer. `chance` is a number from 0 to 1, so that many control planes do not ask in step.
    pub fn answered(&mut self, host: &str, answer: Answer, now: Instant, chance: f64) {
        let Some(name) = self.followed.get_mut(host) else { return };
        name.asked = false;
        let usable = answer.and_then(|(addresses, ttl)| {
            let addresses = usable(addresses);
            if addresses.is_empty() {
                return Err("it has no usable address".to_owned());
            }
            Ok((addresses, ttl))
        });
        let pause = match usable {
            Ok((addresses, ttl)) => {
                (name.addresses, name.failures, name.problem) = (addresses, 0, None);
                ttl.clamp(SHORTEST, LONGEST)
            }
            Err(why) => {
                name.problem = Some(why);
                name.failures = name.failures.saturating_add(1);
                (RETRY * 2u32.saturating_pow(name.failures - 1)).min(RETRY_MOST)
            }
        };
        name.due = now + pause.mul_f64(1.0 + chance / 10.0);
    }

    /// What those that are followed mean.
    pub fn addresses(&self) -> Addresses {
        let known = self.followed.iter().filter(|(_, name)| !name.addresses.is_empty());
        known.map(|(host, name)| (host.clone(), name.addresses.clone())).collect()
    }

    /// What is worth to be remembered over the end of the process.
    pub fn to_remember(&self) -> Addresses {
        let mut all = self.addresses();
        let others = self.remembered.iter().take(REMEMBERED.saturating_sub(all.len()));
        all.extend(others.map(|(host, addresses)| (host.clone(), addresses.clone())));
        all
    }

    /// Names that did not resolve when they were asked for last, with the reason and whether they still mean something.
    pub fn problems(&self) -> impl Iterator<Item = (&Arc<str>, &str, bool)> {
        let known = self.followed.iter();
        known.filter_map(|(host, name)| Some((host, name.problem.as_deref()?, !name.addresses.is_empty())))
    }
}

/// In order, each once; without those that no gateway can have.
fn usable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let is_usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    let sorted: BTreeSet<_> = addresses.into_iter().filter(is_usable).collect();
    sorted.into_iter().take(ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "gateway.example.com";
    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn followed(now: Instant) -> Names {
        let mut names = Names::default();
        names.follow(&[HOST.into()].into(), now);
        assert_eq!((names.next(), names.ask(now)), (Some(now), vec![Arc::from(HOST)]));
        assert!(names.next().is_none() && names.ask(now).is_empty(), "one question at a time");
        names
    }

    #[test]
    fn answers_hold_for_their_ttl_within_bounds() {
        for (ttl, holds) in [(0, 30), (29, 30), (300, 300), (86_400, 3_600)] {
            let now = Instant::now();
            let mut names = followed(now);
            names.answered(HOST, Ok((vec![ip(2), ip(1), ip(2)], ttl * SECOND)), now, 0.0);
            assert_eq!(names.addresses(), [(HOST.into(), vec![ip(1), ip(2)])].into());
            assert_eq!(names.next(), Some(now + holds * SECOND), "{ttl}");
        }
    }

    #[test]
    fn what_a_name_meant_last_is_kept_when_it_fails_and_over_the_end_of_the_process() {
        let now = Instant::now();
        let mut names = followed(now);
        names.answered(HOST, Ok((vec![ip(1)], SECOND)), now, 0.0);
        for (failures, pause) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
            let nothing = if failures % 2 == 0 { Err("no such name".into()) } else { Ok((vec![], SECOND)) };
            names.answered(HOST, nothing, now, 0.0);
            assert_eq!(names.next(), Some(now + pause * SECOND));
        }
        assert_eq!(names.addresses()[HOST], [ip(1)]);
        assert_eq!(names.problems().collect::<Vec<_>>(), [(&HOST.into(), "it has no usable address", true)]);
        let mut next = Names::remember(names.to_remember());
        assert!(next.addresses().is_empty(), "nobody asks for it yet");
        next.follow(&[HOST.into()].into(), now);
        assert_eq!(next.addresses()[HOST], [ip(1)]);
        next.answered(HOST, Err("timed out".into()), now, 0.0);
        assert_eq!(next.addresses()[HOST], [ip(1)]);
        next.answered(HOST, Ok((vec![ip(7)], SECOND)), now, 0.0);
        assert_eq!((&next.addresses()[HOST], next.problems().count()), (&vec![ip(7)], 0));
        next.follow(&BTreeSet::new(), now);
        assert_eq!((next.addresses().len(), next.to_remember()[HOST].clone()), (0, vec![ip(7)]));
    }

    proptest! {
        #[test]
        fn no_answer_does_harm(
            answers in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<IpAddr>(), 0..200)
                        .prop_flat_map(|ips| (Just(ips), any::<u64>()))
                        .prop_map(|(ips, ttl)| Ok((ips, Duration::from_secs(ttl)))),
                    any::<String>().prop_map(Err),
                ],
                1..20,
            ),
            chance in 0.0..1.0,
        ) {
            let now = Instant::now();
            let mut names = followed(now);
            let mut known = false;
            for answer in answers {
                names.answered(HOST, answer, now, chance);
                let addresses = names.addresses().remove(HOST).unwrap_or_default();
                prop_assert!(!known || !addresses.is_empty(), "what was known is kept");
                known |= !addresses.is_empty();
                prop_assert!(addresses.len() <= ADDRESSES && addresses.is_sorted());
                prop_assert!(addresses.iter().all(|ip| !ip.is_loopback() && !ip.is_unspecified()));
                let due = names.next().expect("it is asked again") - now;
                prop_assert!(due >= RETRY && due <= LONGEST.mul_f64(1.1), "{due:?}");
            }
        }
    }
}
