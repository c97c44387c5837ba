//! Takes a run through its phases.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{
    Changes, Outcome, PhaseOutcome, Sample,
    crew::{self, Crew, Now},
    join,
    process::{Usage, usage},
    progress::Progress,
    scenario::{Phase, Scenario},
    seconds, setup,
    shard::{Command, Plan, Snapshot},
    verify::Findings,
};
use crate::{
    client::board::Board,
    floor::Pusher,
    mesh::{
        Mesh,
        churn::{Churn, Script},
        directory::Directories,
    },
};

/// How often the end of a phase is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// The same while nothing depends on it.
const GLANCE: Duration = Duration::from_millis(50);
const SAMPLE: Duration = Duration::from_secs(1);

/// Runs a scenario.
pub async fn run(scenario: Scenario) -> Result<Outcome> {
    let mesh = scenario.mesh.as_ref().map(|dir| {
        let directories = Directories::new(dir).with_apis(scenario.api.clone());
        let spec = directories.spec().context("no mesh: `xds-load mesh generate` makes one")?;
        let mesh = Mesh::generate(spec)?;
        // Back to how it was generated, whatever an earlier run has changed.
        directories.write(&mesh)?;
        anyhow::Ok(mesh)
    });
    let mesh = mesh.transpose()?;
    let board = Arc::new(Board::default());
    let plan = Arc::new(setup::plan(&scenario, mesh.as_ref(), Arc::clone(&board))?);
    let mut conductor = Conductor::new(scenario, mesh, board, &plan)?;
    let phases = conductor.scenario.phases.clone();
    for phase in &phases {
        // While they are all there, and nothing changes any more.
        if *phase == Phase::Disconnect && !conductor.verified {
            conductor.verify().await?;
        }
        conductor.phase(phase).await?;
    }
    if !conductor.verified {
        conductor.verify().await?;
    }
    conductor.finish()
}

struct Conductor {
    scenario: Scenario,
    /// The server's.
    address: SocketAddr,
    /// As it is now.
    mesh: Option<Mesh>,
    board: Arc<Board>,
    crew: Crew,
    began: Instant,
    progress: Progress,
    sampled: Option<Instant>,
    samples: Vec<Sample>,
    phases: Vec<PhaseOutcome>,
    changes: Changes,
    connected: bool,
    verified: bool,
    findings: Findings,
    failures: Vec<String>,
}

impl Conductor {
    fn new(scenario: Scenario, mesh: Option<Mesh>, board: Arc<Board>, plan: &Arc<Plan>) -> Result<Self> {
        let began = Instant::now();
        let crew = Crew::start(plan, began)?;
        Ok(Self {
            scenario,
            // Splitting by commas gives at least one.
            address: plan.targets.first().context("there is no server to connect to")?.address,
            mesh,
            board,
            crew,
            began,
            progress: Progress::new(),
            sampled: None,
            samples: Vec::new(),
            phases: Vec::new(),
            changes: Changes::default(),
            connected: false,
            verified: false,
            findings: Findings::default(),
            failures: Vec::new(),
        })
    }

    async fn phase(&mut self, phase: &Phase) -> Result<()> {
        let name = self.name(phase);
        let (began, before, counted) = (Instant::now(), self.crew.now(), self.crew.snapshot()?);
        let (own, server) = (self.own(), self.server());
        match phase {
            Phase::Connect(pace) => {
                self.connected = true;
                self.crew.tell(|| Command::Connect(*pace));
                self.all_configured(&name).await;
            }
            Phase::Hold(seconds) => {
                let until = Instant::now() + Duration::from_secs_f64(*seconds);
                while let Some(left) =
                    until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                {
                    self.wait_for(&name, left.min(GLANCE)).await;
                }
            }
            Phase::Churn(script) => self.churn(&name, script.clone()).await?,
            Phase::Push { times, seconds } => self.push(&name, *times, *seconds).await?,
            Phase::Reconnect(pace) => {
                self.crew.tell(|| Command::Reconnect(*pace));
                // Until the last one has noticed.
                let lost = |now: Now| now.connected < before.connected;
                let until = Instant::now() + Duration::from_secs(1);
                while !lost(self.crew.now()) && Instant::now() < until {
                    sleep(Duration::from_millis(1)).await;
                }
                self.all_configured(&name).await;
            }
            Phase::Command(line) => {
                self.command(line).await?;
                self.all_configured(&name).await;
            }
            Phase::Disconnect => {
                self.connected = false;
                self.crew.tell(|| Command::Disconnect);
                let until = Instant::now() + Duration::from_secs_f64(self.scenario.verify.patience);
                while self.crew.now().connected > 0 && Instant::now() < until {
                    self.wait_for(&name, LOOK).await;
                }
            }
        }
        let took = began.elapsed();
        let (now, counts) = (self.crew.now(), self.crew.snapshot()?);
        let (own_now, server_now) = (self.own(), self.server());
        let unchanged = |snapshot: &Snapshot| snapshot.tally.total().unchanged;
        self.phases.push(PhaseOutcome {
            name,
            seconds: seconds(took),
            server_cpu: server_now.zip(server).map(|(now, then)| seconds(now.since(&then))),
            own_cpu: seconds(own_now.since(&own)),
            server_rss: server_now.map(|usage| usage.rss),
            own_rss: own_now.rss,
            received: now.received - before.received,
            sent: now.sent - before.sent,
            responses: now.responses - before.responses,
            resources: now.resources - before.resources,
            unchanged: unchanged(&counts) - unchanged(&counted),
            lost: now.lost - before.lost,
            configured: now.configured,
        });
        Ok(())
    }

    /// Waits until all proxies are configured, or nothing has moved for too long.
    async fn all_configured(&mut self, phase: &str) {
        let all = self.scenario.proxies as u64;
        let patience = Duration::from_secs_f64(self.scenario.verify.patience);
        let mut seen = (0, 0);
        let mut moved = Instant::now();
        loop {
            let now = self.crew.now();
            if now.configured >= all {
                return;
            }
            if seen != (now.configured, now.responses) {
                seen = (now.configured, now.responses);
                moved = Instant::now();
            }
            if moved.elapsed() > patience {
                let waited = patience.as_secs();
                self.failures.push(format!(
                    "{phase}: {} of {all} proxies are configured, {} connected, and nothing came for {waited} s",
                    now.configured, now.connected
                ));
                return;
            }
            self.wait_for(phase, LOOK).await;
        }
    }

    async fn churn(&mut self, phase: &str, script: Script) -> Result<()> {
        let (Some(mesh), Some(dir)) = (self.mesh.take(), &self.scenario.mesh) else {
            bail!("churn needs a mesh: give --mesh DIR, as `xds-load mesh generate` wrote it");
        };
        let directories = Directories::new(dir).with_apis(self.scenario.api.clone());
        let mut churn = Churn::new(mesh, script, directories);
        let board = Arc::clone(&self.board);
        loop {
            let announce = |expectations: Vec<_>| board.announce(expectations);
            tokio::select! {
                more = churn.next(announce) => if !more? { break },
                () = self.look(phase) => unreachable!("it looks for ever"),
            }
        }
        let totals = churn.totals();
        self.changes.changes += totals.changes;
        self.changes.latest = self.changes.latest.max(totals.latest_seconds);
        self.changes.expectations = self.board.announced() as u64;
        self.mesh = Some(churn.into_mesh());
        // Until everything has arrived, or nothing comes any more.
        let quiet = Duration::from_secs_f64(self.scenario.verify.quiet);
        self.quiet(phase, quiet).await;
        Ok(())
    }

    /// Orders pushes from a floor; each is over when all have acknowledged it.
    async fn push(&mut self, phase: &str, times: usize, seconds: f64) -> Result<()> {
        let mut pusher = Pusher::new(self.address).await?;
        let board = Arc::clone(&self.board);
        for _ in 0..times {
            let push = async {
                let pushed = pusher.push(|expected| board.announce(vec![expected])).await?;
                sleep(Duration::from_secs_f64(seconds)).await;
                anyhow::Ok(pushed)
            };
            let report = tokio::select! {
                pushed = push => pushed?,
                () = self.look(phase) => unreachable!("it looks for ever"),
            };
            if report.acknowledged < report.streams {
                let missing = report.streams - report.acknowledged;
                self.failures.push(format!("{phase}: {missing} streams did not acknowledge a push"));
            }
            self.changes.changes += 1;
        }
        self.changes.expectations = self.board.announced() as u64;
        let quiet = Duration::from_secs_f64(self.scenario.verify.quiet);
        self.quiet(phase, quiet).await;
        Ok(())
    }

    /// Waits until nothing has come for so long, at most for the run's patience.
    async fn quiet(&mut self, phase: &str, quiet: Duration) {
        let until = Instant::now() + Duration::from_secs_f64(self.scenario.verify.patience);
        let mut met = self.crew.now().met;
        let mut moved = Instant::now();
        while moved.elapsed() < quiet && Instant::now() < until {
            let now = self.crew.now();
            let last = self.began + Duration::from_millis(now.last);
            if now.met != met {
                met = now.met;
                moved = Instant::now();
            }
            moved = moved.max(last);
            self.wait(phase).await;
        }
        if moved.elapsed() < quiet {
            self.failures.push(format!("{phase}: responses have not come to an end"));
        }
    }

    async fn command(&mut self, line: &[String]) -> Result<()> {
        let Some((program, args)) = line.split_first() else { bail!("a command phase without a command") };
        let before = self.crew.now().connected;
        let status = tokio::process::Command::new(program)
            .args(args)
            .status()
            .await
            .with_context(|| format!("run {program:?}"))?;
        if !status.success() {
            bail!("`{}` failed: {status}", line.join(" "));
        }
        // If it took the server away, that shows at once.
        let until = Instant::now() + Duration::from_secs(1);
        while self.crew.now().connected >= before && Instant::now() < until {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Fresh proxies, and what all have in the end.
    async fn verify(&mut self) -> Result<()> {
        self.verified = true;
        if !self.connected || !self.scenario.verify.shapes {
            return Ok(());
        }
        let phase = "verify";
        self.quiet(phase, Duration::from_secs_f64(self.scenario.verify.quiet)).await;
        let witnesses = self.scenario.verify.witnesses.div_ceil(self.scenario.threads);
        let patience = Duration::from_secs_f64(self.scenario.verify.patience);
        if witnesses > 0 {
            let answers = self.crew.ask(|answer| Command::Witness(witnesses, patience, answer));
            for answer in answers {
                while let Err(std::sync::mpsc::TryRecvError::Empty) = answer.try_recv() {
                    self.wait_for(phase, LOOK).await;
                }
            }
        }
        let mesh = self.mesh.clone().filter(|_| self.scenario.verify.truth).map(Arc::new);
        let answers = self.crew.ask(|answer| Command::Verify(mesh.clone(), answer));
        self.findings = join(crew::collect(answers)?);
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        self.progress.end();
        let counts = self.crew.snapshot()?;
        let server_peak = self.server().map(|usage| usage.peak);
        if self.scenario.server_pid.is_some() && server_peak.is_none() {
            self.failures.push("the server's process is gone".into());
        }
        let own_peak = self.own().peak;
        self.crew.end()?;
        Ok(Outcome {
            scenario: self.scenario,
            phases: self.phases,
            counts,
            findings: self.findings,
            changes: self.changes,
            server_peak,
            own_peak,
            samples: self.samples,
            failures: self.failures,
        })
    }

    /// A moment passes: shows how things stand, and notes it once a second.
    async fn wait(&mut self, phase: &str) {
        self.wait_for(phase, GLANCE).await;
    }

    async fn wait_for(&mut self, phase: &str, time: Duration) {
        // First: a moment that is cut short by a change must not hide how things stand.
        self.show(phase);
        sleep(time).await;
    }

    fn show(&mut self, phase: &str) {
        let now = self.crew.now();
        self.progress.show(phase, self.began.elapsed(), &now, self.scenario.proxies);
        if self.sampled.is_none_or(|sampled| sampled.elapsed() >= SAMPLE) {
            self.sampled = Some(Instant::now());
            let server = self.server();
            self.samples.push(Sample {
                seconds: seconds(self.began.elapsed()),
                configured: now.configured,
                responses: now.responses,
                received: now.received,
                server_cpu: server.map(|usage| seconds(usage.since(&Usage::default()))),
                server_rss: server.map(|usage| usage.rss),
                own_cpu: seconds(self.own().since(&Usage::default())),
            });
        }
    }

    async fn look(&mut self, phase: &str) {
        loop {
            self.wait(phase).await;
        }
    }

    fn server(&self) -> Option<Usage> {
        usage(self.scenario.server_pid?)
    }

    fn own(&self) -> Usage {
        usage(std::process::id()).unwrap_or_default()
    }

    fn name(&self, phase: &Phase) -> String {
        let name = phase.name();
        let same =
            self.phases.iter().filter(|p| p.name.trim_end_matches(|c: char| c.is_ascii_digit()) == name);
        match same.count() {
            0 => name.to_owned(),
            before => format!("{name}{}", before + 1),
        }
    }
}
