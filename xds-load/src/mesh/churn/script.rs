//! What changes when: scripts, and the plan that a script makes of a mesh.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::mesh::{
    change::Change,
    seed,
    world::{Mesh, ServiceId, Slot},
};

/// A script of changes. Times are in seconds from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Subcommand)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Script {
    /// Pods change at a steady rate: become unready and ready again, or are replaced by pods with other addresses.
    Rate {
        /// Changes in a second.
        #[arg(long, default_value_t = 20.0)]
        per_second: f64,
        /// How long.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// Share of changes that replace a pod.
        #[arg(long, default_value_t = 0.5)]
        #[serde(default = "half")]
        replace: f64,
    },
    /// Many pods are replaced at one moment, again and again.
    Burst {
        /// Pods each time.
        #[arg(long, default_value_t = 100)]
        pods: usize,
        /// How often.
        #[arg(long, default_value_t = 1)]
        times: usize,
        /// Between two times.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Services are restarted one after the other: each of their pods is replaced in turn.
    Restart {
        /// How many services.
        #[arg(long, default_value_t = 1)]
        services: usize,
        /// Between two pods.
        #[arg(long, default_value_t = 0.1)]
        seconds: f64,
    },
    /// New services come.
    Create {
        /// How many.
        #[arg(long, default_value_t = 1)]
        services: usize,
        /// Between two of them.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Services go.
    Remove {
        /// How many.
        #[arg(long, default_value_t = 1)]
        services: usize,
        /// Between two of them.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// A cluster fails, and comes back: all its pods are unready meanwhile.
    Outage {
        /// Its number.
        #[arg(long, default_value_t = 0)]
        cluster: usize,
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// A cluster cannot be read for a while: its directory is moved away. Nothing may change for anybody.
    Unknown {
        /// Its number.
        #[arg(long, default_value_t = 0)]
        cluster: usize,
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// DestinationRules change.
    Configure {
        /// How many changes.
        #[arg(long, default_value_t = 1)]
        changes: usize,
        /// Between two of them.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

fn half() -> f64 {
    0.5
}

/// For so long a pod that has changed is left alone, so that its change can be seen before the next one hides it.
const REST: f64 = 5.0;

/// A script over a mesh: says which change comes next. Follows from both alone; the clock has no say.
#[derive(Clone, Debug)]
pub struct Plan {
    script: Script,
    /// Steps taken.
    step: usize,
    /// Numbers the choices.
    choice: u64,
    /// Pods that were made unready, in order, and the step at which.
    unready: VecDeque<(Slot, usize)>,
    /// Steps at which pods last changed.
    touched: HashMap<Slot, usize>,
    /// What a restart has still to do.
    queue: VecDeque<Slot>,
}

impl Plan {
    /// From the start of a script.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            step: 0,
            choice: 0,
            unready: VecDeque::new(),
            touched: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// The next change, and when it is due after the start; none at the end, or when the mesh has nothing left to change.
    pub fn next(&mut self, mesh: &Mesh) -> Option<(Duration, Change)> {
        let step = self.step;
        let (at, change) = match self.script {
            Script::Rate { per_second, seconds, replace } => {
                let at = step as f64 / per_second;
                (at, if at < seconds { self.pod_change(mesh, per_second, replace) } else { None })
            }
            Script::Burst { pods, times, seconds } => {
                let round = step / pods.max(1);
                let slot = if round < times { self.ready_pod(mesh, pods) } else { None };
                (round as f64 * seconds, slot.map(|slot| Change::Replace { slot }))
            }
            Script::Restart { services, seconds } => (step as f64 * seconds, self.restart(mesh, services)),
            Script::Create { services, seconds } => {
                (step as f64 * seconds, (step < services).then_some(Change::Create))
            }
            Script::Remove { services, seconds } => {
                let service = if step < services { self.service(mesh) } else { None };
                (step as f64 * seconds, service.map(|service| Change::Remove { service }))
            }
            Script::Outage { cluster, seconds } => {
                (step as f64 * seconds, (step < 2).then_some(Change::Cluster { cluster, ready: step == 1 }))
            }
            Script::Unknown { cluster, seconds } => {
                (step as f64 * seconds, (step < 2).then_some(Change::Directory { cluster, away: step == 0 }))
            }
            Script::Configure { changes, seconds } => {
                let service = if step < changes { self.service(mesh) } else { None };
                (step as f64 * seconds, service.map(|service| Change::Configure { service }))
            }
        };
        self.step += 1;
        let at = Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX);
        change.map(|change| (at, change))
    }

    /// A pod is replaced, or made unready, or (as many are unready as are to be) ready again.
    fn pod_change(&mut self, mesh: &Mesh, per_second: f64, replace: f64) -> Option<Change> {
        // A small mesh has no pods enough for a long rest.
        let rest = ((per_second * REST) as usize).clamp(1, mesh.endpoints() / 4 + 1);
        if seed::chosen(mesh.spec().seed, "replace", self.step as u64, replace) {
            return self.ready_pod(mesh, rest).map(|slot| Change::Replace { slot });
        }
        match self.unready.front() {
            Some((slot, since)) if since + rest <= self.step => {
                let slot = *slot;
                self.unready.pop_front();
                self.touched.insert(slot, self.step);
                Some(Change::Ready { slot, ready: true })
            }
            _ => {
                let slot = self.ready_pod(mesh, rest)?;
                self.unready.push_back((slot, self.step));
                Some(Change::Ready { slot, ready: false })
            }
        }
    }

    /// Some ready pod that clients learn of by xDS, and that has not changed within the last `rest` steps if there is one.
    fn ready_pod(&mut self, mesh: &Mesh, rest: usize) -> Option<Slot> {
        let mut second_best = None;
        for _ in 0..1_000 {
            let Some(slot) = self.some_pod(mesh) else { continue };
            if !mesh.pod(slot).is_some_and(|pod| pod.ready) {
                continue;
            }
            if self.touched.get(&slot).is_none_or(|last| last + rest <= self.step) {
                second_best = Some(slot);
                break;
            }
            second_best = second_best.or(Some(slot));
        }
        let slot = second_best?;
        self.touched.insert(slot, self.step);
        Some(slot)
    }

    fn some_pod(&mut self, mesh: &Mesh) -> Option<Slot> {
        let service = self.some_service(mesh)?;
        let backing = &mesh.service(service)?.backing;
        let (cluster, backing) = backing.iter().nth(self.below(mesh, backing.len())?)?;
        let place = self.below(mesh, backing.pods.len())?;
        Some(Slot { service, cluster: *cluster, place })
    }

    /// A service that is there and has a virtual address.
    fn service(&mut self, mesh: &Mesh) -> Option<ServiceId> {
        (0..1_000).find_map(|_| self.some_service(mesh))
    }

    fn some_service(&mut self, mesh: &Mesh) -> Option<ServiceId> {
        let id = ServiceId(self.below(mesh, mesh.services.len())?);
        mesh.service(id).filter(|s| !s.headless).map(|_| id)
    }

    fn below(&mut self, mesh: &Mesh, bound: usize) -> Option<usize> {
        self.choice += 1;
        (bound > 0).then(|| seed::below(mesh.spec().seed, "churn", self.choice, bound))
    }

    fn restart(&mut self, mesh: &Mesh, services: usize) -> Option<Change> {
        if self.step == 0 {
            let chosen = mesh.services().filter(|(_, s)| !s.headless).take(services);
            self.queue = chosen
                .flat_map(|(service, s)| {
                    s.backing.iter().flat_map(move |(cluster, backing)| {
                        let slot = move |place| Slot { service, cluster: *cluster, place };
                        (0..backing.pods.len()).map(slot)
                    })
                })
                .collect();
        }
        self.queue.pop_front().map(|slot| Change::Replace { slot })
    }
}
