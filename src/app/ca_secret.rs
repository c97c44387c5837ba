//! The Secret with the authority's key: found, made if it may be, followed, and kept from running out.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use super::ca_copy::Copy;
use crate::{
    ca::{
        Authority, CaError,
        cacerts::{CA_CERT, CA_KEY, CERT_CHAIN, Material, ROOT_CERT},
        live::{Given, Live, Source},
        self_signed,
    },
    model::ClusterId,
    registry::{
        Notices, Problem, Severity,
        kubernetes::{Access, Failure, SecretData, follow_secret},
    },
    writers::Standing,
};

/// What operators bring.
const PLUGGED_IN: &str = "cacerts";
/// What istiod makes for itself, and we do.
const SELF_SIGNED: &str = "istio-ca-secret";
/// istiod's type of it.
const SELF_SIGNED_TYPE: &str = "istio.io/ca-root";
/// What problems are said under.
const TOPIC: &str = "certificate authority";
/// For an answer of the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at who leads, and between words about waiting.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long an API server that says nothing may take at the start before the copy is used.
const COPY_AFTER: Duration = Duration::from_millis(300);
/// Between looks at the end of a self-signed root.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);

/// The own cluster's Secrets and who may write them.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub cluster: ClusterId,
    pub namespace: Arc<str>,
    /// None if it is read from files.
    pub access: Option<Access>,
    /// Who writes to the cluster.
    pub standing: watch::Receiver<Standing>,
    pub notices: Notices,
    /// What was in force last.
    pub copy: Copy,
}

/// What is known of both Secrets.
#[derive(Clone, Debug, Default)]
struct Known {
    plugged_in: State,
    self_signed: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    Away(Failure),
    Absent,
    Here(SecretData),
}

/// What follows from it.
enum Choice {
    /// This one.
    Given(Given),
    /// There is none.
    Nothing,
    /// It is not known, for this reason if there is one.
    Wait(Option<(&'static str, Failure)>),
}

/// The authority of a Secret, its reader, and the task that follows the Secret.
type Opened<F> = (Live, watch::Receiver<Arc<Authority>>, F);

impl Secrets {
    /// The authority of a Secret, once there is one, and the task that follows it. None where it may not be made, so that the state
    /// directory has to do.
    pub async fn open(&self, trust_domain: &str) -> Result<Option<Opened<impl Future<Output = ()> + use<>>>> {
        let Some(access) = self.access.clone() else { return Ok(None) };
        let secrets = self.clone();
        let known = Arc::new(watch::Sender::new(Known::default()));
        let mut news = known.subscribe();
        let mut follow = Box::pin(self.clone().follow(access.clone(), known));
        let given = tokio::select! {
            () = &mut follow => return Err(anyhow!("the Secrets of the authority are not followed any more")),
            given = self.first(&access, &mut news, trust_domain) => given?,
        };
        let Some(given) = given else { return Ok(None) };
        let (sender, receiver) = watch::channel(given);
        let (live, authority) = Live::open(Source::Secret(receiver)).context("no certificate authority")?;
        let current = authority.clone();
        let task = async move {
            tokio::select! {
                () = follow => {}
                () = secrets.hand_on(news.clone(), sender) => {}
                () = secrets.keep_copy(news, current.clone()) => {}
                () = secrets.renew(&access, current) => {}
            }
        };
        Ok(Some((live, authority, task)))
    }

    /// Says how an attempt to take over the Secret's content ended.
    pub fn say(&self, error: Option<CaError>) {
        let problem = error.map(|error| {
            let text = error.to_string();
            // `cluster/namespace/Secret/name/key: reason`
            let name = if text.starts_with(&*self.origin(SELF_SIGNED).to_string_lossy()) {
                SELF_SIGNED
            } else {
                PLUGGED_IN
            };
            let rest = text.strip_prefix(&*self.origin(name).to_string_lossy()).unwrap_or(&text);
            let (field, reason) = match rest.strip_prefix('/').and_then(|rest| rest.split_once(": ")) {
                Some((key, reason)) => (format!("data.{key}"), reason),
                None => (String::new(), rest.trim_start_matches(": ")),
            };
            let reason = format!("is not used, the authority before it goes on: {reason}");
            self.problem(name, field, reason, "mend the Secret: it is taken over at once")
        });
        self.notices.set(&self.cluster, TOPIC, problem.into_iter().collect());
    }

    fn problem(&self, name: &str, field: String, reason: String, remedy: &str) -> Problem {
        let object = format!("{}/Secret/{name}", self.namespace);
        Problem::of_object(&self.cluster.0, Some(object), field, Severity::Error, reason, remedy)
    }

    fn origin(&self, name: &str) -> PathBuf {
        [self.cluster.as_str(), &self.namespace, "Secret", name].iter().collect()
    }

    async fn follow(self, access: Access, known: Arc<watch::Sender<Known>>) {
        let note = |of: fn(&mut Known) -> &mut State| {
            let known = known.clone();
            move |news: Result<Option<SecretData>, Failure>| {
                known.send_modify(|known| {
                    let state = of(known);
                    match news {
                        Ok(Some(data)) => *state = State::Here(data),
                        Ok(None) => *state = State::Absent,
                        // What was seen stays true.
                        Err(_) if matches!(state, State::Here(_) | State::Absent) => {}
                        Err(failure) => *state = State::Away(failure),
                    }
                });
            }
        };
        tokio::join!(
            follow_secret(&access, &self.namespace, PLUGGED_IN, note(|known| &mut known.plugged_in)),
            follow_secret(&access, &self.namespace, SELF_SIGNED, note(|known| &mut known.self_signed)),
        );
    }

    fn choose(&self, known: &Known) -> Choice {
        let secrets = [(PLUGGED_IN, &known.plugged_in), (SELF_SIGNED, &known.self_signed)];
        for (name, state) in secrets {
            match state {
                State::Unknown => return Choice::Wait(None),
                State::Away(failure) => return Choice::Wait(Some((name, failure.clone()))),
                State::Absent => {}
                State::Here(data) => return Choice::Given(self.given(name, data)),
            }
        }
        Choice::Nothing
    }

    fn given(&self, name: &str, data: &SecretData) -> Given {
        let material = Material::new(self.origin(name), data.0.clone());
        if name == PLUGGED_IN { Given::CaCerts(material) } else { Given::SelfSigned(material) }
    }

    /// Keeps a copy of the Secret in force, once it was seen to be usable.
    fn keep(&self, known: &Known, authority: &Authority) {
        for (name, state) in [(PLUGGED_IN, &known.plugged_in), (SELF_SIGNED, &known.self_signed)] {
            let State::Here(data) = state else { continue };
            let now = OffsetDateTime::now_utc();
            let next = match self.given(name, data) {
                Given::CaCerts(material) => material.authority(now),
                Given::SelfSigned(material) => material.self_signed(now),
            };
            // What is refused is not in force, and neither is what is passed over.
            if next.is_ok_and(|next| next.has_same_chain(authority)) {
                return self.copy.keep(name, data);
            }
        }
    }

    /// The first Secret that there is; where there is none, the one that the leader makes. None if it may not be made.
    async fn first(
        &self,
        access: &Access,
        news: &mut watch::Receiver<Known>,
        trust_domain: &str,
    ) -> Result<Option<Given>> {
        let (began, mut said) = (Instant::now(), Instant::now());
        let mut refused = None;
        let mut copy = self.copy.restore();
        loop {
            let known = news.borrow_and_update().clone();
            let waits_for = match self.choose(&known) {
                Choice::Given(given) => return Ok(Some(given)),
                Choice::Wait(Some((name, failure))) if failure.is_forbidden() => {
                    return Err(anyhow!(
                        "Secret {}/{name} may hold the mesh's authority and cannot be read: {failure}; allow get, list and watch on the \
                         Secrets {PLUGGED_IN} and {SELF_SIGNED}, give --ca-dir, or --ca-secrets=false for a root in --state-dir",
                        self.namespace
                    ));
                }
                Choice::Wait(failure)
                    if copy.is_some() && (failure.is_some() || began.elapsed() >= COPY_AFTER) =>
                {
                    let given = copy.take().map(|(name, data)| {
                        warn!("the Secret with the authority cannot be read: the copy of {name} in the state directory is used until it can");
                        self.given(&name, &data)
                    });
                    return Ok(given);
                }
                Choice::Wait(failure) => {
                    failure.map_or_else(|| "their first read".to_owned(), |(_, failure)| failure.to_string())
                }
                Choice::Nothing => {
                    let standing = self.standing.borrow().clone();
                    if standing.leads(Instant::now()) {
                        match self.make(access, trust_domain).await {
                            Ok(()) => {}
                            Err(failure) if failure.is_forbidden() || failure.is_missing() => {
                                refused = Some(failure)
                            }
                            Err(failure) => {
                                warn!(%failure, "Secret {SELF_SIGNED} is not made; it is tried again")
                            }
                        }
                    } else {
                        refused = standing.refused.filter(|f| f.is_forbidden() || f.is_missing());
                    }
                    if let Some(failure) = refused.take() {
                        warn!(
                            %failure,
                            "there is no Secret {PLUGGED_IN}, and Secret {SELF_SIGNED} may not be made: the self-signed root is in the \
                             state directory, and other replicas have others; allow create on secrets and on leases in namespace {}",
                            self.namespace
                        );
                        return Ok(None);
                    }
                    format!("the leader {} to make one", standing.holder)
                }
            };
            if said.elapsed() > LOOK.1 {
                said = Instant::now();
                info!("the Secret with the authority is waited for: {waits_for}");
            }
            drop(timeout(LOOK.0, news.changed()).await);
        }
    }

    /// Makes the Secret with a new root. One that somebody else made meanwhile is as good: the watch tells of it.
    async fn make(&self, access: &Access, trust_domain: &str) -> Result<(), Failure> {
        let made = self_signed::make(trust_domain);
        let (key, cert) =
            made.map_err(|error| Failure::Garbage(format!("no root could be made: {error}")))?;
        let files = [(CA_KEY, key.as_str()), (CA_CERT, &cert), (ROOT_CERT, &cert), (CERT_CHAIN, "")];
        let data = BTreeMap::from(files.map(|(name, text)| (name, STANDARD.encode(text))));
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "type": SELF_SIGNED_TYPE,
            "metadata": { "name": SELF_SIGNED, "namespace": self.namespace }, "data": data });
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        match access.client().post(&path, object.to_string().into_bytes(), PATIENCE).await {
            Ok(_) => info!("a self-signed root was made, in Secret {}/{SELF_SIGNED}", self.namespace),
            Err(failure) if failure.code() == Some(409) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Tells the authority whenever the Secret in force changes, for ever.
    async fn hand_on(&self, mut news: watch::Receiver<Known>, sender: watch::Sender<Given>) {
        // What was known when the copy was taken is looked at again.
        news.mark_changed();
        while news.changed().await.is_ok() {
            let known = news.borrow_and_update().clone();
            match self.choose(&known) {
                Choice::Given(given) => drop(sender.send_replace(given)),
                Choice::Nothing => {
                    let reason =
                        "is gone; its key goes on being used until landbridge is started again".to_owned();
                    let name = match *sender.borrow() {
                        Given::CaCerts(_) => PLUGGED_IN,
                        Given::SelfSigned(_) => SELF_SIGNED,
                    };
                    let remedy = "put it back: without it the next start makes a root that nobody trusts";
                    self.notices.set(
                        &self.cluster,
                        TOPIC,
                        vec![self.problem(name, String::new(), reason, remedy)],
                    );
                }
                Choice::Wait(_) => {}
            }
        }
    }

    /// Keeps the copy as the authority in force is, for ever.
    async fn keep_copy(&self, news: watch::Receiver<Known>, mut authority: watch::Receiver<Arc<Authority>>) {
        loop {
            let (known, current) = (news.borrow().clone(), authority.borrow_and_update().clone());
            self.keep(&known, &current);
            if authority.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps a self-signed root from running out, where this replica writes; for ever.
    async fn renew(&self, access: &Access, authority: watch::Receiver<Arc<Authority>>) {
        loop {
            tokio::time::sleep(RENEWAL_LOOK.mul_f64(rand::random_range(0.5..1.0))).await;
            let current = authority.borrow().clone();
            let leads = self.standing.borrow().leads(Instant::now());
            if !leads || current.origin() != self.origin(SELF_SIGNED).to_string_lossy() {
                continue;
            }
            match self_signed::renewed(&current, OffsetDateTime::now_utc()) {
                Ok(Some(cert)) => match self.replace_cert(access, &cert.to_pem()).await {
                    Ok(()) => {
                        info!(not_after = %cert.not_after, "the self-signed root was renewed with its key")
                    }
                    Err(failure) => {
                        warn!(%failure, "the self-signed root nears its end and is not renewed; it is tried again")
                    }
                },
                Ok(None) => {}
                Err(error) => warn!(%error, "the self-signed root nears its end and cannot be renewed"),
            }
        }
    }

    async fn replace_cert(&self, access: &Access, cert: &str) -> Result<(), Failure> {
        let path = format!("/api/v1/namespaces/{}/secrets/{SELF_SIGNED}", self.namespace);
        let client = access.client();
        let mut secret = client.get_json(&path, PATIENCE).await?;
        for name in [CA_CERT, ROOT_CERT] {
            if let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) {
                data.insert(name.to_owned(), STANDARD.encode(cert).into());
            }
        }
        client.put(&path, &secret, PATIENCE).await.map(drop)
    }
}
