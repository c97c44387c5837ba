//! What is due with the webhooks of a cluster. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{registry::kubernetes::Failure, webhook::ALWAYS_REJECT, writers::metrics::Outcome};

/// After a failure, at first and at most; twice as long from time to time.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// So many repairs are made at once; then they become rare: somebody else is at work.
const PATIENT: u32 = 3;
/// Between repairs in a fight, at most.
const TRUCE: Duration = Duration::from_secs(300);
/// What stays as it was written for so long is not fought about.
const PEACE: Duration = Duration::from_secs(600);
/// A rollout takes its time; after so many tries (about 6 s) a person may want to know.
const SAID_AFTER: u32 = 6;

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Make it this, if it is still the version that it was made from.
    Write {
        name: String,
        configuration: Value,
        /// What it is, if it works.
        outcome: Outcome,
    },
    /// See whether an invalid object is refused.
    Prove,
}

/// Why it is not proven that we are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// The invalid object would have been stored: the API server passes over webhooks that it does not reach.
    Taken,
    /// Something else was wrong.
    Failed(Failure),
}

/// What is known of the webhooks, and what follows.
#[derive(Debug, Default)]
pub struct Plan {
    /// The roots as `caBundle` has them; none until there is an authority.
    bundle: Option<String>,
    /// None until they were listed.
    all: Option<BTreeMap<String, Value>>,
    tries: BTreeMap<String, Try>,
    proof: Proof,
}

#[derive(Debug, Default)]
struct Try {
    /// With which roots it was last written well, and when.
    last: Option<(String, Instant)>,
    /// Whether it was strict then.
    strict: bool,
    /// Repairs that followed soon on what was written before.
    fights: u32,
    failures: u32,
    failure: Option<Failure>,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Proof {
    is_there: bool,
    failures: u32,
    unproven: Option<Unproven>,
    not_before: Option<Instant>,
}

// === impl Unproven ===

impl Unproven {
    pub fn reason(&self) -> String {
        match self {
            Self::Taken => "an invalid object is not refused in a dry run".to_owned(),
            Self::Failed(failure) => {
                format!("whether an invalid object is refused cannot be seen: {failure}")
            }
        }
    }
}

/// What the end of the dry run proves: that it was refused, and that it was us who did, not another policy.
///
/// istiod also takes it as a proof that there is no such kind, or that another webhook forbids dry runs. Then nothing is known, and
/// objects that nobody would look at could be locked out.
pub fn judge(failure: Option<Failure>) -> Result<(), Unproven> {
    match failure {
        None => Err(Unproven::Taken),
        Some(failure) => {
            let said = failure.to_string();
            let is_ours = said.contains("denied the request") && said.contains(ALWAYS_REJECT);
            if is_ours { Ok(()) } else { Err(Unproven::Failed(failure)) }
        }
    }
}

// === impl Plan ===

impl Plan {
    pub fn set_bundle(&mut self, bundle: Option<String>) {
        self.bundle = bundle;
    }

    /// These are all that there are.
    pub fn all(&mut self, all: Vec<Value>) {
        self.all = Some(all.into_iter().filter(Value::is_object).map(|one| (name(&one), one)).collect());
        let Self { all, tries, .. } = self;
        tries.retain(|name, _| all.as_ref().is_some_and(|all| all.contains_key(name)));
    }

    /// One that came or changed. What is older than what is known, because we wrote meanwhile, says nothing.
    pub fn now(&mut self, configuration: Value) {
        let Some(all) = self.all.as_mut().filter(|_| configuration.is_object()) else { return };
        let name = name(&configuration);
        if all.get(&name).is_none_or(|known| version(known) <= version(&configuration)) {
            all.insert(name, configuration);
        }
    }

    pub fn gone(&mut self, configuration: &Value) {
        let name = name(configuration);
        if let Some(all) = &mut self.all {
            all.remove(&name);
        }
        self.tries.remove(&name);
    }

    /// The next thing to do.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let (all, bundle) = (self.all.as_ref()?, self.bundle.as_deref()?);
        let mut lenient = false;
        for (name, configuration) in all {
            let is_lenient = webhooks(configuration).any(|w| w["failurePolicy"] != "Fail");
            let is_foreign = webhooks(configuration).any(|w| w["clientConfig"]["caBundle"] != bundle);
            lenient |= is_lenient;
            let may_be_strict = is_lenient && self.proof.is_there;
            if !is_foreign && !may_be_strict {
                continue;
            }
            let tried = self.tries.entry(name.clone()).or_default();
            if tried.not_before.is_some_and(|at| now < at) {
                continue;
            }
            // Somebody took back what we wrote.
            let is_repair =
                tried.last.as_ref().is_some_and(|(last, _)| last == bundle) && (is_foreign || tried.strict);
            if tried.failures == 0 && tried.not_before.take().is_none() {
                match &tried.last {
                    Some((_, last)) if now < *last + PEACE => tried.fights += u32::from(is_repair),
                    _ => tried.fights = 0,
                }
                if is_repair && tried.fights > PATIENT {
                    let wait = Duration::from_secs(1 << (tried.fights - PATIENT).min(16)).min(TRUCE);
                    tried.not_before = Some(now + wait);
                    continue;
                }
            }
            let outcome = if is_repair { Outcome::Repaired } else { Outcome::Written };
            let configuration = wanted(configuration, bundle, self.proof.is_there);
            return Some(Due::Write { name: name.clone(), configuration, outcome });
        }
        if !lenient {
            // What becomes lenient later has to be proven again.
            self.proof = Proof::default();
            return None;
        }
        let waits = self.proof.is_there || self.proof.not_before.is_some_and(|at| now < at);
        (!waits).then_some(Due::Prove)
    }

    /// How writing ended: the object as it is now, or why not.
    pub fn written(&mut self, name: &str, result: Result<Value, Failure>, now: Instant) {
        // It may have gone meanwhile.
        let Some(tried) = self.tries.get_mut(name) else { return };
        match result {
            Ok(stored) => {
                tried.last = self.bundle.clone().map(|bundle| (bundle, now));
                tried.strict = webhooks(&stored).all(|w| w["failurePolicy"] == "Fail");
                (tried.failures, tried.failure, tried.not_before) = (0, None, None);
                self.now(stored);
            }
            Err(failure) => {
                let wait = RETRY.0.saturating_mul(1 << tried.failures.min(16)).min(RETRY.1);
                tried.failures = tried.failures.saturating_add(1);
                tried.not_before = Some(now + failure.retry_after().unwrap_or_default().max(wait));
                tried.failure = Some(failure);
            }
        }
    }

    /// It was not written after all, because this replica may not write any more.
    pub fn put_back(&mut self, name: &str, now: Instant) {
        if let Some(tried) = self.tries.get_mut(name) {
            tried.not_before = Some(now + RETRY.0);
        }
    }

    /// How the dry run ended.
    pub fn proven(&mut self, proof: Result<(), Unproven>, now: Instant) {
        let Proof { failures, .. } = self.proof;
        self.proof = match proof {
            Ok(()) => Proof { is_there: true, ..Proof::default() },
            Err(unproven) => Proof {
                is_there: false,
                failures: failures.saturating_add(1),
                unproven: Some(unproven),
                not_before: Some(now + RETRY.0.saturating_mul(1 << failures.min(16)).min(RETRY.1)),
            },
        };
    }

    /// When there is something to be done that there is not now.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let tries = self.tries.values().filter_map(|tried| tried.not_before);
        tries.chain(self.proof.not_before).filter(|at| *at > now).min()
    }

    /// Failures that stand. Somebody else who was faster is none.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        let failed = self.tries.iter().filter_map(|(name, tried)| Some((&**name, tried.failure.as_ref()?)));
        failed.filter(|(_, failure)| failure.code() != Some(409))
    }

    /// What somebody changes again and again.
    pub fn fights(&self, now: Instant) -> impl Iterator<Item = &str> {
        let is_recent = move |tried: &Try| tried.last.as_ref().is_some_and(|(_, at)| now < *at + PEACE);
        let fought = self.tries.iter().filter(move |(_, tried)| tried.fights > PATIENT && is_recent(tried));
        fought.map(|(name, _)| name.as_str())
    }

    /// Why the policy is not strict yet, where that lasts, and of which.
    pub fn unproven(&self) -> Option<(&Unproven, Vec<&str>)> {
        let unproven = self.proof.unproven.as_ref().filter(|_| self.proof.failures >= SAID_AFTER)?;
        Some((unproven, self.all.iter().flatten().map(|(name, _)| name.as_str()).collect()))
    }
}

/// The same with our roots, and, where that is proven to lock out nothing but what is broken, with a strict policy.
fn wanted(configuration: &Value, bundle: &str, strict: bool) -> Value {
    let mut wanted = configuration.clone();
    // Items of lists do not say what they are.
    wanted["apiVersion"] = json!("admissionregistration.k8s.io/v1");
    wanted["kind"] = json!("ValidatingWebhookConfiguration");
    for webhook in wanted.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(client) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) {
            client.insert("caBundle".to_owned(), json!(bundle));
        }
        if let Some(webhook) = webhook.as_object_mut().filter(|_| strict) {
            webhook.insert("failurePolicy".to_owned(), json!("Fail"));
        }
    }
    wanted
}

fn webhooks(configuration: &Value) -> impl Iterator<Item = &Value> {
    configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten()
}

fn name(configuration: &Value) -> String {
    configuration.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn version(configuration: &Value) -> u64 {
    let version = configuration.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}
