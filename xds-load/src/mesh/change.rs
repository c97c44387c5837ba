//! One change of a mesh: what it does to the data, which files it writes, and what clients will see.

use std::path::PathBuf;

use thiserror::Error;

use super::{
    manifest::{rule_file, slice_path},
    show::{self, Show},
    world::{Backing, Mesh, Pod, Rule, ServiceId, Slot, cluster_name},
};

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pod becomes ready, or is ready no more.
    Ready {
        /// Whose.
        slot: Slot,
        /// What it becomes.
        ready: bool,
    },
    /// Another pod, with another name and address, takes a pod's place.
    Replace {
        /// Whose.
        slot: Slot,
    },
    /// A new service in every cluster, with pods.
    Create,
    /// A service is gone from every cluster, with its pods.
    Remove {
        /// Which.
        service: ServiceId,
    },
    /// All pods of a cluster become ready, or are ready no more.
    Cluster {
        /// Which.
        cluster: usize,
        /// What they become.
        ready: bool,
    },
    /// A cluster's directory is moved away, or back. It is unknown meanwhile, so nothing may change for anybody.
    Directory {
        /// Whose.
        cluster: usize,
        /// Moved away.
        away: bool,
    },
    /// A service's rule says another connect timeout. A service without a rule gets one.
    Configure {
        /// Whose.
        service: ServiceId,
    },
}

/// A file that is written, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The file has this text now.
    Put {
        /// The cluster's number.
        cluster: usize,
        /// Below the cluster's directory.
        path: PathBuf,
        /// All of it.
        text: String,
    },
    /// There is no such file any more.
    Remove {
        /// The cluster's number.
        cluster: usize,
        /// Below the cluster's directory.
        path: PathBuf,
    },
    /// The directory is moved away or back.
    Directory {
        /// The cluster's number.
        cluster: usize,
        /// Away.
        away: bool,
    },
}

/// What a change does outside of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// In this order.
    pub writes: Vec<Write>,
    /// What clients see when all is written.
    pub shows: Vec<Show>,
}

/// A change that cannot be applied. The mesh is as before.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// No such pod.
    #[error("service-{} has no pod in place {} of {}", .0.service.0, .0.place, cluster_name(.0.cluster))]
    NoPod(Slot),
    /// No such service.
    #[error("there is no service-{}", .0.0)]
    NoService(ServiceId),
    /// No such cluster.
    #[error("there is no {}", cluster_name(*.0))]
    NoCluster(usize),
    /// Its files are not in their place.
    #[error("the directory of {} is away: move it back first", cluster_name(*.0))]
    Away(usize),
}

impl Mesh {
    /// Applies a change.
    pub fn apply(&mut self, change: Change) -> Result<Effects, Refused> {
        match change {
            Change::Ready { slot, ready } => self.change_pod(slot, |_, pod, _| Pod { ready, ..pod }),
            Change::Replace { slot } => self.change_pod(slot, |mesh, _, number| {
                let spec = mesh.spec.clone();
                let pool = &mut mesh.pods[slot.cluster];
                Mesh::new_pod(&spec, pool, slot.service.0, number, slot.cluster)
            }),
            Change::Create => self.create(),
            Change::Remove { service } => self.remove(service),
            Change::Cluster { cluster, ready } => self.set_cluster(cluster, ready),
            Change::Directory { cluster, away } => {
                *self.away.get_mut(cluster).ok_or(Refused::NoCluster(cluster))? = away;
                Ok(Effects { writes: vec![Write::Directory { cluster, away }], shows: Vec::new() })
            }
            Change::Configure { service } => self.configure(service),
        }
    }

    fn is_there(&self, cluster: usize) -> Result<(), Refused> {
        match self.away.get(cluster) {
            None => Err(Refused::NoCluster(cluster)),
            Some(true) => Err(Refused::Away(cluster)),
            Some(false) => Ok(()),
        }
    }

    fn all_there(&self) -> Result<(), Refused> {
        (0..self.away.len()).try_for_each(|cluster| self.is_there(cluster))
    }

    /// Puts what `new` makes of a pod, given the number of the service's next pod, into its place.
    fn change_pod(
        &mut self,
        slot: Slot,
        new: impl FnOnce(&mut Self, Pod, u64) -> Pod,
    ) -> Result<Effects, Refused> {
        self.is_there(slot.cluster)?;
        let before = self.backing(slot).ok_or(Refused::NoPod(slot))?.pods.clone();
        let pod = *before.get(slot.place).ok_or(Refused::NoPod(slot))?;
        let number = self.service(slot.service).map_or(0, |s| s.next_pod);
        let pod = new(self, pod, number);
        let service = self.services.get_mut(slot.service.0).and_then(Option::as_mut);
        let service = service.ok_or(Refused::NoPod(slot))?;
        service.next_pod = service.next_pod.max(pod.number + 1);
        if let Some(place) = service.backing.get_mut(&slot.cluster).and_then(|b| b.pods.get_mut(slot.place)) {
            *place = pod;
        }
        Ok(self.effects_on(slot.service, slot.cluster, &before))
    }

    fn backing(&self, slot: Slot) -> Option<&Backing> {
        self.service(slot.service)?.backing.get(&slot.cluster)
    }

    /// The slices that differ from `before`, and what shows.
    fn effects_on(&self, id: ServiceId, cluster: usize, before: &[Pod]) -> Effects {
        let mut effects = Effects::default();
        let Some(service) = self.service(id) else { return effects };
        let after = service.backing.get(&cluster).map(|b| b.pods.as_slice()).unwrap_or_default();
        let chunk = |pods: &[Pod], slice: usize| pods.chunks(self.spec.slice).nth(slice).map(<[Pod]>::to_vec);
        for slice in 0..self.slices(after.len()) {
            if before.is_empty() || chunk(before, slice) != chunk(after, slice) {
                effects.writes.extend(self.put(id, cluster, slice));
            }
        }
        effects.shows = show::pods(self, service, cluster, before, after);
        effects
    }

    fn put(&self, id: ServiceId, cluster: usize, slice: usize) -> Option<Write> {
        let (path, text) = self.slice_file(id, cluster, slice)?;
        Some(Write::Put { cluster, path, text })
    }

    fn create(&mut self) -> Result<Effects, Refused> {
        self.all_there()?;
        let id = ServiceId(self.services.len());
        let service = self.new_service(id.0, false);
        let mut effects = Effects { writes: Vec::new(), shows: show::created(&service) };
        let clusters: Vec<_> = service.backing.keys().copied().collect();
        self.services.push(Some(service));
        for cluster in clusters {
            let of_cluster = self.effects_on(id, cluster, &[]);
            effects.writes.extend(of_cluster.writes);
            effects.shows.extend(of_cluster.shows);
        }
        Ok(effects)
    }

    fn remove(&mut self, id: ServiceId) -> Result<Effects, Refused> {
        self.all_there()?;
        let place = self.services.get_mut(id.0).ok_or(Refused::NoService(id))?;
        let service = place.take().ok_or(Refused::NoService(id))?;
        let mut effects = Effects { writes: Vec::new(), shows: show::removed(&service) };
        for (cluster, backing) in &service.backing {
            for slice in 0..self.slices(backing.pods.len()) {
                effects.writes.push(Write::Remove { cluster: *cluster, path: slice_path(&service, slice) });
            }
        }
        if let Some((path, _)) = rule_file(&service) {
            let clusters = 0..self.spec.clusters;
            effects.writes.extend(clusters.map(|cluster| Write::Remove { cluster, path: path.clone() }));
        }
        Ok(effects)
    }

    fn set_cluster(&mut self, cluster: usize, ready: bool) -> Result<Effects, Refused> {
        self.is_there(cluster)?;
        let mut effects = Effects::default();
        for index in 0..self.services.len() {
            let backing = self.services[index].as_mut().and_then(|s| s.backing.get_mut(&cluster));
            let Some(backing) = backing else { continue };
            let before = backing.pods.clone();
            backing.pods.iter_mut().for_each(|pod| pod.ready = ready);
            let of_service = self.effects_on(ServiceId(index), cluster, &before);
            effects.writes.extend(of_service.writes);
            effects.shows.extend(of_service.shows);
        }
        Ok(effects)
    }

    fn configure(&mut self, id: ServiceId) -> Result<Effects, Refused> {
        self.all_there()?;
        let service = self.services.get_mut(id.0).and_then(Option::as_mut).ok_or(Refused::NoService(id))?;
        let before = service.rule.unwrap_or(Rule { connect_timeout: 1_000, subsets: false });
        let rule = Rule { connect_timeout: before.connect_timeout + 1, ..before };
        service.rule = Some(rule);
        let (service, clusters) = (service.clone(), 0..self.spec.clusters);
        let file = rule_file(&service);
        let writes = file.into_iter().flat_map(|(path, text)| {
            clusters.clone().map(move |cluster| Write::Put {
                cluster,
                path: path.clone(),
                text: text.clone(),
            })
        });
        Ok(Effects { writes: writes.collect(), shows: show::rule(&service, rule.connect_timeout) })
    }
}
