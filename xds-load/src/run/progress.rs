//! A line that shows how things stand, if there is a terminal.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use super::crew::Now;

const EVERY: Duration = Duration::from_millis(200);

pub struct Progress {
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { shown: None, is_terminal: stderr().is_terminal() }
    }

    pub fn show(&mut self, phase: &str, since: Duration, now: &Now, proxies: usize) {
        if !self.is_terminal || self.shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let Now { configured, responses, received, met, lost, .. } = now;
        let line = format!(
            "{:7.1} s  {phase:<10}  {configured}/{proxies} configured  {responses} responses  {:.1} MB  {met} changes met  \
             {lost} lost",
            since.as_secs_f64(),
            *received as f64 / 1e6,
        );
        // Nobody is there to be told if it fails.
        _ = write!(stderr(), "\r\x1b[K{line}");
    }

    /// Leaves an empty line.
    pub fn end(&mut self) {
        if self.shown.take().is_some() {
            _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
