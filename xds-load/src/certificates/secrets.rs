//! SDS: every identity has its own connection and asks for `default` and `ROOTCA` over ADS, as Envoy without an agent does.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls_pki_types::PrivateKeyDer;
use serde::Serialize;
use tokio::{
    sync::{Notify, Semaphore},
    task::{AbortHandle, LocalSet},
    time::timeout,
};

use super::{
    check::{Checked, Issuers, Wrong, certificates, leaf_is},
    credentials::{Caller, Credentials},
    message::{Secret, secret},
    timing::{Latencies, Recorder},
};
use crate::{
    expect::Type,
    h2::{Connection, Error, Event, StreamId, Target},
    wire::{
        discovery::{Common, DELTA_METHOD, delta_request, delta_response},
        node::Node,
        type_url,
    },
};

const NAMES: [&str; 2] = ["default", "ROOTCA"];
/// Handshakes under way at a time.
const CONNECTING: usize = 64;

/// The watchers of a run.
#[derive(Debug)]
pub struct Watchers {
    shared: Rc<Shared>,
    tasks: Vec<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    watchers: Vec<RefCell<Watcher>>,
    /// How many have what they wait for. Kept as answers come: to count them each time would be most of what is measured.
    served: Cell<usize>,
    /// Since when deliveries are counted.
    since: Cell<Instant>,
    failed: RefCell<Vec<String>>,
    heard: Notify,
}

#[derive(Debug, Default)]
struct Watcher {
    identity: Option<Arc<str>>,
    /// Chain and key, and when they came.
    certificate: Option<(Vec<u8>, Vec<u8>, Instant)>,
    roots: Option<Vec<u8>>,
    /// The chain that it has to get another one for.
    outdated: Option<Vec<u8>>,
}

/// When all had what they wait for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Until the last one had it; less than all have it if the time was over.
    pub seconds: f64,
    /// How many have it.
    pub delivered: usize,
    /// How many wait for it.
    pub wanted: usize,
    /// Each one's time.
    pub latencies: Latencies,
    /// What is wrong with what they have.
    pub checked: Checked,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SecretsReport {
    /// From the first connect until all have both secrets.
    pub first: Delivery,
    /// From the end of the rotation's command until all have another certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Delivery>,
    /// Streams that broke.
    pub failed: Vec<String>,
}

impl Watchers {
    /// Connects one watcher for each of the credentials. Has to run within `local`.
    pub fn start(local: &LocalSet, target: &Target, credentials: &Credentials, cluster: &str) -> Self {
        let watcher = |caller: &Caller| {
            RefCell::new(Watcher { identity: caller.identity.clone(), ..Watcher::default() })
        };
        let shared = Rc::new(Shared {
            watchers: credentials.0.iter().map(watcher).collect(),
            served: Cell::new(0),
            since: Cell::new(Instant::now()),
            failed: RefCell::default(),
            heard: Notify::new(),
        });
        let gate = Rc::new(Semaphore::new(CONNECTING));
        let tasks = credentials.0.iter().enumerate().map(|(n, caller)| {
            let (shared, gate, cluster) = (shared.clone(), gate.clone(), cluster.to_owned());
            let target = Target { tls: caller.tls.clone().or(target.tls.clone()), ..target.clone() };
            let caller = caller.clone();
            let task = local.spawn_local(async move {
                let Err(error) = watch(&shared, n, &target, &caller, &cluster, &gate).await;
                shared.failed.borrow_mut().push(error.to_string());
                shared.heard.notify_one();
            });
            task.abort_handle()
        });
        let tasks = tasks.collect();
        Self { shared, tasks }
    }

    /// Waits until all have both secrets, and after [`Watchers::rotate`] another certificate.
    pub async fn delivered(&self, patience: Duration) -> Delivery {
        let shared = &self.shared;
        let all = async {
            while shared.served.get() < shared.watchers.len() - shared.failed.borrow().len() {
                shared.heard.notified().await;
            }
        };
        // Who has not got it by then is missing in the count.
        let _ = timeout(patience, all).await;
        let since = shared.since.get();
        let mut recorder = Recorder::default();
        let mut last = Duration::ZERO;
        for watcher in shared.watchers.iter().map(RefCell::borrow).filter(|w| w.is_served()) {
            if let Some((.., at)) = &watcher.certificate {
                let took = at.saturating_duration_since(since);
                recorder.record(took);
                last = last.max(took);
            }
        }
        Delivery {
            seconds: last.as_secs_f64(),
            delivered: shared.served.get(),
            wanted: shared.watchers.len(),
            latencies: recorder.latencies(),
            checked: self.check(),
        }
    }

    /// Rotates: from the end of `rotation` on time counts, and what was there before it counts no more.
    pub async fn rotate<E>(&self, rotation: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        for watcher in &self.shared.watchers {
            let mut watcher = watcher.borrow_mut();
            watcher.outdated = watcher.certificate.as_ref().map(|(chain, ..)| chain.clone());
        }
        self.shared.served.set(0);
        rotation.await?;
        self.shared.since.set(Instant::now());
        Ok(())
    }

    /// Why streams ended.
    pub fn failed(&self) -> Vec<String> {
        self.shared.failed.borrow().clone()
    }

    fn check(&self) -> Checked {
        let mut checked = Checked::default();
        for watcher in &self.shared.watchers {
            let watcher = watcher.borrow();
            let (Some((chain, key, _)), Some(roots)) = (&watcher.certificate, &watcher.roots) else {
                continue;
            };
            checked.answers += 1;
            if let Err(wrong) = check_secrets(chain, key, roots, watcher.identity.as_deref()) {
                *checked.wrong.entry(wrong.to_string()).or_default() += 1;
            }
        }
        checked
    }
}

impl Watcher {
    fn is_served(&self) -> bool {
        let chain = self.certificate.as_ref().map(|(chain, ..)| chain);
        chain.is_some() && chain != self.outdated.as_ref() && self.roots.is_some()
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn check_secrets(chain: &[u8], key: &[u8], roots: &[u8], identity: Option<&str>) -> Result<(), Wrong> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Wrong::Unreadable);
    let mut chain = certificates(text(chain)?)?;
    let leaf = chain.remove(0);
    Issuers::new(chain, text(roots)?)?.verify(&leaf)?;
    let key = <PrivateKeyDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(key);
    let key = rcgen::KeyPair::try_from(&key.map_err(|_| Wrong::Key)?).map_err(|_| Wrong::Key)?;
    leaf_is(&leaf, &rcgen::PublicKeyData::subject_public_key_info(&key), identity)
}

async fn watch(
    shared: &Shared,
    n: usize,
    target: &Target,
    caller: &Caller,
    cluster: &str,
    gate: &Semaphore,
) -> Result<std::convert::Infallible, Error> {
    let permit = gate.acquire().await;
    let mut connection = Connection::connect(target).await?;
    drop(permit);
    let stream = connection.open(DELTA_METHOD, &caller.metadata)?;
    let node = node(n, caller, cluster).encode();
    let secrets = type_url(Type::Secret);
    let first = Common { node: Some(&node), type_url: secrets, nonce: "", refused: None };
    let none = || std::iter::empty::<&str>();
    connection.send(stream, &delta_request(first, NAMES.into_iter(), none(), std::iter::empty()));
    loop {
        let message = next(&mut connection, stream).await?;
        let at = Instant::now();
        let malformed = |_| Error::Protocol("a response that is no DeltaDiscoveryResponse");
        let response = delta_response(&message).map_err(malformed)?;
        let ack = Common { node: None, type_url: response.type_url, nonce: response.nonce, refused: None };
        connection.send(stream, &delta_request(ack, none(), none(), std::iter::empty()));
        let mut watcher = shared.watchers[n].borrow_mut();
        let was_served = watcher.is_served();
        for resource in &response.resources {
            let body = resource.body.unwrap_or_default();
            match secret(body).map_err(|_| Error::Protocol("a secret without inline values"))? {
                Secret::Certificate { chain, key } => {
                    watcher.certificate = Some((chain.to_vec(), key.to_vec(), at));
                }
                Secret::Roots(roots) => watcher.roots = Some(roots.to_vec()),
            }
        }
        if !was_served && watcher.is_served() {
            shared.served.update(|served| served + 1);
            shared.heard.notify_one();
        }
    }
}

async fn next(connection: &mut Connection, stream: StreamId) -> Result<Vec<u8>, Error> {
    loop {
        match connection.next().await? {
            (id, Event::Message(message)) if id == stream => return Ok(message),
            (id, Event::Closed(status)) if id == stream => return Err(Error::Status(status)),
            _ => {}
        }
    }
}

/// The node of a sidecar that is what the caller proves.
fn node(n: usize, caller: &Caller, cluster: &str) -> Node {
    let (namespace, account) = caller.account().unwrap_or(("default", "default"));
    let ip = std::net::Ipv4Addr::from(0x0a80_0000 + n as u32);
    let metadata =
        [("NAMESPACE", namespace), ("SERVICE_ACCOUNT", account), ("CLUSTER_ID", cluster), ("NAME", account)];
    Node {
        id: format!("sidecar~{ip}~{account}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{account}.{namespace}"),
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect(),
        locality: Default::default(),
    }
}
