//! What a directory says as a whole, and how that differs from what was said before. Pure: observations in,
//! changes out.
//!
//! An object's definition is that of the first file, by path, which defines it. An object that no file defines any
//! more is removed only where its absence was *seen*: not while a file holds a broken version of it, nor while the
//! file that it came from has a part that cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::parse::{Definition, Note, Parsed};
use crate::{
    model::{Change, Kind, Object, ObjectKey},
    registry::{Problem, Severity, convert::Finding},
};

/// The files of a directory and what was sent of them.
#[derive(Debug, Default)]
pub struct Contents {
    files: BTreeMap<PathBuf, File>,
    defined_in: BTreeMap<ObjectKey, BTreeSet<PathBuf>>,
    broken_in: BTreeMap<ObjectKey, BTreeSet<PathBuf>>,
    sent: BTreeMap<ObjectKey, Sent>,
    /// The keys of `sent` by file: of all that is in force, a change of a file concerns what came from it.
    sent_from: HashMap<PathBuf, BTreeSet<ObjectKey>>,
    affected: BTreeSet<ObjectKey>,
    /// How many of `sent` are of each kind.
    kinds: BTreeMap<Kind, usize>,
    /// How many documents of other kinds there are.
    not_read: BTreeMap<String, usize>,
    /// Files with something to say about them.
    noted: BTreeSet<PathBuf>,
    /// Objects that several files define.
    repeated: BTreeSet<ObjectKey>,
}

#[derive(Debug, Default)]
struct File {
    parsed: Parsed,
    /// What it no longer says may still be there: it is being written, or cannot be read.
    doubtful: bool,
}

impl File {
    fn may_hold_more(&self) -> bool {
        self.doubtful || self.parsed.opaque
    }
}

#[derive(Debug)]
struct Sent {
    object: Object,
    file: PathBuf,
}

impl Contents {
    /// A file says this now. While `doubtful`, what it does not say is not believed to be gone.
    pub fn set(&mut self, path: &Path, parsed: Parsed, doubtful: bool) {
        let mut before = self.files.remove(path).unwrap_or_default();
        // Most of a file is as it was.
        for (key, definition) in &parsed.objects {
            if let Some(known) = before.parsed.objects.remove(key) {
                if known.object != definition.object {
                    self.affected.insert(key.clone());
                }
                continue;
            }
            let files = self.defined_in.entry(key.clone()).or_default();
            if files.insert(path.to_owned()) && files.len() == 2 {
                self.repeated.insert(key.clone());
            }
            self.affected.insert(key.clone());
        }
        self.unlink(path, &before);
        for (kind, n) in &parsed.not_read {
            *self.not_read.entry(kind.clone()).or_default() += n;
        }
        if !parsed.notes.is_empty() {
            self.noted.insert(path.to_owned());
        }
        for key in &parsed.broken {
            self.broken_in.entry(key.clone()).or_default().insert(path.to_owned());
        }
        self.affected.extend(parsed.broken.iter().cloned());
        self.files.insert(path.to_owned(), File { parsed, doubtful });
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &Path) {
        if let Some(before) = self.files.remove(path) {
            self.unlink(path, &before);
        }
    }

    /// What a file said before is not in it any more.
    fn unlink(&mut self, path: &Path, before: &File) {
        self.noted.remove(path);
        for (kind, n) in &before.parsed.not_read {
            lower(&mut self.not_read, kind, *n);
        }
        for (index, keys) in [
            (&mut self.defined_in, &mut before.parsed.objects.keys() as &mut dyn Iterator<Item = &ObjectKey>),
            (&mut self.broken_in, &mut before.parsed.broken.iter()),
        ] {
            for key in keys {
                if let Some(paths) = index.get_mut(key) {
                    paths.remove(path);
                    if paths.is_empty() {
                        index.remove(key);
                    }
                }
                self.affected.insert(key.clone());
            }
        }
        for key in before.parsed.objects.keys() {
            if self.defined_in.get(key).is_none_or(|files| files.len() < 2) {
                self.repeated.remove(key);
            }
        }
        if before.may_hold_more() {
            self.affected.extend(self.sent_from.get(path).into_iter().flatten().cloned());
        }
    }

    /// What the last observations changed, ordered by key; nothing for objects that are equal.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.affected) {
            match self.definition(&key) {
                Some((file, definition)) => {
                    let sent = Sent { object: definition.object.clone(), file: file.to_owned() };
                    let before = self.sent.insert(key.clone(), sent);
                    self.note_file(&key, before.as_ref());
                    if before.is_none() {
                        *self.kinds.entry(key.kind).or_default() += 1;
                    }
                    if before.is_none_or(|b| b.object != self.sent[&key].object) {
                        changes.push(Change::Upsert(key.clone(), self.sent[&key].object.clone()));
                    }
                }
                None if self.must_keep(&key) => {}
                None => {
                    if let Some(before) = self.sent.remove(&key) {
                        self.note_file(&key, Some(&before));
                        lower(&mut self.kinds, &key.kind, 1);
                        changes.push(Change::Remove(key));
                    }
                }
            }
        }
        changes
    }

    /// Keeps `sent_from` after an object's entry in `sent` was `before`.
    fn note_file(&mut self, key: &ObjectKey, before: Option<&Sent>) {
        let (old, new) = (before.map(|b| &b.file), self.sent.get(key).map(|s| &s.file));
        if old == new {
            return;
        }
        if let Some(keys) = old.and_then(|file| self.sent_from.get_mut(file)) {
            keys.remove(key);
        }
        if let Some(file) = old.filter(|file| self.sent_from.get(*file).is_some_and(BTreeSet::is_empty)) {
            self.sent_from.remove(file);
        }
        if let Some(file) = new {
            self.sent_from.entry(file.clone()).or_default().insert(key.clone());
        }
    }

    fn definition(&self, key: &ObjectKey) -> Option<(&Path, &Definition)> {
        let path = self.defined_in.get(key)?.first()?;
        Some((path, self.files.get(path)?.parsed.objects.get(key)?))
    }

    fn must_keep(&self, key: &ObjectKey) -> bool {
        let source = self.sent.get(key).and_then(|sent| self.files.get(&sent.file));
        self.broken_in.contains_key(key) || source.is_some_and(File::may_hold_more)
    }

    /// What the file said before.
    pub fn parsed(&self, path: &Path) -> Option<&Parsed> {
        self.files.get(path).map(|file| &file.parsed)
    }

    /// Whether `parsed` lacks an object that the file gave us.
    pub fn would_lose(&self, path: &Path, parsed: &Parsed) -> bool {
        let Some(file) = self.files.get(path) else { return false };
        let lost = |key: &ObjectKey| !parsed.objects.contains_key(key) && !parsed.broken.contains(key);
        file.parsed.objects.keys().any(lost)
            || (file.may_hold_more() && self.sent_from.get(path).into_iter().flatten().any(lost))
    }

    /// Whether anything was sent.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Everything that is in force.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.sent.iter().map(|(key, sent)| (key, &sent.object))
    }

    /// Objects in force by kind, and documents of other kinds.
    pub fn counts(&self) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
        let objects = self.kinds.iter().map(|(kind, n)| (format!("{kind:?}"), *n)).collect();
        (objects, self.not_read.clone())
    }

    /// What is wrong, by file and line.
    pub fn problems(&self, cluster: &Arc<str>, root: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (path, file) in self.noted.iter().filter_map(|path| self.files.get_key_value(path)) {
            problems.extend(file.parsed.notes.iter().map(|note| problem(cluster, root, path, note)));
        }
        for (key, paths) in self.repeated.iter().filter_map(|key| self.defined_in.get_key_value(key)) {
            problems
                .extend(self.conflicts(key, paths).map(|(path, note)| problem(cluster, root, path, &note)));
        }
        problems.sort();
        problems
    }

    /// Definitions of `key` that lose against the first file's, unless they say the same.
    fn conflicts<'a>(
        &'a self,
        key: &'a ObjectKey,
        paths: &'a BTreeSet<PathBuf>,
    ) -> impl Iterator<Item = (&'a Path, Note)> {
        let first = self.definition(key);
        paths.iter().skip(1).filter_map(move |path| {
            let (first_path, first) = first?;
            let definition = self.files.get(path)?.parsed.objects.get(key)?;
            if definition.object == first.object {
                return None;
            }
            let place = format!("{}:{}", first_path.display(), first.line);
            let reason =
                format!("is defined differently in {place}, which wins by path order; this one is ignored");
            let finding = Finding::new("", reason, "remove one of the two");
            let key = Some(key.clone());
            Some((path.as_path(), Note { line: definition.line, key, severity: Severity::Error, finding }))
        })
    }
}

/// Counts down; what is at nothing is left out.
fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K, by: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn problem(cluster: &Arc<str>, root: &Path, path: &Path, note: &Note) -> Problem {
    let object = note.key.as_ref().map(|key| {
        let name = key.to_string();
        name.strip_prefix(&format!("{}/", key.cluster)).unwrap_or(&name).into()
    });
    Problem {
        cluster: cluster.clone(),
        file: Some(root.join(path).display().to_string().into()),
        line: Some(note.line),
        object,
        field: note.finding.field.clone(),
        severity: note.severity,
        reason: note.finding.reason.clone(),
        remedy: note.finding.remedy.clone(),
    }
}
