//! What happens in the demo, in order, and what is noted down of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use tokio::time::sleep;

use super::view::View;
use crate::envoy::Envoy;
use crate::http;
use crate::load::{Load, Sample};
use crate::mesh::Mesh;

/// Requests per second.
pub const RATE: u32 = 200;
const HOME: &str = "east";
const REMOTE: &str = "west";
/// As many answers in a row from home count as "traffic is back": half a second of them.
const SETTLED: usize = RATE as usize / 2;
const PATIENCE: Duration = Duration::from_secs(15);

/// A stretch of time under one title; times are of the load's clock.
pub struct Phase {
    pub name: &'static str,
    pub title: &'static str,
    pub from: Duration,
    pub to: Duration,
}

/// Something that was done at a moment.
pub struct Event {
    pub at: Duration,
    pub what: String,
}

/// What the demo noted. Times in milliseconds.
#[derive(Default)]
pub struct Record {
    pub phases: Vec<Phase>,
    pub events: Vec<Event>,
    /// Per kind of failure: from the failure to the arrival of the first answer from the other cloud.
    pub first_remote_answer_ms: BTreeMap<&'static str, f64>,
    /// From the edit of the YAML to the last proxy that has the backend's new endpoints, and how many proxies took them.
    pub withdrawn_to_last_proxy_ms: Option<f64>,
    pub withdrawn_proxies: usize,
    /// Per kind of failure: from the repair to the last answer from the other cloud.
    pub returned_home_ms: BTreeMap<&'static str, f64>,
    pub control_plane_down_ms: f64,
    /// From "both serve again" to "every proxy's stream is up".
    pub reconnected_ms: f64,
    /// What proxies took from the control planes between the kill and the end of that phase.
    pub resent: Vec<String>,
    /// From the exchange of the CA directories to the last proxy with a certificate of the new intermediate.
    pub rotated_ms: f64,
}

/// The stage: everything that the story acts on.
pub struct Stage<'a> {
    pub mesh: &'a mut Mesh,
    pub load: &'a Load,
    pub view: &'a View,
    pub record: Record,
}

impl Stage<'_> {
    /// Plays all five acts.
    pub async fn play(&mut self) -> Result<()> {
        self.at_home().await?;
        self.fails("http_500", "2a home backends answer 500", async |mesh| mesh.backends_answer(HOME, "500"))
            .await?;
        self.comes_back("http_500", async |mesh| mesh.backends_answer(HOME, "ok")).await?;
        self.fails("killed", "2b home backends killed", async |mesh| mesh.kill_backends(HOME).await).await?;
        self.comes_back("killed", async |mesh| mesh.start_backends(HOME).await).await?;
        let edited = SystemTime::now();
        self.fails("withdrawn", "2c home backends withdrawn from the YAML", async |mesh| {
            mesh.withdraw_backends(HOME)
        })
        .await?;
        self.note_spread(edited).await?;
        self.comes_back("withdrawn", async |mesh| mesh.restore_backends(HOME)).await?;
        self.control_planes_die().await?;
        self.intermediates_rotate().await
    }

    async fn at_home(&mut self) -> Result<()> {
        let from = self.begin("1 home");
        let settled = self.load.settled(SETTLED, PATIENCE, from_home).await;
        ensure!(settled, "the home cloud does not answer: {}", self.last_answers());
        sleep(Duration::from_secs(3)).await;
        self.end("home", "1 home", from);
        Ok(())
    }

    /// Home fails in one way; the first answer from the other cloud is waited for, and then some.
    async fn fails(
        &mut self,
        name: &'static str,
        title: &'static str,
        failure: impl AsyncFnOnce(&mut Mesh) -> Result<()>,
    ) -> Result<()> {
        let from = self.begin(title);
        failure(self.mesh).await?;
        let first =
            self.load.first(from, PATIENCE, |sample| !sample.failed() && is_from(sample, REMOTE)).await;
        let first = first.with_context(|| {
            format!("no answer from the other cloud within {PATIENCE:?}: {}", self.last_answers())
        })?;
        let after = millis(first.sent + first.took - from);
        self.note(format!("first answer from {REMOTE} after {after:.0} ms"));
        self.record.first_remote_answer_ms.insert(name, after);
        sleep(Duration::from_millis(2500)).await;
        self.end(name, title, from);
        Ok(())
    }

    /// Home is repaired; ends when it answers everything again.
    async fn comes_back(
        &mut self,
        name: &'static str,
        repair: impl AsyncFnOnce(&mut Mesh) -> Result<()>,
    ) -> Result<()> {
        const TITLE: &str = "3 home comes back";
        let from = self.begin(TITLE);
        repair(self.mesh).await?;
        let repaired = self.load.now();
        let settled = self.load.settled(SETTLED, PATIENCE, from_home).await;
        ensure!(settled, "traffic did not come home within {PATIENCE:?}: {}", self.last_answers());
        let samples = self.load.samples_from(0);
        let last_remote =
            samples.iter().filter(|sample| is_from(sample, REMOTE)).map(|sample| sample.sent + sample.took);
        let after = millis(last_remote.max().unwrap_or_default().saturating_sub(repaired));
        self.note(format!("all traffic home {after:.0} ms after the repair"));
        self.record.returned_home_ms.insert(name, after);
        sleep(Duration::from_secs(1)).await;
        self.end("returned", TITLE, from);
        Ok(())
    }

    /// Envoy says when it last took the endpoints of a cluster, on the same wall clock as ours.
    async fn note_spread(&mut self, edited: SystemTime) -> Result<()> {
        let edited = edited.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1000.0;
        let mut last: Option<f64> = None;
        for (_, envoy) in self.mesh.envoys() {
            let times = envoy.stats("backend\\.production.*\\.update_time$").await?;
            let taken = times.into_values().map(|at| at as f64 - edited).filter(|after| *after >= 0.0);
            if let Some(after) = taken.reduce(f64::max) {
                self.record.withdrawn_proxies += 1;
                last = Some(last.map_or(after, |last| last.max(after)));
            }
        }
        self.record.withdrawn_to_last_proxy_ms = last.map(|ms| (ms * 10.0).round() / 10.0);
        Ok(())
    }

    async fn control_planes_die(&mut self) -> Result<()> {
        const TITLE: &str = "4 both control planes killed";
        let from = self.begin(TITLE);
        let before = self.mesh.taken().await?;
        self.mesh.kill_control_planes().await?;
        sleep(Duration::from_secs(3)).await;
        self.end("control_planes_killed", TITLE, from);

        const AGAIN: &str = "4 control planes start again";
        let from_start = self.begin(AGAIN);
        self.mesh.start_control_planes().await?;
        self.record.control_plane_down_ms = millis(self.load.now() - from);
        let up = self.load.now();
        wait_for_all(self.mesh, "reconnected", async |_, envoy| envoy.connected().await).await?;
        self.record.reconnected_ms = millis(self.load.now() - up);
        sleep(Duration::from_secs(1)).await; // whatever would be sent again has been sent by then
        let after = self.mesh.taken().await?;
        let new = after.into_iter().filter(|(name, times)| before.get(name) != Some(times));
        self.record.resent = new.map(|(name, _)| name).collect();
        self.note(format!(
            "all proxies connected again after {:.0} ms; resources sent again: {}",
            self.record.reconnected_ms,
            self.record.resent.len()
        ));
        self.end("control_planes_restarted", AGAIN, from_start);
        Ok(())
    }

    async fn intermediates_rotate(&mut self) -> Result<()> {
        const TITLE: &str = "5 both intermediate CAs rotated";
        let from = self.begin(TITLE);
        let mut before = BTreeMap::new();
        for (id, envoy) in self.mesh.envoys() {
            let serials = envoy.certificate_serials().await?;
            if !serials.is_empty() {
                before.insert(id.to_owned(), serials); // a gateway that passes TLS through may need none
            }
        }
        ensure!(!before.is_empty(), "no proxy has a certificate");
        let shown = self.certificates_shown().await?;
        let start = self.load.now();
        for cloud in [HOME, REMOTE] {
            self.mesh.rotate_intermediate(cloud).await?;
        }
        wait_for_all(self.mesh, "given a certificate of the new intermediate", async |id, envoy| {
            let Some(old) = before.get(id) else { return true };
            envoy.certificate_serials().await.is_ok_and(|new| !new.is_empty() && new != *old)
        })
        .await?;
        self.record.rotated_ms = millis(self.load.now() - start);
        self.note(format!("every proxy has a new certificate after {:.0} ms", self.record.rotated_ms));
        // Connections that are open go on with the old certificate; new ones must show the new one, and be believed.
        let deadline = self.load.now() + PATIENCE;
        while self.certificates_shown().await?.is_subset(&shown) {
            ensure!(self.load.now() < deadline, "no connection shows a new certificate within {PATIENCE:?}");
        }
        self.note("backends are called with a new certificate".to_owned());
        sleep(Duration::from_secs(2)).await;
        self.end("rotated", TITLE, from);
        Ok(())
    }

    /// Fingerprints of the client's certificates as the backends see them. Asks with many requests at a time, so that
    /// the client's proxy opens connections beyond those that the load uses.
    async fn certificates_shown(&self) -> Result<BTreeSet<String>> {
        let client = self.mesh.topology.pod(HOME, "client")?;
        let target = self.mesh.target();
        let calls =
            (0..24).map(|_| http::fetch(&client.ns, target.to, &target.host, "/", Duration::from_secs(5)));
        let mut shown = BTreeSet::new();
        for answer in join_all(calls).await {
            let text = String::from_utf8_lossy(answer?.body()).into_owned();
            let hash =
                text.split_once("Hash=").map(|(_, rest)| rest.chars().take_while(char::is_ascii_hexdigit));
            shown.insert(hash.context("the backend sees no client certificate: no mutual TLS?")?.collect());
        }
        Ok(shown)
    }

    fn begin(&mut self, title: &'static str) -> Duration {
        let now = self.load.now();
        self.view.phase(title);
        self.record.events.push(Event { at: now, what: title.to_owned() });
        now
    }

    fn end(&mut self, name: &'static str, title: &'static str, from: Duration) {
        self.record.phases.push(Phase { name, title, from, to: self.load.now() });
    }

    fn note(&mut self, what: String) {
        self.view.say(&what);
        self.record.events.push(Event { at: self.load.now(), what });
    }

    /// What came last, for an error message.
    fn last_answers(&self) -> String {
        let samples = self.load.samples_from(0);
        let last = samples.iter().rev().take(3).map(|sample| format!("{} {}", sample.status, sample.by));
        last.collect::<Vec<_>>().join("; ")
    }
}

fn from_home(sample: &Sample) -> bool {
    !sample.failed() && is_from(sample, HOME)
}

fn is_from(sample: &Sample, cloud: &str) -> bool {
    sample.by.split_once('/').is_some_and(|(at, _)| at == cloud)
}

pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Waits until a question is answered with yes by every proxy.
async fn wait_for_all(mesh: &Mesh, what: &str, yes: impl AsyncFn(&str, &Envoy) -> bool) -> Result<()> {
    let asked = async {
        for (id, envoy) in mesh.envoys() {
            while !yes(id, envoy).await {
                sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let patience = PATIENCE * 2;
    if tokio::time::timeout(patience, asked).await.is_ok() {
        return Ok(());
    }
    let mut missing = Vec::new();
    for (id, envoy) in mesh.envoys() {
        if !yes(id, envoy).await {
            missing.push(id);
        }
    }
    anyhow::bail!("not {what} within {patience:?}: {}", missing.join(", "))
}
