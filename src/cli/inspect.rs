//! `landbridge ca inspect`: what certificates say, and whether directories share a root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::ca::cacerts;
use crate::ca::cert::{Cert, CertError};
use crate::ca::key::PrivateKey;

/// Arguments of `landbridge ca inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Directories (`cacerts` of several clusters are compared) or PEM files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// The roots that a directory trusts, and what it is called.
struct Bundle {
    name: String,
    roots: Vec<Cert>,
}

// === impl InspectArgs ===

impl InspectArgs {
    /// Prints to stdout; fails when something is unreadable, unusable, or when directories share no root.
    pub fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let is_sound = inspect(&self.paths, OffsetDateTime::now_utc(), &mut out)?;
        if !is_sound {
            bail!("problems were found, see above");
        }
        Ok(())
    }
}

fn inspect(paths: &[PathBuf], now: OffsetDateTime, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut is_sound = true;
    let mut bundles = Vec::new();
    for path in paths {
        if path.is_dir() {
            is_sound &= inspect_dir(path, now, out, &mut bundles)?;
        } else {
            is_sound &= inspect_file(path, now, out)?;
        }
    }
    if bundles.len() > 1 {
        is_sound &= compare(&bundles, out)?;
    }
    Ok(is_sound)
}

fn inspect_dir(
    dir: &Path,
    now: OffsetDateTime,
    out: &mut impl Write,
    bundles: &mut Vec<Bundle>,
) -> anyhow::Result<bool> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str());
        file.is_file() && matches!(extension, Some("pem" | "crt" | "cer" | "key"))
    });
    files.sort();
    if files.is_empty() {
        bail!("{}: no .pem, .crt or .key file in it", dir.display());
    }
    let mut is_sound = true;
    for file in &files {
        is_sound &= inspect_file(file, now, out)?;
    }
    let roots = [dir.join(cacerts::ROOT_CERT), dir.join("ca.crt")].into_iter().find(|path| path.is_file());
    if let Some(Ok(roots)) = roots.and_then(|path| fs::read(path).ok()).map(|text| Cert::all_from_pem(&text))
    {
        bundles.push(Bundle { name: dir.display().to_string(), roots });
    }
    // A directory with only a root (made by `ca root`) is no signing authority and need not be one.
    if [cacerts::CA_CERT, cacerts::CA_KEY, "tls.crt", "tls.key"].iter().any(|name| dir.join(name).exists()) {
        match cacerts::load(dir, now) {
            Ok(authority) => writeln!(
                out,
                "{}: usable: `{}` signs, key matches, {} to present, leads to the root",
                dir.display(),
                authority.signer().subject,
                match authority.intermediates().len() {
                    0 => "nothing".to_owned(),
                    1 => "1 intermediate".to_owned(),
                    n => format!("{n} intermediates"),
                }
            )?,
            Err(error) => {
                is_sound = false;
                writeln!(out, "{}: NOT USABLE: {error}", dir.display())?;
            }
        }
    }
    writeln!(out)?;
    Ok(is_sound)
}

fn inspect_file(path: &Path, now: OffsetDateTime, out: &mut impl Write) -> anyhow::Result<bool> {
    let text = Zeroizing::new(fs::read(path).with_context(|| format!("read {}", path.display()))?);
    let mut is_sound = true;
    let certs = match Cert::all_from_pem(&text) {
        Ok(certs) => certs,
        Err(CertError::Missing) => Vec::new(),
        Err(error) => {
            writeln!(out, "{}: {error}", path.display())?;
            return Ok(false);
        }
    };
    let key = PrivateKey::from_pem(&text);
    if let Ok(key) = &key {
        // The Debug form names the kind and nothing else.
        writeln!(out, "{}: {key:?}", path.display())?;
    } else if certs.is_empty() {
        writeln!(out, "{}: neither certificate nor usable key: {}", path.display(), key.unwrap_err())?;
        return Ok(false);
    }
    for (at, cert) in certs.iter().enumerate() {
        let number = if certs.len() > 1 { format!(" [{}]", at + 1) } else { String::new() };
        is_sound &= print_cert(&format!("{}{number}", path.display()), cert, now, out)?;
    }
    Ok(is_sound)
}

fn print_cert(title: &str, cert: &Cert, now: OffsetDateTime, out: &mut impl Write) -> anyhow::Result<bool> {
    let (is_valid, validity) = match cert.days_left(now) {
        _ if now < cert.not_before => (false, "NOT YET VALID: clocks apart?".to_owned()),
        days if now > cert.not_after => (false, format!("EXPIRED {} days ago", -days)),
        days if days < 30 => (true, format!("{days} days left, replace it soon")),
        days => (true, format!("{days} days left")),
    };
    let kind = match (cert.is_ca, cert.is_self_issued()) {
        (true, true) => "root",
        (true, false) => "intermediate",
        (false, _) => "leaf",
    };
    writeln!(out, "{title}: {kind}, {}", cert.key_type)?;
    writeln!(out, "  subject      {}", or_empty(&cert.subject))?;
    writeln!(out, "  issuer       {}", or_empty(&cert.issuer))?;
    writeln!(out, "  fingerprint  {}", cert.fingerprint())?;
    writeln!(out, "  validity     {} to {} ({validity})", cert.not_before, cert.not_after)?;
    if !cert.sans.is_empty() {
        writeln!(out, "  names        {}", cert.sans.join(", "))?;
    }
    Ok(is_valid)
}

fn or_empty(name: &str) -> &str {
    if name.is_empty() { "(empty)" } else { name }
}

/// Says whether every pair of bundles shares a root; prints the roots side by side where one does not.
fn compare(bundles: &[Bundle], out: &mut impl Write) -> anyhow::Result<bool> {
    let mut holders: BTreeMap<String, (String, Vec<usize>)> = BTreeMap::new();
    for (at, bundle) in bundles.iter().enumerate() {
        for root in &bundle.roots {
            let holder =
                holders.entry(root.fingerprint()).or_insert_with(|| (root.subject.clone(), Vec::new()));
            if !holder.1.contains(&at) {
                holder.1.push(at);
            }
        }
    }
    if let Some((fingerprint, (subject, _))) = holders.iter().find(|(_, (_, at))| at.len() == bundles.len()) {
        writeln!(out, "shared root: all {} directories trust `{subject}`, {fingerprint}", bundles.len())?;
        return Ok(true);
    }
    writeln!(
        out,
        "NO SHARED ROOT: workloads of these clusters will refuse each other (503 between clusters)"
    )?;
    let width = bundles.iter().map(|bundle| bundle.name.len()).max().unwrap_or(0);
    for bundle in bundles {
        for root in &bundle.roots {
            writeln!(out, "  {:width$}  {}  `{}`", bundle.name, root.fingerprint(), root.subject)?;
        }
    }
    writeln!(
        out,
        "sign both clusters' intermediates with one root (`landbridge ca intermediate --root …`), or put both roots into each root-cert.pem"
    )?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::key::KeyType;
    use crate::ca::self_signed;

    fn mk_dir(name: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let cert = self_signed::root(&key, "mesh", name, time::Duration::days(10)).unwrap();
        fs::write(dir.path().join("root-cert.pem"), cert.to_pem()).unwrap();
        fs::write(dir.path().join("root-key.pem"), key.to_pem().unwrap().as_bytes()).unwrap();
        dir
    }

    fn run(dirs: &[&Path]) -> (bool, String) {
        let paths: Vec<_> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        let mut out = Vec::new();
        let sound = inspect(&paths, OffsetDateTime::now_utc(), &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    }

    #[test]
    fn different_roots_are_shown_side_by_side_and_keys_never() {
        let (a, b) = (mk_dir("a"), mk_dir("b"));
        let (sound, text) = run(&[a.path(), b.path()]);
        assert!(!sound);
        assert!(text.contains("NO SHARED ROOT") && text.contains("9 days left, replace it soon"), "{text}");
        assert!(!text.contains("BEGIN"), "{text}");
        let (sound, text) = run(&[a.path(), a.path()]);
        assert!(sound && text.contains("shared root: all 2"), "{text}");
    }

    #[test]
    fn an_overlap_during_a_change_of_roots_counts_as_shared() {
        let (a, b) = (mk_dir("a"), mk_dir("b"));
        let path = b.path().join("root-cert.pem");
        let both =
            fs::read_to_string(&path).unwrap() + &fs::read_to_string(a.path().join("root-cert.pem")).unwrap();
        fs::write(&path, both).unwrap();
        assert!(run(&[a.path(), b.path()]).0);
    }

    #[test]
    fn half_a_directory_is_named_as_not_usable() {
        let dir = mk_dir("a");
        fs::rename(dir.path().join("root-key.pem"), dir.path().join("ca-key.pem")).unwrap();
        let (sound, text) = run(&[dir.path()]);
        assert!(
            !sound && text.contains("NOT USABLE") && text.contains("ca-cert.pem, cert-chain.pem missing"),
            "{text}"
        );
    }
}
