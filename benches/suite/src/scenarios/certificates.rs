//! Certificates: what the CA signs in a second, and how soon all have new ones.

use std::fs;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::Value;

use super::Setting;
use crate::{
    bed::{Bed, MIB},
    process::Server,
    report::{Figure, Target},
};

/// A server with an authority, and what a client needs to call it.
struct Authority {
    bed: Bed,
    server: Server,
    common: Vec<String>,
}

impl Authority {
    /// `make` fills the directory `ca` of the bed.
    fn start(setting: &Setting, make: fn(&Bed) -> Result<()>) -> Result<Self> {
        let bed = Bed::new(setting, serde_json::json!({ "services": 1, "endpoints": 1 }))?;
        make(&bed)?;
        let path = |name: &str| bed.path(name).to_string_lossy().into_owned();
        let server = bed.server(&["--ca-dir", &path("ca")])?;
        let common = [
            "--server".into(),
            server.tls.to_string(),
            "--ca".into(),
            path("ca/root-cert.pem"),
            "--token-key".into(),
            path("state/dev-issuer-key.pem"),
            "--cluster".into(),
            "cluster-0".into(),
            "--pid".into(),
            server.process.pid().to_string(),
        ];
        Ok(Self { bed, server, common: common.to_vec() })
    }

    fn run(&self, command: &str, more: &[&str]) -> Result<Value> {
        let mut args = vec!["certificates", command];
        args.extend(self.common.iter().map(String::as_str));
        args.extend(more);
        self.bed.tool(&args)
    }
}

fn number(value: &Value, pointer: &str) -> Result<f64> {
    value.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("xds-load has not said {pointer}"))
}

/// An intermediate of a root in `ca`, and another one in `next-ca`; ECDSA P-256.
fn intermediates(bed: &Bed) -> Result<()> {
    let path = |name: &str| bed.path(name).to_string_lossy().into_owned();
    let root = path("root");
    bed.landbridge(&["ca", "root", "--out", &root])?;
    for out in ["ca", "next-ca"] {
        let out = path(out);
        bed.landbridge(&["ca", "intermediate", "--root", &root, "--cluster", "cluster-0", "--out", &out])?;
    }
    Ok(())
}

/// A root that signs by itself, RSA-2048: what istiod makes where it is given nothing.
fn rsa_root(bed: &Bed) -> Result<()> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key)?.pem();
    fs::create_dir(bed.path("ca"))?;
    fs::write(bed.path("ca/ca-key.pem"), key.serialize_pem())?;
    for name in ["ca-cert.pem", "cert-chain.pem", "root-cert.pem"] {
        fs::write(bed.path("ca").join(name), &root)?;
    }
    Ok(())
}

/// `CreateCertificate` with an ECDSA P-256 intermediate.
pub fn requests(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let authority = Authority::start(setting, intermediates)?;
    let mut figures =
        load(&authority, setting, scenario, "ecdsa-p256-verify-and-sign", Some(Target::AtLeast(8_500.0)))?;
    let starts = authority.run("request", &[&arguments(setting)[..], &["--new-connection"]].concat())?;
    figures.push(
        Figure::new(
            scenario,
            "a new TLS connection each: on both cores",
            number(&starts, "/perSecond")?,
            "/s",
        )
        .target(Target::AtLeast(500.0)),
    );
    Ok(figures)
}

/// The same with an RSA-2048 root. Such signatures are left to all cores but one, so that streams always have another.
pub fn requests_rsa(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let authority = Authority::start(setting, rsa_root)?;
    load(&authority, setting, scenario, "ecdsa-p256-verify-and-rsa-2048-sign", None)
}

/// Requests from 50 connections, by token and by client certificate, beside the machine's own signing: `floor`, as
/// `xds-load floor crypto` calls it.
fn load(
    authority: &Authority,
    setting: &Setting,
    scenario: &str,
    floor: &str,
    target: Option<Target>,
) -> Result<Vec<Figure>> {
    let floor = floor_microseconds(&authority.bed.tool(&["floor", "crypto"])?, floor)?;
    let mut figures = Vec::new();
    for (by, flags) in [("client certificate", &["--mutual"][..]), ("token", &[])] {
        let report = authority.run("request", &[&arguments(setting)[..], flags].concat())?;
        let rate = Figure::new(
            scenario,
            &format!("TLS, by {by}: on both cores, client too"),
            number(&report, "/perSecond")?,
            "/s",
        );
        figures.push(match target {
            Some(target) => rate.target(target),
            None => rate,
        });
        figures.push(Figure::new(
            scenario,
            &format!("by {by}: p99"),
            number(&report, "/latencies/p99Ms")?,
            "ms",
        ));
        let cost = number(&report, "/serverMicroseconds")?;
        figures.push(
            Figure::new(scenario, &format!("by {by}: server CPU, beside verify and sign"), cost, "us")
                .beside(floor),
        );
    }
    Ok(figures)
}

fn arguments(setting: &Setting) -> [&'static str; 4] {
    ["--identities", "50", "--seconds", if setting.long { "30" } else { "10" }]
}

/// Verifying a request and signing a certificate, as the machine does it on one core.
fn floor_microseconds(crypto: &Value, operation: &str) -> Result<f64> {
    let mut rates = crypto.as_array().into_iter().flatten();
    let rate = rates.find(|rate| rate["operation"] == operation);
    rate.and_then(|rate| rate["microseconds"].as_f64())
        .with_context(|| format!("xds-load has not measured {operation:?}: {crypto}"))
}

/// The intermediate is replaced under 10,000 identities.
pub fn rotation(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let identities = setting.proxies(10_000).to_string();
    let authority = Authority::start(setting, intermediates)?;
    let path = |name: &str| authority.bed.path(name).to_string_lossy().into_owned();
    let rotate = format!("cp {}/* {}/", path("next-ca"), path("ca"));
    let report = authority.run("secrets", &["--identities", &identities, "--rotate", &rotate])?;
    let each = report.pointer("/serverMicrosecondsEach/1").and_then(Value::as_f64).context("no CPU time")?;
    let rss = authority.server.process.usage()?.rss;
    Ok(vec![
        Figure::new(
            scenario,
            "all connected with certificates",
            number(&report, "/report/first/seconds")?,
            "s",
        ),
        Figure::new(scenario, "rotated to all delivered", number(&report, "/report/rotated/seconds")?, "s")
            .target(Target::AtMost(1.0)),
        Figure::new(scenario, "server CPU per identity", each, "us"),
        Figure::new(scenario, "RSS", rss as f64 / MIB, "MiB"),
    ])
}
