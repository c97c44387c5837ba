//! The terminal while the demo runs: who answers now. On a terminal one line that changes; elsewhere a line a second.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::load::{Load, Sample};
use crate::topology::CLOUDS;

const BAR: usize = 24;

/// What is shown. Clones show the same.
#[derive(Clone)]
pub struct View(Arc<Shared>);

struct Shared {
    began: Instant,
    live: bool,
    phase: Mutex<&'static str>,
}

impl View {
    pub fn new() -> Self {
        let live = std::io::stdout().is_terminal();
        Self(Arc::new(Shared { began: Instant::now(), live, phase: Mutex::new("") }))
    }

    /// A line that stays.
    pub fn say(&self, what: &str) {
        self.line(&format!("{:6.1} s  {what}", self.0.began.elapsed().as_secs_f64()));
    }

    /// A new phase of the story.
    pub fn phase(&self, title: &'static str) {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner) = title;
        let (bold, plain) = if self.0.live { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("{:6.1} s  {bold}{title}{plain}", self.0.began.elapsed().as_secs_f64()));
    }

    fn line(&self, text: &str) {
        let clear = if self.0.live { "\r\x1b[2K" } else { "" };
        let mut out = std::io::stdout().lock();
        // A closed terminal is no reason to stop: the report is still written.
        let _ = writeln!(out, "{clear}{text}");
        let _ = out.flush();
    }

    /// Shows who answers, until dropped.
    pub async fn watch(&self, load: &Load) {
        let every = Duration::from_millis(if self.0.live { 250 } else { 1000 });
        let mut seen = 0;
        loop {
            tokio::time::sleep(every).await;
            let new = load.samples_from(seen);
            seen += new.len();
            self.status(&new, every);
        }
    }

    fn status(&self, new: &[Sample], every: Duration) {
        let mut text = format!("{:6.1} s  ", self.0.began.elapsed().as_secs_f64());
        for cloud in CLOUDS {
            let answers =
                new.iter().filter(|sample| !sample.failed() && sample.by.starts_with(cloud)).count();
            let width = if new.is_empty() { 0 } else { answers * BAR / new.len() };
            let per_second = answers as f64 / every.as_secs_f64();
            text += &format!("  {cloud} {:<BAR$} {per_second:4.0}/s", "█".repeat(width));
        }
        let failed = new.iter().filter(|sample| sample.failed()).count();
        text += &format!("   failed {failed}");
        if self.0.live {
            let phase = *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r\x1b[2K{text}   {phase}");
            let _ = out.flush();
        } else {
            self.line(&text);
        }
    }
}

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}
