//! What a stream wants of one type.

use std::{collections::BTreeSet, sync::Arc};

use super::names::Names;

/// Names, or everything, or both. The rules of the two protocols for reaching this are in `delta` and `sotw`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Everything that there is.
    pub wildcard: bool,
    /// Whether `*` or a name was ever asked for. From then on a request without names no longer means everything.
    pub explicit: bool,
    /// Asked for by name: each must be answered, whether it exists or not. Copied when it changes: most proxies ask for
    /// the same, and share one set (see [`super::SharedNames`]).
    pub names: Arc<Names>,
}

impl Default for Subscription {
    /// Nothing.
    fn default() -> Self {
        Self { wildcard: false, explicit: false, names: Names::none() }
    }
}

impl Subscription {
    /// Whether the resource with this name is wanted.
    pub fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// Replaces what is wanted by the list of a state-of-the-world request; returns the names that are new.
    ///
    /// An empty list means everything for wildcard types, until the first explicit one (xDS: "if the client never
    /// sends a list of names, the server treats it as a wildcard"). For the others it means nothing.
    pub fn replace(&mut self, names: &[String], wildcard_type: bool) -> Replaced {
        let star = names.iter().any(|n| n == "*");
        self.explicit |= !names.is_empty();
        let wildcard = star || (wildcard_type && !self.explicit);
        let grew = wildcard && !self.wildcard;
        self.wildcard = wildcard;

        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).filter(|n| *n != "*").collect();
        let removed: Vec<Arc<str>> = self.names.iter().filter(|n| !wanted.contains(&***n)).cloned().collect();
        let new = wanted.into_iter().filter(|name| !self.names.contains(*name));
        let added: Vec<Arc<str>> = new.map(Arc::from).collect();
        if !(removed.is_empty() && added.is_empty()) {
            let names = Arc::make_mut(&mut self.names);
            names.retain(|name| !removed.contains(name));
            added.iter().for_each(|name| names.insert(name.clone()));
        }
        Replaced { added, removed, grew }
    }
}

/// What [`Subscription::replace`] changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Names that were not asked for before.
    pub added: Vec<Arc<str>>,
    /// Names that are no longer asked for.
    pub removed: Vec<Arc<str>>,
    /// Whether everything is wanted now and was not before.
    pub grew: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(
        s: &mut Subscription,
        names: &[&str],
        wildcard_type: bool,
    ) -> (Vec<String>, Vec<String>, bool) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let Replaced { added, removed, grew } = s.replace(&names, wildcard_type);
        let text = |v: Vec<Arc<str>>| v.iter().map(ToString::to_string).collect();
        (text(added), text(removed), grew)
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_list_without_names_is_a_wildcard_only_at_first() {
        let mut s = Subscription::default();
        assert_eq!(replace(&mut s, &[], true), (vec![], vec![], true));
        assert_eq!(replace(&mut s, &[], true), (vec![], vec![], false));
        assert!(s.covers("anything"));
        assert_eq!(replace(&mut s, &["a"], true), (strings(&["a"]), vec![], false));
        assert!(!s.covers("anything") && s.covers("a"));
        assert_eq!(replace(&mut s, &[], true), (vec![], strings(&["a"]), false));
        assert!(s.is_empty(), "after names, an empty list is the end of the subscription");
        assert_eq!(replace(&mut s, &["*", "b"], true), (strings(&["b"]), vec![], true));
        assert!(s.covers("anything"));
    }

    #[test]
    fn other_types_have_no_implicit_wildcard() {
        let mut s = Subscription::default();
        assert_eq!(replace(&mut s, &[], false), (vec![], vec![], false));
        assert!(s.is_empty());
        assert_eq!(replace(&mut s, &["a", "b", "b"], false), (strings(&["a", "b"]), vec![], false));
        assert_eq!(replace(&mut s, &["b", "c"], false), (strings(&["c"]), strings(&["a"]), false));
        assert_eq!(replace(&mut s, &["*"], false), (vec![], strings(&["b", "c"]), true));
    }
}
