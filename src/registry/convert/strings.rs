//! Text that many objects say, kept once.

use std::sync::Arc;

use foldhash::HashSet;

/// Names of nodes, namespaces and services, labels. What nobody uses any more goes when the set has doubled.
#[derive(Debug, Default)]
pub struct Strings {
    known: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// Below this nothing is swept.
const FEW: usize = 1_024;

impl Strings {
    /// The one string with this text.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at.max(FEW) {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = self.known.len() * 2;
        }
        let new: Arc<str> = text.into();
        self.known.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_while_it_is_used() {
        let mut strings = Strings::default();
        let kept = strings.get("kept");
        for i in 0..10 * FEW {
            strings.get(&i.to_string());
        }
        assert!(Arc::ptr_eq(&kept, &strings.get("kept")));
        assert!(strings.known.len() <= FEW, "{} of no use are kept", strings.known.len());
    }
}
