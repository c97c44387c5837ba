//! Service-account tokens of real API servers, reviewed by the one that the caller names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::HeaderMap;
use landbridge::app::clusters::{Clusters, Place};
use landbridge::authn::{Authenticator, CLUSTER_METADATA, PeerCertificate};
use landbridge::registry;
use tokio::sync::mpsc;
use xds_tests::kubernetes::{Cluster, Settings, cluster_test, secret_file};

const HOUR: Duration = Duration::from_secs(3600);

fn login(token: &str, cluster: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse()?);
    if !cluster.is_empty() {
        headers.insert(CLUSTER_METADATA, cluster.parse()?);
    }
    Ok(headers)
}

#[test]
fn a_token_is_good_in_the_cluster_that_made_it() {
    cluster_test("tokens::a_token_is_good_in_the_cluster_that_made_it", async |binaries, folder| {
        let start = |name: &str| Cluster::start(binaries, Settings::new(name, folder.join(name)));
        let (east, mut west) = tokio::try_join!(start("east"), start("west"))?;
        let (changes, mut batches) = mpsc::channel(1024);
        tokio::spawn(async move { while batches.recv().await.is_some() {} });
        let mut clusters = Clusters::new("east".into(), registry::Settings::default(), None, changes);
        for cluster in [&east, &west] {
            let account = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
                apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cart, namespace: shop}\n";
            cluster.apply(account).await?;
            let path = folder.join(format!("{}.kubeconfig", cluster.name()));
            secret_file(&path, &cluster.kubeconfig(cluster.admin())?)?;
            clusters.add(cluster.name().into(), &Place::Kubeconfig(path)).await?;
        }
        let authenticator = Authenticator::new("mesh.example", vec!["istio-ca".into()]);
        let authenticator = authenticator.with_reviewers(Arc::new(clusters.api_servers()));
        let ask = async |token: &str, cluster: &str| -> Result<Result<String, String>> {
            let found =
                authenticator.authenticate(&PeerCertificate::default(), None, &login(token, cluster)?).await;
            Ok(match found {
                Ok(peer) => Ok(format!("{} in {:?}", peer.identity.context("who")?, peer.cluster_id)),
                Err(error) => Err(error.to_string()),
            })
        };
        let token = async |cluster: &Cluster, audience: &str| {
            cluster.request_token("shop", "cart", &[audience], HOUR).await
        };

        let (of_east, of_west) = (token(&east, "istio-ca").await?, token(&west, "istio-ca").await?);
        let expected =
            |cluster: &str| Ok(format!("spiffe://mesh.example/ns/shop/sa/cart in {:?}", Some(cluster)));
        for claimed in ["", "east"] {
            ensure!(ask(&of_east, claimed).await? == expected("east"));
        }
        ensure!(ask(&of_west, "west").await? == expected("west"));
        for (token, claimed, reasons) in [
            (token(&west, "istio-ca").await?, "east", ["cluster `east` does not accept it", ""]),
            (token(&west, "istio-ca").await?, "", ["cluster `east` does not accept it", ""]),
            (token(&east, "vault").await?, "east", ["cluster `east` does not accept it", "audience"]),
            (token(&west, "istio-ca").await?, "wets", ["(east, west)", "`west` is"]),
        ] {
            let said = ask(&token, claimed).await?.err().with_context(|| format!("good in {claimed:?}"))?;
            ensure!(reasons.iter().all(|reason| said.contains(reason)), "{said}");
            ensure!(!said.contains(&token), "a credential is repeated");
        }

        // Away: what was reviewed is believed, what was not is told why.
        let late = token(&west, "istio-ca").await?;
        west.kill().await?;
        ensure!(ask(&of_west, "west").await? == expected("west"));
        let said = ask(&late, "west").await?.err().context("nobody could review it")?;
        ensure!(said.contains("cluster `west` did not review it"), "{said}");
        ensure!(ask(&of_east, "east").await? == expected("east"), "one cluster hurts no other");
        Ok(())
    });
}
