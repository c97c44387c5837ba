//! Instruction counts of the hot paths: the same on an idle and on a busy machine, so that CI can hold them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// A count may differ from its baseline by this share. Hash maps are seeded at random, which moves counts by less than one
/// percent.
const TOLERANCE: f64 = 0.05;

type Counts = BTreeMap<String, u64>;

/// Counts, and holds the counts against the baseline; `bless` makes them the baseline.
pub fn run(baseline: &Path, bless: bool) -> Result<()> {
    let counts = count()?;
    if bless {
        let text = serde_json::to_string_pretty(&counts)? + "\n";
        fs::write(baseline, text).with_context(|| format!("write {}", baseline.display()))?;
        println!("{} holds these counts now; commit it with the reason for the change", baseline.display());
        return Ok(());
    }
    let text = fs::read_to_string(baseline).with_context(|| format!("read {}", baseline.display()))?;
    let expected: Counts =
        serde_json::from_str(&text).with_context(|| format!("in {}", baseline.display()))?;
    let worse = compare(&expected, &counts);
    ensure!(
        worse.is_empty(),
        "hot paths differ from {}:\n{}\nfind out which change did it (callgrind_annotate shows where the instructions go); \
         if it is meant, or better, run `make instructions BLESS=1` and commit the new baseline with the reason",
        baseline.display(),
        worse.join("\n")
    );
    Ok(())
}

/// What is out of bounds, as lines for people. All counts are printed: one that fell far is a baseline to move.
fn compare(expected: &Counts, counts: &Counts) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, count) in counts {
        let Some(before) = expected.get(path) else {
            lines.push(format!("  {path}: {count} instructions, and no baseline"));
            continue;
        };
        let change = *count as f64 / *before as f64 - 1.0;
        println!("  {path:<32} {count:>12} instructions, {:+.1} %", change * 100.0);
        if change > TOLERANCE {
            lines.push(format!(
                "  {path}: {count} instructions instead of {before}, {:+.1} %",
                change * 100.0
            ));
        }
    }
    let missing = expected.keys().filter(|path| !counts.contains_key(*path));
    lines.extend(missing.map(|path| format!("  {path}: in the baseline, and not measured any more")));
    lines
}

/// Instructions of one round of each path.
pub fn count() -> Result<Counts> {
    let program = build()?;
    let listed = Command::new(&program).output().context("list the hot paths")?;
    let names = String::from_utf8(listed.stdout)?;
    names.lines().map(|name| Ok((name.to_owned(), callgrind(&program, name)?))).collect()
}

fn callgrind(program: &Path, path: &str) -> Result<u64> {
    let out = program.with_file_name(format!("callgrind.{path}.out"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*::measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(path)
        .output()
        .context("run valgrind; install it with `apt-get install valgrind`")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed on {path}:\n{stderr}");
    let rounds: u64 =
        String::from_utf8_lossy(&output.stdout).trim().parse().context("the number of rounds")?;
    let total: u64 = stderr
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("valgrind did not say how much it collected for {path}:\n{stderr}"))?;
    ensure!(total > 0, "valgrind counted nothing for {path}: is `measured` inlined?");
    Ok(total / rounds)
}

/// Builds the bench target, and says where it is. The Makefile builds with the same words: others would be other features, and
/// everything would be compiled once more.
fn build() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "-p", "landbridge", "-p", "xds-load", "-p", "bench-suite"])
        .args(["--bins", "--bench", "instructions", "--message-format=json"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("cargo could not build the bench `instructions`, see above");
    }
    let text = String::from_utf8(output.stdout)?;
    let built = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = built.filter(|message| message["target"]["name"] == "instructions");
    let path = programs.find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    path.context("cargo did not say where the bench `instructions` is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_instructions_and_missing_baselines_are_named() {
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Counts>();
        let expected = counts(&[("a", 1_000), ("b", 1_000), ("gone", 5)]);
        assert!(compare(&expected, &expected).is_empty());
        let lines = compare(&expected, &counts(&[("a", 1_049), ("b", 1_051), ("new", 1)]));
        let named: Vec<_> =
            lines.iter().map(|line| line.trim().split(':').next().unwrap_or_default()).collect();
        assert_eq!(named, ["b", "new", "gone"]);
        assert!(compare(&expected, &counts(&[("a", 100), ("b", 100), ("gone", 1)])).is_empty());
    }
}
