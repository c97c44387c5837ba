//! The load: `CreateCertificate` over many connections.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, task::LocalSet, time::sleep_until};

use super::{
    credentials::{Caller, Credentials},
    message::{METHOD, chain, request},
    pool::Pool,
    timing::Recorder,
};
use crate::h2::{Connection, Error, Target};

/// What is asked, and how.
#[derive(Debug)]
pub struct Requests {
    /// Whom.
    pub target: Target,
    /// At the same time.
    pub connections: usize,
    /// A new connection for each request, as a pod that starts has one.
    pub new_connection: bool,
    /// How fast.
    pub pace: Pace,
    /// For how long.
    pub lasting: Duration,
    /// Lifetime to ask for, in seconds; 0: the server's default.
    pub validity: u64,
    /// Answers to keep for the check; all are counted.
    pub keep: usize,
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection asks again when it has its answer.
    Closed,
    /// So many in a second over all connections, at fixed times; latencies count from then.
    Open(f64),
}

/// An answer to be checked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The pool's entry that was sent.
    pub entry: usize,
    /// The identity that was proved.
    pub identity: Option<Arc<str>>,
    /// The certificate, PEM.
    pub leaf: Box<str>,
    /// Intermediates, and the roots as the last; shared by all answers that have the same.
    pub issuers: Arc<[String]>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Answers {
    /// Those that were kept.
    pub kept: Vec<Answer>,
    /// Latencies of all.
    pub recorder: Recorder,
    /// Requests without an answer, by reason.
    pub failed: std::collections::BTreeMap<String, u64>,
    /// Until the last answer.
    pub seconds: f64,
    issuers: Vec<Arc<[String]>>,
}

/// Pause after a failure: a server that refuses is not asked in a busy loop.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

impl Requests {
    /// Runs until the time is over and each connection has its last answer. Uses one thread.
    pub async fn run(self, pool: Rc<Pool>, credentials: &Credentials) -> Answers {
        let answers = Rc::new(RefCell::new(Answers::default()));
        let this = Rc::new(self);
        let began = Instant::now();
        let local = LocalSet::new();
        let mut tasks = JoinSet::new();
        for n in 0..this.connections {
            let (this, pool, answers) = (this.clone(), pool.clone(), answers.clone());
            let caller = credentials.get(n).clone();
            tasks.spawn_local_on(
                async move { this.connection(n, began, &caller, &pool, &answers).await },
                &local,
            );
        }
        // A task has nothing to return; one that panics is a bug that shows on stderr.
        local.run_until(async { while tasks.join_next().await.is_some() {} }).await;
        let mut answers = answers.take();
        answers.seconds = began.elapsed().as_secs_f64();
        answers
    }

    async fn connection(
        &self,
        n: usize,
        began: Instant,
        caller: &Caller,
        pool: &Pool,
        answers: &RefCell<Answers>,
    ) {
        let target = Target { tls: caller.tls.clone().or(self.target.tls.clone()), ..self.target.clone() };
        let mut open = None;
        for turn in 0.. {
            let number = turn * self.connections + n;
            let due = match self.pace {
                Pace::Closed => Instant::now(),
                Pace::Open(rate) => {
                    let due = began + Duration::try_from_secs_f64(number as f64 / rate).unwrap_or_default();
                    sleep_until(due.into()).await;
                    due
                }
            };
            if due.saturating_duration_since(began) >= self.lasting {
                return;
            }
            let answer = self.ask(&target, &mut open, number, caller, pool).await;
            let took = due.elapsed();
            match answer {
                Ok(answer) => answers.borrow_mut().add(number, took, &answer, caller, self.keep),
                Err(error) => {
                    open = None;
                    *answers.borrow_mut().failed.entry(error.to_string()).or_default() += 1;
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn ask(
        &self,
        target: &Target,
        open: &mut Option<Connection>,
        number: usize,
        caller: &Caller,
        pool: &Pool,
    ) -> Result<Vec<u8>, Error> {
        if self.new_connection {
            *open = None;
        }
        let connection = match open {
            Some(connection) => connection,
            None => open.insert(Connection::connect(target).await?),
        };
        connection.call(METHOD, &caller.metadata, &request(&pool.get(number).csr, self.validity)).await
    }
}

impl Answers {
    fn add(&mut self, number: usize, took: Duration, answer: &[u8], caller: &Caller, keep: usize) {
        self.recorder.record(took);
        if self.kept.len() >= keep {
            return;
        }
        match chain(answer).ok().as_deref() {
            Some([leaf, issuers @ ..]) => {
                let answer = Answer {
                    entry: number,
                    identity: caller.identity.clone(),
                    leaf: (*leaf).into(),
                    issuers: self.share(issuers),
                };
                self.kept.push(answer);
            }
            _ => *self.failed.entry("an answer without certificates".into()).or_default() += 1,
        }
    }

    /// There are as many different ones as authorities, which is one or two.
    fn share(&mut self, issuers: &[&str]) -> Arc<[String]> {
        if let Some(known) = self.issuers.iter().rev().find(|known| known.iter().eq(issuers)) {
            return known.clone();
        }
        let new: Arc<[String]> = issuers.iter().map(|text| (*text).to_owned()).collect();
        self.issuers.push(new.clone());
        new
    }
}
