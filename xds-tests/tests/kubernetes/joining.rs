//! Clusters that remote secrets register, while the control plane runs and a proxy is connected.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use ::landbridge::app::clusters::Place;
use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use kube::api::DeleteParams;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use xds_tests::kubernetes::{Cluster, cluster_test, secret_file};
use xds_tests::landbridge;

use super::world::{NAMESPACES, PATIENCE, SERVICE, World, login, secret, slice, two_clusters};

/// As `/debug/clusterz` names the credentials in use.
fn fingerprint(kubeconfig: &str) -> String {
    let hash = digest(&SHA256, kubeconfig.as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Fifty rotations at random, each beside a change, of which each causes exactly one response, and a rotation none.
async fn rotate_in_a_churn(east: &Cluster, west: &Cluster, world: &mut World, folder: &Path) -> Result<()> {
    // A twin reads west by a flag, and so sees no rotation; whatever is sent has to be the same.
    let mut twin = World::twin(east, west, folder).await?;
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
    let mut names = vec!["remote"];
    for i in 10..60 {
        let at = || format!("rotation {} of seed {seed}", i - 9);
        let account = ["first", "second"][random.random_range(0..2)];
        let kubeconfig = login(west, account, Duration::from_secs(3600 + u64::from(i))).await?;
        let gone = random.random_ratio(1, 5).then(|| names.remove(random.random_range(0..names.len())));
        if names.is_empty() || random.random_ratio(1, 5) {
            names.extend(["remote", "overlapping"].iter().find(|name| !names.contains(name)));
        }
        let rotate = async {
            // Removed, overlapped or not, and perhaps made again.
            if let Some(gone) = gone {
                secrets.delete(gone, &DeleteParams::default()).await?;
            }
            for name in &names {
                east.apply(&secret(name, &[("west", &kubeconfig)])?).await?;
            }
            anyhow::Ok(())
        };
        let changed = [east, west][random.random_range(0..2)];
        let later = Duration::from_millis(random.random_range(0..30));
        let change = async {
            sleep(later).await;
            changed.apply(&slice(i)).await
        };
        tokio::try_join!(rotate, change).with_context(at)?;
        for world in [&mut *world, &mut twin] {
            world.next(&format!("10.9.0.{i}")).await.with_context(at)?;
        }
        ensure!(world.assignment() == twin.assignment(), "{}: the twin was sent something else", at());
        if random.random_ratio(1, 2) {
            let new = fingerprint(&kubeconfig);
            let used = |west: Option<&Value>| west.is_some_and(|west| west["credentials"] == new);
            world.until("the new credentials are in use", used).await.with_context(at)?;
        }
    }
    world.proxy.expect_nothing().await;
    twin.proxy.expect_nothing().await;
    let (sent, of_twin) = (world.everything().await?, twin.everything().await?);
    ensure!(sent == of_twin, "after all rotations, seed {seed}:\n{sent:#?}\nand without any:\n{of_twin:#?}");
    Ok(())
}

#[test]
fn a_secret_joins_rotates_under_churn_survives_garbage_and_leaves() {
    let name = "joining::a_secret_joins_rotates_under_churn_survives_garbage_and_leaves";
    cluster_test(name, async |binaries, folder| {
        let [east, mut west] = two_clusters(binaries, &folder).await?;
        let mut world = World::start(&east, &folder).await?;
        ensure!(world.has("10.9.0.1") && !world.has("10.9.0.2"), "west is there already");

        let hour = Duration::from_secs(3600);
        let first = login(&west, "first", hour).await?;
        // The own cluster's key means nothing.
        east.apply(&secret("remote", &[("west", &first), ("east", &first)])?).await?;
        world.settle("10.9.0.2", true).await?;
        world.until_synced().await?;
        let west_now = world.cluster("west").await?.context("west is there")?;
        ensure!(west_now["secretName"] == "istio-system/remote", "{west_now}");
        ensure!(west_now["server"].as_str().is_some_and(|s| s.contains(":6443")), "{west_now}");

        rotate_in_a_churn(&east, &west, &mut world, &folder).await?;

        // The last credentials are in use, and those before them are not needed: their account is gone, and every connection.
        let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
        let last = login(&west, "second", hour * 2).await?;
        east.apply(&secret("remote", &[("west", &last)])?).await?;
        if let Err(error) = secrets.delete("overlapping", &DeleteParams::default()).await {
            ensure!(error.to_string().contains("not found"), "{error}");
        }
        world
            .until("one secret", |west| {
                west.is_some_and(|w| w["secretName"] == "istio-system/remote" && w["problem"].is_null())
            })
            .await?;
        // Proof and exchange follow the secret; garbage after it is refused.
        let accounts = west.objects("v1", "ServiceAccount", Some("istio-system")).await?;
        for (what, garbage) in [
            ("no kubeconfig", "hush: [".to_owned()),
            (
                "not allowed",
                last.replace("certificate-authority-data:", "insecure-skip-tls-verify: true\n    x:"),
            ),
            ("401", last.replace("token: ", "token: x")),
            ("opens another cluster", east.kubeconfig(east.admin())?),
        ] {
            east.apply(&secret("remote", &[("west", &garbage)])?).await?;
            world
                .until(what, |west| {
                    let problem = west.and_then(|w| w["problem"].as_str()).unwrap_or_default();
                    problem.contains("the credentials before it stay")
                        && problem.contains(what)
                        && !problem.contains("hush")
                })
                .await?;
            ensure!(world.cluster("west").await?.is_some_and(|w| w["syncStatus"] == "synced"), "{what}");
        }
        world.proxy.expect_nothing().await;
        east.apply(&secret("remote", &[("west", &last)])?).await?;
        world.until_synced().await?;
        accounts.delete("first", &DeleteParams::default()).await?;
        west.kill().await?;
        world.until("stale", |west| west.is_some_and(|w| w["syncStatus"] == "stale")).await?;
        west.revive().await?;
        world.until_synced().await?;
        world.proxy.expect_nothing().await;
        west.apply(&slice(77)).await?;
        world.next("10.9.0.77").await?;

        // Another cluster's garbage concerns nobody; then the secret goes, and west with it.
        east.apply(&secret("north", &[("north", "nothing")])?).await?;
        let north = async || {
            Ok::<_, anyhow::Error>(
                world.cluster("north").await?.is_some_and(|n| n["syncStatus"] == "refused"),
            )
        };
        let deadline = Instant::now() + PATIENCE;
        while !north().await? {
            ensure!(Instant::now() < deadline, "north is not refused");
            sleep(Duration::from_millis(20)).await;
        }
        secrets.delete("remote", &DeleteParams::default()).await?;
        world.until("gone", |west| west.is_none()).await?;
        world.settle("10.9.0.77", false).await
    });
}

/// The commands as a person types them.
#[test]
fn a_person_joins_a_cluster_with_two_commands() {
    let name = "joining::a_person_joins_a_cluster_with_two_commands";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let mut world = World::start(&east, &folder).await?;
        let landbridge = landbridge::find()?;
        let (east_file, west_file) = (folder.join("east.kubeconfig"), folder.join("west.kubeconfig"));
        secret_file(&west_file, &west.kubeconfig(west.admin())?)?;
        let shell = async |line: &str| {
            let mut command = tokio::process::Command::new("bash");
            command.args(["-o", "pipefail", "-c", line]);
            command.env("landbridge", &landbridge).env("kubectl", &binaries.kubectl);
            command.env("EAST", &east_file).env("WEST", &west_file).env("LANDBRIDGE_ADMIN", &world.admin);
            command.env_remove("KUBECONFIG");
            let output = command.output().await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok::<_, anyhow::Error>((output.status.success(), text(&output.stdout), text(&output.stderr)))
        };
        // No controller fills Secrets with tokens here: one for a time is asked for.
        let create = "$landbridge create-remote-secret --kubeconfig $WEST --context west --name west --token-duration 1h";
        let (ok, printed, told) = shell(create).await?;
        ensure!(ok, "{told}");
        ensure!(told.contains("warning: https://127.") && told.contains("--server"), "{told}");
        ensure!(told.contains("expires at") && !told.contains("does not work"), "{told}");
        ensure!(printed.contains("name: istio-remote-secret-west\n"), "no name");
        let (ok, _, told) =
            shell(&format!("{create} 2>/dev/null | $kubectl --kubeconfig $EAST apply -f -")).await?;
        ensure!(ok, "{told}");
        world.until_synced().await?;
        let (ok, table, told) = shell("$landbridge remote-clusters").await?;
        let row = table.lines().find(|line| line.starts_with("west ")).unwrap_or_default();
        ensure!(
            ok && row.contains("istio-system/istio-remote-secret-west") && row.contains("synced"),
            "{table}{told}"
        );
        let (ok, list, told) = shell("$landbridge remote-clusters -o json").await?;
        let list: Value = serde_json::from_str(&list).with_context(|| told.clone())?;
        ensure!(ok && list["items"].as_array().is_some_and(|items| items.len() == 2), "{list} {told}");

        // As usual: a Secret has a token that does not expire, once the cluster has put one there; else one for a time.
        let forever = create.replace(" --token-duration 1h", "");
        let (ok, printed, told) = shell(&forever).await?;
        ensure!(ok && told.contains("no token into a Secret") && told.contains("expires at"), "{told}");
        ensure!(printed.contains("token: "), "{told}");
        let account = "istio-reader-service-account";
        let until = SystemTime::now() + Duration::from_secs(3600);
        let token = west.sign_token("istio-system", account, until).await?;
        let filled = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": { "name": format!("{account}-istio-remote-secret-token"), "namespace": "istio-system",
                "annotations": { "kubernetes.io/service-account.name": account } },
            "stringData": { "token": token, "ca.crt": west.authority().certificate() },
        });
        west.apply(&filled.to_string()).await?;
        let (ok, printed, told) = shell(&forever).await?;
        ensure!(ok && printed.contains(&format!("token: \"{token}\"")), "{told}");
        ensure!(!told.contains("expires at") && !told.contains("does not work"), "{told}");

        // Without the account, with a bad name, a bad address, and with an address that nobody has.
        let mistakes = [
            (
                "--service-account other --create-service-account=false",
                "no ServiceAccount istio-system/other",
            ),
            ("--namespace nowhere", "kubectl create namespace nowhere"),
            ("--name West_1", "lower-case"),
            ("--server 127.0.0.1", "https://HOST:PORT"),
            ("--context gone", "gone"),
        ];
        for (flags, word) in mistakes {
            let base = create.replace("--name west", "").replace("--context west", "");
            let (ok, printed, told) = shell(&format!("{base} {flags}")).await?;
            ensure!(!ok && printed.is_empty() && told.contains(word), "{flags}: {told}");
        }
        let (ok, printed, told) =
            shell(&format!("{create} --server https://kubernetes.default.svc:443")).await?;
        ensure!(ok && printed.contains("https://kubernetes.default.svc:443"), "{told}");
        ensure!(told.contains("only its own cluster knows") && told.contains("does not work"), "{told}");
        world.settle("10.9.0.2", true).await
    });
}

/// Proxies are not answered before the clusters of the secrets that there are were read: here of a directory.
#[test]
fn a_secret_in_a_directory_is_known_before_the_first_answer() {
    let name = "joining::a_secret_in_a_directory_is_known_before_the_first_answer";
    cluster_test(name, async |binaries, folder| {
        let [_, west] = two_clusters(binaries, &folder).await?;
        let east = folder.join("files");
        std::fs::create_dir_all(&east)?;
        std::fs::write(east.join("mesh.yaml"), format!("{NAMESPACES}---\n{SERVICE}---\n{}", slice(1)))?;
        let kubeconfig = login(&west, "first", Duration::from_secs(3600)).await?;
        secret_file(&east.join("west.yaml"), &secret("remote", &[("west", &kubeconfig)])?)?;
        let mut world = World::serve(Place::Files(east.clone()), &folder).await?;
        ensure!(world.has("10.9.0.1") && world.has("10.9.0.2"), "answered too early");
        let west_now = world.cluster("west").await?.context("west is there")?;
        ensure!(west_now["secretName"] == "istio-system/remote", "{west_now}");
        std::fs::remove_file(east.join("west.yaml"))?;
        // It lingers for longer than a response is waited for.
        world.until("gone", |west| west.is_none()).await?;
        world.settle("10.9.0.2", false).await
    });
}
