//! What is due to be said, and when. Pure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::registry::{Problem, Severity, kubernetes::Failure};

/// So many things are said at a time, and so many of them at one object. More is left out: whoever mends these sees the next ones.
pub const MOST: usize = 500;
pub const MOST_OF_OBJECT: usize = 8;
/// So many Events may be written at once, and then one in each `PACE`.
const BURST: u32 = 20;
const PACE: Duration = Duration::from_secs(1);
/// What comes and goes all the time is said so often, with the number of times.
const QUIET: Duration = Duration::from_secs(10);
/// What still holds is said again after this long. API servers forget Events after an hour, and a new leader waits once more.
pub const AGAIN: Duration = Duration::from_secs(25 * 60);
/// Between tries of one that failed, and of all after it; doubled each time, up to so often.
const RETRY: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(1);
const MOST_DOUBLED: u32 = 5;
/// Kubernetes takes a kilobyte.
const LONGEST: usize = 1000;

/// What an Event says at an object. Equal ones are one Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note {
    /// `namespace/Kind/name`
    pub object: Arc<str>,
    /// Decides the reason.
    pub severity: Severity,
    /// For people.
    pub text: String,
}

/// What is to be written now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub note: Note,
    /// How often it was found since it was last written.
    pub times: u32,
    /// The count of the Event that was written before.
    pub before: Option<u32>,
}

/// How it was written.
#[derive(Debug)]
pub enum Done {
    /// It says so many times now; or it was said by somebody a short while ago.
    Said(u32),
    /// There is no such object.
    NoObject,
    /// It may not be written any more.
    NotNow,
    Failed(Failure),
}

#[derive(Debug, Default)]
struct Entry {
    /// It is so now.
    holds: bool,
    /// Found since it was last written.
    times: u32,
    wrote: Option<Instant>,
    count: Option<u32>,
    not_before: Option<Instant>,
    failures: u32,
    failure: Option<Failure>,
}

/// What there is to say of one cluster, and what was said.
#[derive(Debug)]
pub struct Plan {
    entries: BTreeMap<Note, Entry>,
    /// When a bucket that is filled by one in each `PACE` was, or will be, full.
    full: Instant,
    rest_until: Instant,
    failures: u32,
    left_out: usize,
}

// === impl Note ===

impl Note {
    /// What there is to say of an object of an API server.
    pub fn of(problem: &Problem) -> Option<Self> {
        if problem.file.is_some() {
            return None;
        }
        let Problem { object, field, severity, reason, remedy, .. } = problem;
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let mut text = format!("{field}{reason}; {remedy}");
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push('…');
        }
        Some(Self { object: object.clone()?, severity: *severity, text })
    }
}

// === impl Plan ===

impl Plan {
    pub fn new(now: Instant) -> Self {
        Self { entries: BTreeMap::new(), full: now, rest_until: now, failures: 0, left_out: 0 }
    }

    /// These are all that there are now; how many more are left out than before.
    pub fn see(&mut self, notes: impl IntoIterator<Item = Note>, now: Instant) -> u64 {
        let mut seen: Vec<_> = notes.into_iter().collect();
        seen.sort_unstable();
        seen.dedup();
        let is_seen = |note: &Note| seen.binary_search(note).is_ok();
        self.entries.retain(|note, entry| {
            if entry.holds && !is_seen(note) {
                (entry.holds, entry.times, entry.failures, entry.failure) = (false, 0, 0, None);
            }
            entry.holds || entry.wrote.is_some_and(|wrote| now.duration_since(wrote) < AGAIN)
        });
        let (mut left_out, mut of_object) = (0, 0);
        let mut object: Option<Arc<str>> = None;
        for note in seen {
            if object.as_ref() != Some(&note.object) {
                (object, of_object) = (Some(note.object.clone()), 0);
            }
            of_object += 1;
            if of_object > MOST_OF_OBJECT || !self.make_room(&note) {
                left_out += 1;
                continue;
            }
            let entry = self.entries.entry(note).or_default();
            if !std::mem::replace(&mut entry.holds, true) {
                entry.times = 1;
                entry.not_before = entry.wrote.map(|wrote| wrote + QUIET);
            }
        }
        let before = std::mem::replace(&mut self.left_out, left_out);
        left_out.saturating_sub(before) as u64
    }

    /// Whether a note is known or may become so. What is solved makes room for what is not.
    fn make_room(&mut self, note: &Note) -> bool {
        if self.entries.contains_key(note) || self.entries.len() < MOST {
            return true;
        }
        let solved = self.entries.iter().find(|(_, entry)| !entry.holds).map(|(note, _)| note.clone());
        solved.is_some_and(|solved| self.entries.remove(&solved).is_some())
    }

    /// What to write now, if anything. Its end must be told to [`Plan::done`].
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if now < self.rest_until || self.full > now + PACE * (BURST - 1) {
            return None;
        }
        let is_due = |entry: &Entry| {
            let again = || entry.wrote.is_none_or(|wrote| now.duration_since(wrote) >= AGAIN);
            entry.holds && entry.not_before.is_none_or(|at| at <= now) && (entry.times > 0 || again())
        };
        let (note, entry) = self.entries.iter().find(|(_, entry)| is_due(entry))?;
        self.full = self.full.max(now) + PACE;
        Some(Due { note: note.clone(), times: entry.times.max(1), before: entry.count })
    }

    /// What was due was written, or not.
    pub fn done(&mut self, due: &Due, done: Done, now: Instant) {
        let Some(entry) = self.entries.get_mut(&due.note) else { return };
        match done {
            Done::Said(count) => {
                *entry =
                    Entry { holds: entry.holds, wrote: Some(now), count: Some(count), ..Entry::default() };
                self.failures = 0;
            }
            // If it is the source that is behind, it will know soon.
            Done::NoObject => {
                (entry.times, entry.wrote, entry.failures, entry.failure) = (0, Some(now), 0, None);
            }
            Done::NotNow => entry.not_before = Some(now + PACE),
            Done::Failed(failure) => {
                entry.not_before = Some(now + RETRY * 2_u32.pow(entry.failures.min(MOST_DOUBLED)));
                entry.failures += 1;
                self.rest_until = now + REST * 2_u32.pow(self.failures.min(MOST_DOUBLED));
                self.failures = self.failures.saturating_add(1);
                entry.failure = Some(failure);
            }
        }
    }

    /// Why something is not said, for one of the objects.
    pub fn failure(&self) -> Option<(&Note, &Failure)> {
        self.entries.iter().find_map(|(note, entry)| Some((note, entry.failure.as_ref()?)))
    }

    /// How much is not said because there is too much to say.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}
