//! Certificates: what the CA signs in a second, and how soon all have new ones.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Setting;
use crate::{
    bed::{Bed, MIB},
    process::Server,
    report::{Figure, Target},
};

/// A server with an intermediate of a root, and what a client needs to call it.
struct Authority {
    bed: Bed,
    server: Server,
    common: Vec<String>,
}

impl Authority {
    fn start(setting: &Setting) -> Result<Self> {
        let bed = Bed::new(setting, serde_json::json!({ "services": 1, "endpoints": 1 }))?;
        let path = |name: &str| bed.path(name).to_string_lossy().into_owned();
        bed.landbridge(&["ca", "root", "--out", &path("root")])?;
        for out in ["ca", "next-ca"] {
            let (root, out) = (path("root"), path(out));
            bed.landbridge(&[
                "ca",
                "intermediate",
                "--root",
                &root,
                "--cluster",
                "cluster-0",
                "--out",
                &out,
            ])?;
        }
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

/// `CreateCertificate` from 50 connections, by token and by client certificate, beside the machine's own signing.
pub fn requests(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let authority = Authority::start(setting)?;
    let crypto = authority.bed.tool(&["floor", "crypto"])?;
    let seconds = if setting.long { "30" } else { "10" };
    let identities = ["--identities", "50", "--seconds", seconds];
    let floor = floor_microseconds(&crypto)?;
    let mut figures = Vec::new();
    for (by, flags) in [("client certificate", &["--mutual"][..]), ("token", &[])] {
        let report = authority.run("request", &[&identities[..], flags].concat())?;
        let rate = Figure::new(
            scenario,
            &format!("TLS, by {by}: on both cores, client too"),
            number(&report, "/perSecond")?,
            "/s",
        );
        figures.push(rate.target(Target::AtLeast(8_500.0)));
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
    let starts = authority.run("request", &[&identities[..], &["--new-connection"]].concat())?;
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

/// What a certificate needs at least, as `xds-load floor crypto` calls it.
const BOTH: &str = "ecdsa-p256-verify-and-sign";

/// Verifying a request and signing a certificate, as the machine does it on one core.
fn floor_microseconds(crypto: &Value) -> Result<f64> {
    let rates = crypto.as_array().into_iter().flatten();
    let rate =
        rates.clone().find(|rate| rate["operation"] == BOTH).and_then(|rate| rate["microseconds"].as_f64());
    rate.with_context(|| format!("xds-load has not measured {BOTH:?}: {crypto}"))
}

/// The intermediate is replaced under 10,000 identities.
pub fn rotation(setting: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let identities = setting.proxies(10_000).to_string();
    let authority = Authority::start(setting)?;
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
