//! Tokens that were found good, so that the same token is not verified for each call.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;

use super::jwt::KeySet;
use crate::model::identity::Spiffe;

/// So many tokens are remembered at least, and twice as many at most; about 200 bytes each.
const GENERATION: usize = 8192;

/// A token stands here by its hash: its text is a credential and not kept.
type Hash = [u8; 32];

/// What a good token says.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose it is.
    pub identity: Spiffe,
    /// The only cluster that it is good for, where it says so.
    pub cluster_id: Option<String>,
    /// From then on it is refused, Unix seconds.
    pub good_until: i64,
    /// Who vouched for it.
    pub voucher: Voucher,
}

/// Who vouched for a token.
#[derive(Clone, Debug)]
pub enum Voucher {
    /// An issuer's signature: when it has other keys now, the token must be verified anew.
    Keys(Arc<KeySet>),
    /// The API server of a cluster: when the cluster is not registered any more, its word counts no more.
    Cluster(String),
}

/// The memory of good tokens. Tokens that are not used any more fall out of it, and strangers cannot fill it: what is
/// not verified is never remembered.
#[derive(Debug, Default)]
pub struct Verified {
    generations: Mutex<Generations>,
}

/// Two maps: when the new one is full it becomes the old one, and what is used comes back from there.
#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Hash, Arc<Account>>,
    old: HashMap<Hash, Arc<Account>>,
}

// === impl Verified ===

impl Verified {
    /// The name under which a token is remembered.
    pub fn hash(token: &str) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        hash
    }

    /// What the token says, if it was found good and still is at `now` (Unix seconds), as far as time goes.
    pub fn get(&self, hash: &Hash, now: i64) -> Option<Arc<Account>> {
        let mut generations = self.generations.lock();
        let Generations { new, old } = &mut *generations;
        let found = match new.get(hash) {
            Some(account) => account.clone(),
            None => {
                let account = old.remove(hash)?;
                generations.insert(*hash, account.clone());
                account
            }
        };
        Some(found).filter(|account| now < account.good_until)
    }

    /// Remembers a token that was found good.
    pub fn insert(&self, hash: Hash, account: Arc<Account>) {
        self.generations.lock().insert(hash, account);
    }
}

// === impl Generations ===

impl Generations {
    fn insert(&mut self, hash: Hash, account: Arc<Account>) {
        if self.new.len() >= GENERATION {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash, account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_account(good_until: i64) -> Account {
        let identity = Spiffe::new("cluster.local", "a", "b").unwrap();
        Account { identity, cluster_id: None, good_until, voucher: Voucher::Cluster("east".into()) }
    }

    #[test]
    fn what_is_used_stays_and_all_else_goes() {
        let verified = Verified::default();
        let [used, unused] = ["used", "unused"].map(Verified::hash);
        let account = Arc::new(mk_account(100));
        verified.insert(used, account.clone());
        verified.insert(unused, account.clone());
        for n in 0..3 * GENERATION {
            verified.insert(Verified::hash(&n.to_string()), account.clone());
            assert!(verified.get(&used, 99).is_some());
            let Generations { new, old } = &*verified.generations.lock();
            assert!(new.len() <= GENERATION && old.len() <= GENERATION);
        }
        assert!(verified.get(&unused, 99).is_none());
        assert!(verified.get(&used, 100).is_none(), "its time is over");
    }
}
