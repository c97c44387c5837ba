//! `landbridge ca`: the certificates of a mesh without a page of openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::duration;
use super::inspect::InspectArgs;
use super::yaml::to_yaml;
use crate::ca::authority::{Authority, BACKDATE};
use crate::ca::cacerts::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT};
use crate::ca::cert::Cert;
use crate::ca::issue::{self, Role, Template};
use crate::ca::key::{KeyType, PrivateKey};
use crate::ca::self_signed;
use crate::files;

/// The root's private key, beside `root-cert.pem`; keep it offline.
const ROOT_KEY: &str = "root-key.pem";

/// Arguments of `landbridge ca`.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// Make the root that all clusters of a mesh share. Keep its key offline.
    Root(RootArgs),
    /// Make the signing certificate of one cluster, in Istio's `cacerts` layout.
    Intermediate(IntermediateArgs),
    /// Show certificates and compare roots: do these clusters trust each other?
    Inspect(InspectArgs),
}

/// Arguments of `landbridge ca root`.
#[derive(Debug, clap::Args)]
pub struct RootArgs {
    /// Directory for root-cert.pem and root-key.pem.
    #[arg(long, env = "LANDBRIDGE_CA_OUT")]
    out: PathBuf,
    /// Trust domain; part of the root's name, so that people can tell roots apart.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Organization in the certificate's name [default: the trust domain].
    #[arg(long, env = "LANDBRIDGE_CA_ORG")]
    org: Option<String>,
    /// How long it is valid.
    #[arg(long, env = "LANDBRIDGE_CA_ROOT_TTL", default_value = "3650d", value_parser = duration::parse_positive)]
    ttl: Duration,
    /// RSA 4096 instead of ECDSA P-256.
    #[arg(long, env = "LANDBRIDGE_CA_RSA")]
    rsa: bool,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// Arguments of `landbridge ca intermediate`.
#[derive(Debug, clap::Args)]
pub struct IntermediateArgs {
    /// Directory with root-cert.pem and root-key.pem, made by `ca root` or by openssl.
    #[arg(long, env = "LANDBRIDGE_CA_ROOT")]
    root: PathBuf,
    /// Name of the cluster, part of the certificate's name.
    #[arg(long, env = "CLUSTER_ID")]
    cluster: String,
    /// Directory for ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem.
    #[arg(long, env = "LANDBRIDGE_CA_OUT")]
    out: PathBuf,
    /// Also write the Secret `cacerts` for `kubectl apply` to this file.
    #[arg(long, env = "LANDBRIDGE_CA_SECRET_MANIFEST")]
    secret_manifest: Option<PathBuf>,
    /// Namespace of the Secret.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    secret_namespace: String,
    /// How long it is valid; never longer than the root.
    #[arg(long, env = "LANDBRIDGE_CA_INTERMEDIATE_TTL", default_value = "730d", value_parser = duration::parse_positive)]
    ttl: Duration,
    /// RSA 4096 instead of ECDSA P-256.
    #[arg(long, env = "LANDBRIDGE_CA_RSA")]
    rsa: bool,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

// === impl CaArgs ===

impl CaArgs {
    /// Runs the chosen command.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            CaCommand::Root(args) => args.run(),
            CaCommand::Intermediate(args) => args.run(),
            CaCommand::Inspect(args) => args.run(),
        }
    }
}

// === impl RootArgs ===

impl RootArgs {
    fn run(self) -> anyhow::Result<()> {
        let Self { out, trust_domain, org, ttl, rsa, force } = self;
        let key = PrivateKey::generate(key_type(rsa))?;
        let organization = org.as_deref().unwrap_or(&trust_domain);
        check_name("organization", organization)?;
        check_name("trust domain", &trust_domain)?;
        let cert = self_signed::root(&key, organization, &format!("{trust_domain} root"), signed(ttl)?)?;
        let files = [(ROOT_CERT, Zeroizing::new(cert.to_pem())), (ROOT_KEY, key.to_pem()?)];
        write_all(&out, &files, None, force)?;
        report(&out, &files, &cert);
        eprintln!(
            "keep {ROOT_KEY} offline; next: landbridge ca intermediate --root {} --cluster NAME --out DIR",
            out.display()
        );
        Ok(())
    }
}

// === impl IntermediateArgs ===

impl IntermediateArgs {
    fn run(self) -> anyhow::Result<()> {
        let Self { root, cluster, out, secret_manifest, secret_namespace, ttl, rsa, force } = self;
        check_name("cluster", &cluster)?;
        let root = load_root(&root)?;
        let key = PrivateKey::generate(key_type(rsa))?;
        let subject = issue::name(&organization_of(root.signer()), &format!("{cluster} intermediate"));
        let now = OffsetDateTime::now_utc();
        let template = Template {
            subject: &subject,
            public_key_info: key.public_key_info(),
            sans: &[],
            not_before: now - BACKDATE,
            not_after: (now + signed(ttl)?).min(root.not_after()),
            role: Role::Ca { path_len: Some(0) },
        };
        let der = issue::issue(&template, root.as_issuer()).context("sign the intermediate")?;
        let cert = Cert::from_der(der).map_err(anyhow::Error::msg)?;
        let roots = Zeroizing::new(root.roots_pem().to_owned());
        let files = [
            (CA_CERT, Zeroizing::new(cert.to_pem())),
            (CA_KEY, key.to_pem()?),
            (CERT_CHAIN, Zeroizing::new(cert.to_pem() + &roots)),
            (ROOT_CERT, roots),
        ];
        // The same checks that the server will make, before anything is written.
        Authority::new(key, cert.clone(), &[], root.roots().to_vec(), out.display().to_string(), now)?;
        let manifest = secret_manifest.map(|path| (path, secret(&secret_namespace, &files)));
        write_all(&out, &files, manifest.as_ref(), force)?;
        report(&out, &files, &cert);
        if let Some((path, _)) = manifest {
            eprintln!(
                "wrote {} (holds the private key); next: kubectl apply -f it in cluster {cluster}",
                path.display()
            );
        }
        Ok(())
    }
}

fn key_type(rsa: bool) -> KeyType {
    if rsa { KeyType::Rsa4096 } else { KeyType::EcdsaP256 }
}

fn signed(ttl: Duration) -> anyhow::Result<time::Duration> {
    // X.509 can write years up to 9999; certificates of a century are a typing mistake.
    if ttl > Duration::from_secs(100 * 366 * 24 * 3600) {
        bail!("a lifetime of more than 100 years: use --ttl 3650d for ten years");
    }
    Ok(time::Duration::try_from(ttl)?)
}

fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    // 64 characters is X.520's bound for organizations and common names (ours adds a word to some).
    if name.is_empty() || name.chars().count() > 48 || name.chars().any(char::is_control) {
        bail!(
            "the {what} `{}` does not fit into a certificate's name: use 1 to 48 printable characters",
            name.escape_debug()
        );
    }
    Ok(())
}

/// The root as an authority: the key matches, it is a CA, it is valid.
fn load_root(dir: &Path) -> anyhow::Result<Authority> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: make a root with `landbridge ca root --out {}`",
                path.display(),
                dir.display()
            )
        })
    };
    let certs =
        Cert::all_from_pem(&read(ROOT_CERT)?).with_context(|| dir.join(ROOT_CERT).display().to_string())?;
    let key = PrivateKey::from_pem(&Zeroizing::new(read(ROOT_KEY)?))
        .with_context(|| dir.join(ROOT_KEY).display().to_string())?;
    // During a change of roots the bundle holds two: sign with the one that the key belongs to.
    let signer =
        certs.iter().find(|cert| cert.public_key_info == key.public_key_info()).unwrap_or(&certs[0]).clone();
    Ok(Authority::new(key, signer, &[], certs, dir.display().to_string(), OffsetDateTime::now_utc())?)
}

fn organization_of(root: &Cert) -> String {
    let organization = root.subject.split(", ").find_map(|part| part.strip_prefix("O="));
    organization.unwrap_or("landbridge").to_owned()
}

type File = (&'static str, Zeroizing<String>);

fn secret(namespace: &str, files: &[File]) -> Zeroizing<String> {
    let data: serde_json::Map<_, _> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), BASE64.encode(text.as_bytes()).into()))
        .collect();
    Zeroizing::new(to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "cacerts", "namespace": namespace },
        "type": "Opaque",
        "data": data,
    })))
}

/// Writes all files or, when one is there and `force` is not given, none.
fn write_all(
    dir: &Path,
    files: &[File],
    manifest: Option<&(PathBuf, Zeroizing<String>)>,
    force: bool,
) -> anyhow::Result<()> {
    let all: Vec<(PathBuf, &str)> = files
        .iter()
        .map(|(name, text)| (dir.join(name), text.as_str()))
        .chain(manifest.map(|(path, text)| (path.clone(), text.as_str())))
        .collect();
    let taken: Vec<_> =
        all.iter().filter(|(path, _)| path.exists()).map(|(path, _)| path.display().to_string()).collect();
    if !force && !taken.is_empty() {
        bail!(
            "{} exists already: nothing was written. Choose another directory, or --force to replace it (certificates signed by the old key then need the old root)",
            taken.join(", ")
        );
    }
    files::create_private_dir(dir).with_context(|| format!("create {}", dir.display()))?;
    for (path, text) in all {
        let write = if force {
            files::write_private(&path, text.as_bytes()).map(|()| true)
        } else {
            files::create_private(&path, text.as_bytes())
        };
        if !write.with_context(|| format!("write {}", path.display()))? {
            bail!("{} was made by somebody else meanwhile; look at it, or use --force", path.display());
        }
    }
    Ok(())
}

fn report(dir: &Path, files: &[File], cert: &Cert) {
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "wrote {} to {}\n{} ({}), valid until {}, SHA-256 {}",
        names.join(", "),
        dir.display(),
        cert.subject,
        cert.key_type,
        cert.not_after.date(),
        cert.fingerprint()
    );
}
