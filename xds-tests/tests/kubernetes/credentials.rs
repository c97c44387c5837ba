//! Credentials that do not fit, clocks that differ by ten minutes, and programs that give credentials, on real API servers:
//! said at the Secret that they came from, and nobody else is hurt.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use kube::config::Kubeconfig;
use landbridge::app::clusters::Place;
use landbridge::registry::kubernetes::Allowed;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use xds_tests::kubernetes::cluster::PORT;
use xds_tests::kubernetes::{Cluster, Login, cluster_test, secret_file};

use super::link::{Link, Mode};
use super::world::{PATIENCE, World, login, secret, slice, two_clusters};

const HOUR: Duration = Duration::from_secs(3600);
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn problem(west: Option<&Value>) -> &str {
    west.and_then(|west| west["problem"].as_str()).unwrap_or_default()
}

/// Whoever made these has another idea of the time, or of what they are for. What worked before goes on.
#[test]
fn credentials_of_another_time_or_audience_are_named_at_the_secret() {
    let name = "credentials::credentials_of_another_time_or_audience_are_named_at_the_secret";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let mut world = World::start(&east, &folder).await?;
        let join = async |kubeconfig: &str| east.apply(&secret("remote", &[("west", kubeconfig)])?).await;
        let good = login(&west, "first", HOUR).await?;
        join(&good).await?;
        world.settle("10.9.0.2", true).await?;
        world.until_synced().await?;

        let now = SystemTime::now();
        let token = async |issued: SystemTime, expires: SystemTime| {
            let token = west.sign_token_of("istio-system", "first", issued, expires).await?;
            west.kubeconfig(Login::Token(token))
        };
        let certificate = |from: SystemTime, until: SystemTime| {
            let pair = west.authority().client_of("reader", &["system:masters"], from, until)?;
            west.kubeconfig(Login::Certificate(pair))
        };
        let other_audience = west.request_token("istio-system", "first", &["vault"], HOUR).await?;
        let wrong = [
            ("another audience", west.kubeconfig(Login::Token(other_audience))?),
            ("issued in ten minutes", token(now + TEN_MINUTES, now + HOUR).await?),
            ("expired ten minutes ago", token(now - HOUR, now - TEN_MINUTES).await?),
            ("good in ten minutes", certificate(now + TEN_MINUTES, now + HOUR)?),
            ("good until ten minutes ago", certificate(now - HOUR, now - TEN_MINUTES)?),
        ];
        for (what, kubeconfig) in &wrong {
            join(kubeconfig).await?;
            let said = |text: &str| text.contains("the credentials before it stay") && text.contains("401");
            world.until(what, |west| said(problem(west))).await?;
            let west_now = world.cluster("west").await?.context("west is there")?;
            ensure!(west_now["syncStatus"] == "synced", "{what}: {west_now:#}");
            // Each is another text, so that what is said is of this one.
            join(&good).await?;
            world.until_synced().await?;
        }
        world.proxy.expect_nothing().await;
        // Clocks that differ by less than what API servers allow for hurt nobody, nor does a certificate.
        let a_little_early = token(now + Duration::from_secs(30), now + HOUR).await?;
        for kubeconfig in [a_little_early, certificate(now - HOUR, now + HOUR)?] {
            join(&kubeconfig).await?;
            world.until_synced().await?;
        }
        world.proxy.expect_nothing().await;
        west.apply(&slice(9)).await?;
        world.next("10.9.0.9").await
    });
}

/// Its clock is ten minutes ahead of ours, or whoever made its certificate was: new connections are refused by us, with the
/// reason, and nothing is withdrawn. The right certificate is enough.
#[test]
fn an_api_server_with_the_certificate_of_another_time_is_stale_and_keeps_everything() {
    let name =
        "credentials::an_api_server_with_the_certificate_of_another_time_is_stale_and_keeps_everything";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let mut world = World::start(&east, &folder).await?;
        let link = Link::to((west.addresses()[0], PORT).into()).await?;
        let mut kubeconfig = Kubeconfig::from_yaml(&login(&west, "first", HOUR).await?)?;
        let named = kubeconfig.clusters.first_mut().and_then(|named| named.cluster.as_mut());
        let named = named.context("a cluster")?;
        named.tls_server_name = Some(west.addresses()[0].to_string());
        named.server = Some(format!("https://{}", link.address));
        east.apply(&secret("remote", &[("west", &serde_json::to_string(&kubeconfig)?)])?).await?;
        world.settle("10.9.0.2", true).await?;
        world.until_synced().await?;

        let now = SystemTime::now();
        for (what, from, until, word) in [
            ("ten minutes ahead", now + TEN_MINUTES, now + HOUR, "not valid yet"),
            ("ten minutes ago", now - HOUR, now - TEN_MINUTES, "expired"),
        ] {
            west.show_certificate(from, until)?;
            // The API server takes it over when it sees it; until then connections are as before.
            let deadline = Instant::now() + PATIENCE;
            let named = |west: Option<&Value>| west.is_some_and(|west| west.to_string().contains(word));
            while !named(world.cluster("west").await?.as_ref()) {
                ensure!(Instant::now() < deadline, "{what}: {:#?}", world.cluster("west").await?);
                link.set(Mode::Cut);
                let away = |west: Option<&Value>| west.is_some_and(|west| west["syncStatus"] == "stale");
                world.until("away", away).await?;
                link.set(Mode::Up);
                let back = |west: Option<&Value>| {
                    named(west) || west.is_some_and(|west| west["syncStatus"] == "synced")
                };
                world.until("back, or refused", back).await?;
            }
            ensure!(world.cluster("west").await?.is_some_and(|west| west["syncStatus"] == "stale"), "{what}");
            west.show_certificate(now - HOUR, now + HOUR)?;
            world.until_synced().await?;
        }
        world.proxy.expect_nothing().await;
        west.apply(&slice(9)).await?;
        world.next("10.9.0.9").await
    });
}

/// A program that prints a token until its end, and notes that it ran.
fn program(folder: &Path) -> Result<std::path::PathBuf> {
    match std::fs::remove_file(folder.join("runs")) {
        // Of a run of the test before this one.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let path = folder.join("credentials.sh");
    let text = format!("#!/bin/sh\ncd '{}' && echo ran >> runs && cat credential.json\n", folder.display());
    secret_file(&path, &text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    Ok(path)
}

async fn give(folder: &Path, west: &Cluster, account: &str, lifetime: Duration) -> Result<()> {
    let expires = SystemTime::now() + lifetime;
    let token = west.sign_token("istio-system", account, SystemTime::now() + HOUR).await?;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": { "token": token, "expirationTimestamp": OffsetDateTime::from(expires).format(&Rfc3339)? },
    });
    secret_file(&folder.join("credential.json"), &credential.to_string())
}

#[test]
fn a_program_gives_credentials_where_that_is_allowed() {
    let name = "credentials::a_program_gives_credentials_where_that_is_allowed";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let path = folder.join("east.kubeconfig");
        secret_file(&path, &east.kubeconfig(east.admin())?)?;
        let mut kubeconfig: Value =
            serde_json::to_value(Kubeconfig::from_yaml(&west.kubeconfig(west.admin())?)?)?;
        kubeconfig["users"][0]["user"] = json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
            "command": program(&folder)?.display().to_string(),
        }});
        // What a token is good for beyond the minute in which it is renewed.
        give(&folder, &west, "first", Duration::from_secs(62)).await?;
        east.apply(&secret("remote", &[("west", &kubeconfig.to_string())])?).await?;

        let runs = || std::fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count();
        let refusing = World::serve(Place::Kubeconfig(path.clone()), &folder.join("refusing")).await?;
        let refused = |west: Option<&Value>| {
            west.is_some_and(|west| west["syncStatus"] == "refused")
                && problem(west).contains("exec is not allowed in a remote secret")
                && problem(west).contains("--insecure-remote-kubeconfig-options exec")
        };
        refusing.until("refused", refused).await?;
        ensure!(runs() == 0, "it ran");

        let allowed = |config: &mut landbridge::app::Config| {
            config.remote_kubeconfigs = Allowed { exec: true };
        };
        let place = Place::Kubeconfig(path);
        let mut world = World::serve_with(place, &folder.join("allowing"), allowed).await?;
        world.settle("10.9.0.2", true).await?;
        world.until_synced().await?;
        let first = runs();
        ensure!(first > 0, "it did not run");
        // It is asked again before what it gave expires, without anybody's doing and without a word to proxies.
        let deadline = Instant::now() + PATIENCE;
        while runs() == first {
            ensure!(Instant::now() < deadline, "it is not asked again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.proxy.expect_nothing().await;
        west.apply(&slice(9)).await?;
        world.next("10.9.0.9").await
    });
}
