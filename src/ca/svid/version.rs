//! The version of a certificate's secret: by whom it was signed and until when it is good.
//!
//! A control plane keeps workloads' keys in memory only, so one that was restarted, or another replica, cannot send a
//! proxy the same bytes again. It need not: with Delta a proxy that connects again says which version it has, and from
//! that each server with the same authority can tell that the proxy has a good certificate already.
//!
//! ```text
//! 63              32 31               0
//! not_after, seconds hash(presented chain, identity, not_after)
//! ```
//!
//! This is no security decision. A proxy that claims what it has not gets no certificate, or keeps one that its peers
//! refuse, and harms nobody but itself; so a short hash without a key is enough. One that matches by chance (1 in 2³²)
//! costs its proxy a renewal that comes half a life late.
//!
//! The roots are not in it, as new roots alone renew nothing either: a certificate is as good as its chain.

use std::ops::Range;
use std::time::Duration;

use rand::Rng;
use time::OffsetDateTime;
use xxhash_rust::xxh3::Xxh3Default;

use crate::ca::authority::{Authority, BACKDATE};
use crate::model::identity::Spiffe;
use crate::snapshot::Version;

/// The part of its life after which a certificate is renewed: half, give or take a twentieth, so that the certificates
/// of a whole mesh that started together are not renewed together.
const RENEWAL: Range<f64> = 0.45..0.55;

/// The version of a certificate of `identity` that `authority` signed, and that ends at `not_after`.
///
/// Whole seconds from 1970 to February 2106; what ends later counts as ending then, and is renewed earlier than needed.
pub fn of(authority: &Authority, identity: &Spiffe, not_after: OffsetDateTime) -> Version {
    let latest = i64::from(u32::MAX);
    let seconds = u32::try_from(not_after.unix_timestamp().clamp(0, latest)).unwrap_or(u32::MAX);
    from_seconds(authority, identity, seconds)
}

fn from_seconds(authority: &Authority, identity: &Spiffe, not_after: u32) -> Version {
    let mut hash = Xxh3Default::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    // A root that signs itself is not among the intermediates.
    add(&authority.signer().der);
    authority.intermediates().iter().for_each(|cert| add(&cert.der));
    add(identity.to_string().as_bytes());
    add(&not_after.to_le_bytes());
    Version((u64::from(not_after) << 32) | (hash.digest() & u64::from(u32::MAX)))
}

/// For how long a proxy of this identity may keep the certificate that it says it has: until it is to be renewed. None:
/// it needs another one now, because this one is not of `authority` (any more), has lived half its life of `ttl`, or
/// lives longer than a certificate may by now.
pub fn good_for(
    known: Version,
    authority: &Authority,
    identity: &Spiffe,
    ttl: Duration,
    now: OffsetDateTime,
) -> Option<Duration> {
    if !is_of(known, authority, identity) {
        return None;
    }
    let not_after = OffsetDateTime::from_unix_timestamp((known.0 >> 32) as i64).ok()?;
    let left = Duration::try_from(not_after - now).ok()?;
    // Another replica's clock may be ahead of this one's by as much as certificates are dated back.
    if left > ttl.saturating_add(BACKDATE) {
        return None;
    }
    // What an authority near its end signed had a shorter life than `ttl`, and is renewed a bit early here.
    left.checked_sub(ttl.mul_f64(1.0 - renewal())).filter(|rest| !rest.is_zero())
}

/// Whether this is the version of a certificate that `authority` signed for `identity`.
pub fn is_of(known: Version, authority: &Authority, identity: &Spiffe) -> bool {
    // The shift leaves 32 bits.
    from_seconds(authority, identity, (known.0 >> 32) as u32) == known
}

/// A part of a certificate's life, chosen anew each time.
pub fn renewal() -> f64 {
    rand::rng().random_range(RENEWAL)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::ca::testing::{mk_authority, mk_root};

    const TTL: Duration = Duration::from_secs(24 * 3600);
    const NOW: OffsetDateTime = datetime!(2026-07-01 12:00 UTC);

    fn mk_identity(name: &str) -> Spiffe {
        Spiffe::new("cluster.local", "production", name).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_by_those_who_have_it_until_half_its_life() {
        let root = mk_root("root");
        let authority = mk_authority(&root, "one", time::Duration::days(50));
        let other = mk_authority(&root, "two", time::Duration::days(50));
        let identity = mk_identity("a");
        let not_after = NOW + TTL;
        let version = of(&authority, &identity, not_after);
        let text = version.to_string();
        assert_eq!((text.len(), text.parse()), (16, Ok(version)), "what the proxy hears is what it says");
        assert_eq!(version, of(&authority, &identity, not_after), "on all replicas");
        assert_ne!(version, of(&authority, &identity, not_after + Duration::from_secs(1)));

        let good = |version, authority, identity: &str, now| {
            good_for(version, authority, &mk_identity(identity), TTL, now)
                .map(|rest| rest.as_secs_f64() / 3600.0)
        };
        let hours = |n: i64| time::Duration::hours(n);
        let rest = good(version, &authority, "a", NOW).unwrap();
        assert!((10.8..=13.2).contains(&rest), "{rest} h");
        let rest = good(version, &authority, "a", NOW + hours(10)).unwrap();
        assert!((0.8..=3.2).contains(&rest), "{rest} h");
        for (what, found) in [
            ("past half its life", good(version, &authority, "a", NOW + hours(14))),
            ("expired", good(version, &authority, "a", NOW + hours(25))),
            ("another authority", good(version, &other, "a", NOW)),
            ("another identity", good(version, &authority, "b", NOW)),
            ("lives too long", good(version, &authority, "a", NOW - hours(1))),
            ("another end", good(Version(version.0 + (1 << 32)), &authority, "a", NOW)),
            ("nothing", good(Version(0), &authority, "a", NOW)),
            ("all ones", good(Version(u64::MAX), &authority, "a", NOW)),
        ] {
            assert_eq!(found, None, "{what}");
        }
    }

    #[test]
    fn dates_out_of_range_neither_panic_nor_live_for_ever() {
        let authority = mk_authority(&mk_root("root"), "one", time::Duration::days(50));
        let identity = mk_identity("a");
        for not_after in [datetime!(2300-01-01 0:00 UTC), datetime!(1900-01-01 0:00 UTC)] {
            let version = of(&authority, &identity, not_after);
            assert!(is_of(version, &authority, &identity));
            assert_eq!(good_for(version, &authority, &identity, TTL, NOW), None);
        }
        let version = of(&authority, &identity, NOW + TTL);
        assert_eq!(good_for(version, &authority, &identity, Duration::MAX, NOW), None, "an absurd life");
    }
}
