//! Services by what they select, so that those which select a pod are found without asking all of its namespace.

use std::{collections::BTreeSet, sync::Arc};

use foldhash::HashMap;

use crate::model::{Labels, kubernetes::Service};

/// The services of a cluster that have a selector.
#[derive(Debug, Default)]
pub struct Selectors(HashMap<Pair, BTreeSet<Arc<str>>>);

/// A namespace, and the name and value of the first label in a selector.
type Pair = (Arc<str>, Arc<str>, Arc<str>);

impl Selectors {
    /// One of these is there now, and the other is not any more.
    pub fn replace(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if let Some((pair, service)) = old.and_then(entry)
            && let Some(services) = self.0.get_mut(&pair)
        {
            services.remove(&service);
            if services.is_empty() {
                self.0.remove(&pair);
            }
        }
        if let Some((pair, service)) = new.and_then(entry) {
            self.0.entry(pair).or_default().insert(service);
        }
    }

    /// The names of all services that may select what has these labels: their other labels have not been looked at.
    pub fn candidates<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let pairs = labels.iter().map(|(name, value)| (namespace.clone(), name.clone(), value.clone()));
        pairs.filter_map(|pair| self.0.get(&pair)).flatten()
    }
}

fn entry(service: &Service) -> Option<(Pair, Arc<str>)> {
    let (name, value) = service.selector.first_key_value()?;
    let pair = (service.meta.namespace.clone(), name.clone(), value.clone());
    Some((pair, service.meta.name.clone()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{kubernetes::Meta, name::selects};

    fn labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[a-c]", "[xy]", 0..3)
            .prop_map(|labels| labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn service(name: &str, selector: Labels) -> Service {
        let meta = Meta { namespace: "shop".into(), name: name.into(), ..Meta::default() };
        Service { meta, selector, ..Service::default() }
    }

    proptest! {
        #[test]
        fn whoever_selects_is_a_candidate_once(
            changes in prop::collection::vec((0..6usize, prop::option::of(labels())), 0..40),
            pod in labels(),
        ) {
            let (mut services, mut selectors) = (vec![None; 6], Selectors::default());
            for (i, selector) in changes {
                let new = selector.map(|selector| service(&i.to_string(), selector));
                selectors.replace(services[i].as_ref(), new.as_ref());
                services[i] = new;
            }
            let namespace = "shop".into();
            let names: Vec<_> = selectors.candidates(&namespace, &pod).collect();
            for service in services.iter().flatten() {
                let found = names.iter().filter(|name| ***name == service.meta.name).count();
                let selecting = !service.selector.is_empty() && selects(&service.selector, &pod);
                prop_assert!(found == 1 || (found == 0 && !selecting), "{service:?}: {found}");
            }
            for service in services.iter().flatten() {
                selectors.replace(Some(service), None);
            }
            prop_assert!(selectors.0.is_empty());
        }
    }
}
