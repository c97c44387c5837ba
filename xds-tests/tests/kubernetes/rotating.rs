//! `landbridge cluster rotate` as a person types it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use serde_json::Value;
use xds_tests::kubernetes::{Cluster, Login, cluster_test, secret_file};
use xds_tests::landbridge;

use super::plane::until;
use super::world::{World, login, secret, slice, two_clusters};

/// The token that the config cluster's remote secret has for west.
async fn token(east: &Cluster) -> Result<String> {
    use base64::Engine as _;
    let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
    let data = secrets.get("remote").await?.data["data"]["west"].as_str().context("a key")?.to_owned();
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data)?)?;
    let config: Value = serde_saphyr::from_str(&text)?;
    Ok(config["users"][0]["user"]["token"].as_str().context("a token")?.to_owned())
}

async fn opens(west: &Cluster, token: &str) -> Result<bool> {
    let client = west.client_as(Login::Token(token.to_owned())).await?;
    Ok(Api::<Namespace>::all(client).list(&ListParams::default()).await.is_ok())
}

#[test]
fn credentials_are_rotated_and_the_old_ones_end() {
    let name = "rotating::credentials_are_rotated_and_the_old_ones_end";
    cluster_test(name, async |binaries, folder| {
        let [east, west] = two_clusters(binaries, &folder).await?;
        let mut world = World::start(&east, &folder).await?;
        let first = login(&west, "first", Duration::from_secs(3600)).await?;
        east.apply(&secret("remote", &[("west", &first), ("north", "other")])?).await?;
        world.settle("10.9.0.2", true).await?;
        world.until_synced().await?;

        let (east_file, west_file) = (folder.join("east.kubeconfig"), folder.join("west.kubeconfig"));
        secret_file(&west_file, &west.kubeconfig(west.admin())?)?;
        let (binary, admin) = (landbridge::find()?, world.admin.clone());
        let rotate = async |more: &[&str]| {
            let mut command = tokio::process::Command::new(&binary);
            command.args(["cluster", "rotate", "--admin", &admin]);
            command.arg("--config-kubeconfig").arg(&east_file).env("KUBECONFIG", &west_file).args(more);
            let output = command.output().await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok::<_, anyhow::Error>((output.status.success(), text(&output.stdout), text(&output.stderr)))
        };
        let of_test = token(&east).await?;
        let (ok, printed, told) = rotate(&["west", "--token-duration", "1h"]).await?;
        ensure!(ok && printed.contains("the new credentials are in use"), "{printed}{told}");
        // The test's token is of no Secret: it cannot be taken back.
        ensure!(told.contains("istio-system/first") && told.contains("cannot be taken back"), "{told}");
        let second = token(&east).await?;
        ensure!(second != of_test && !format!("{printed}{told}").contains(&second));
        let north = east.objects("v1", "Secret", Some("istio-system")).await?.get("remote").await?;
        ensure!(north.data["data"]["north"].is_string(), "another cluster's key is gone");

        // This one's is: it ends.
        let (ok, printed, told) = rotate(&["west", "--token-duration", "1h"]).await?;
        ensure!(ok && printed.contains("is taken back"), "{printed}{told}");
        until("the old token ends", async || Ok(!opens(&west, &second).await?)).await?;
        ensure!(opens(&west, &token(&east).await?).await?, "the new one does not work");
        world.until_synced().await?;
        world.proxy.expect_nothing().await;
        west.apply(&slice(44)).await?;
        world.next("10.9.0.44").await?;

        // Mistakes change nothing, and say what to do.
        let third = token(&east).await?;
        for (more, word) in [
            (vec!["north2", "--token-duration", "1h"], "by remote secrets: north, west"),
            (vec!["west", "--kubeconfig", east_file.to_str().context("a path")?], "opens another cluster"),
            (
                vec!["west", "--namespace", "default"],
                "no remote secret in namespace default names cluster west",
            ),
            (vec!["west", "--admin", "http://127.0.0.1:1"], "no landbridge answers"),
        ] {
            let (ok, printed, told) = rotate(&more).await?;
            ensure!(!ok && printed.is_empty() && told.contains(word), "{more:?}: {printed}{told}");
            ensure!(token(&east).await? == third, "{more:?} changed the Secret");
        }
        // The account may not read any more what a new token would have to prove: it is put back, and said why.
        let bindings = west.objects("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None).await?;
        bindings.delete("reader", &Default::default()).await?;
        let (ok, printed, told) = rotate(&["west", "--token-duration", "1h", "--timeout", "3s"]).await?;
        ensure!(
            !ok && printed.is_empty() && told.contains("403") && told.contains("as they were before"),
            "{told}"
        );
        ensure!(token(&east).await? == third, "it was not put back");
        let left =
            west.objects("v1", "Secret", Some("istio-system")).await?.list(&ListParams::default()).await?;
        ensure!(left.items.len() == 1, "Secrets of tokens are left: {}", left.items.len());
        Ok(())
    });
}
