//! API servers that stop, die, lose their storage or cannot be reached: nothing goes, the cluster is stale with an age,
//! and everything is as it should be afterwards, without a restart.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;
use kube::config::Kubeconfig;
use landbridge::app::clusters::{Clusters, Place};
use landbridge::model::change::ClusterState;
use landbridge::model::{Change, Kind};
use landbridge::registry::kubernetes::Client;
use landbridge::registry::{self, KubeSource};
use tokio::sync::mpsc;
use tokio::time::timeout;
use xds_tests::kubernetes::cluster::PORT;
use xds_tests::kubernetes::keys::LEEWAY;
use xds_tests::kubernetes::{Cluster, Login, Settings, binaries, cluster_test, crds, secret_file};

use crate::link::{Link, Mode};
use crate::reading::{Reading, config};

async fn start(binaries: &binaries::Binaries, folder: &std::path::Path) -> Result<Cluster> {
    let cluster = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
    cluster.define(crds::ISTIO).await?;
    cluster.apply_folder(&binaries::repository().join("deploy/examples/two-clouds/east")).await?;
    Ok(cluster)
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: production}}\nspec: {{ports: [{{port: 80}}]}}\n"
    )
}

/// It is watched, and nothing was ever removed.
async fn recovered(cluster: &Cluster, r: &mut Reading, mark: &str) -> Result<()> {
    r.synced().await.with_context(|| format!("after {mark}"))?;
    cluster.apply(&service(mark)).await?;
    r.until(mark, |r| r.get(Kind::Service, mark).is_some()).await?;
    ensure!(r.removed.is_empty(), "{mark}: removed {:?}", r.removed);
    Ok(())
}

#[test]
fn nothing_goes_in_outages_of_the_api_server() {
    cluster_test("outages::nothing_goes_in_outages_of_the_api_server", async |binaries, folder| {
        let mut cluster = start(binaries, &folder).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, |_| {})?;
        r.synced().await?;
        ensure!(
            r.get(Kind::Service, "backend").is_some() && r.get(Kind::DestinationRule, "backend").is_some()
        );

        cluster.suspend();
        r.stale("silent").await.context("held still")?;
        let age = r.stale_for()?;
        cluster.resume();
        recovered(&cluster, &mut r, "resumed").await?;
        println!("held still: named after {age:?} of silence");

        cluster.take_etcd();
        r.stale("etcd").await.context("without its storage")?;
        cluster.give_etcd();
        cluster.await_ready(Duration::from_secs(90)).await?;
        recovered(&cluster, &mut r, "stored").await?;

        cluster.kill().await?;
        r.stale("cannot be reached").await.context("killed")?;
        cluster.revive().await?;
        recovered(&cluster, &mut r, "revived").await?;

        // Quickly again and again, while it may not even be ready.
        for _ in 0..2 {
            cluster.kill().await?;
            cluster.revive().await?;
        }
        recovered(&cluster, &mut r, "restarted").await
    });
}

#[test]
fn nothing_goes_in_outages_of_the_network_and_differences_are_repaired() {
    let name = "outages::nothing_goes_in_outages_of_the_network_and_differences_are_repaired";
    cluster_test(name, async |binaries, folder| {
        let mut cluster = start(binaries, &folder).await?;
        let link = Link::to((cluster.addresses()[0], PORT).into()).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), Some(link.address)).await?, |_| {})?;
        r.synced().await?;

        // Half-open: no byte and no end of a connection tells it.
        link.set(Mode::Silent);
        r.stale("silent").await?;
        cluster.apply(&service("meanwhile")).await?;
        link.set(Mode::Up);
        r.until("what was written meanwhile", |r| r.get(Kind::Service, "meanwhile").is_some()).await?;
        recovered(&cluster, &mut r, "spoke").await?;

        link.set(Mode::Cut);
        r.stale("cannot be reached").await?;
        // What the watches stopped at is forgotten when the API server comes back: its cache begins anew.
        let services = cluster.objects("v1", "Service", Some("production")).await?;
        services.delete("meanwhile", &DeleteParams::default()).await?;
        cluster.apply(&service("created")).await?;
        cluster.kill().await?;
        cluster.revive().await?;
        ensure!(r.removed.is_empty(), "{:?}", r.removed);
        link.set(Mode::Up);
        r.until("the difference", |r| {
            r.get(Kind::Service, "created").is_some() && r.get(Kind::Service, "meanwhile").is_none()
        })
        .await?;
        r.synced().await?;
        ensure!(r.removed == ["east/production/Service/meanwhile"], "{:?}", r.removed);
        Ok(())
    });
}

#[test]
fn credentials_are_rotated_in_a_churn() {
    cluster_test("outages::credentials_are_rotated_in_a_churn", async |binaries, folder| {
        let cluster = start(binaries, &folder).await?;
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, |_| {})?;
        r.synced().await?;
        let (upserts, objects) = (r.upserts, r.objects.len());
        for i in 0..25 {
            let login = if i % 2 == 0 {
                let pair = cluster.authority().client(&format!("user-{i}"), &["system:masters"])?;
                Login::Certificate(pair)
            } else {
                cluster.admin()
            };
            let client = Client::new(&config(&cluster, login, None).await?)?;
            let (replaced, written) =
                tokio::join!(r.access.replace(client, Duration::from_secs(10)), async {
                    cluster.apply(&service(&format!("churn-{i}"))).await
                });
            replaced?;
            written?;
        }
        r.until("the last one", |r| r.get(Kind::Service, "churn-24").is_some()).await?;
        r.until("all", |r| r.objects.len() == objects + 25).await?;
        ensure!(
            r.upserts == upserts + 25 && r.removed.is_empty(),
            "{} changes of 25 writes",
            r.upserts - upserts
        );

        // One that is not accepted is not taken, and says so.
        let stranger = cluster.authority().client("stranger", &[])?;
        let login = Login::Certificate(stranger);
        let client = Client::new(&config(&cluster, login, None).await?)?;
        let refused =
            r.access.replace(client, Duration::from_secs(10)).await.err().context("it was taken")?;
        ensure!(refused.to_string().contains("403"), "{refused}");
        recovered(&cluster, &mut r, "rotated").await
    });
}

/// Watches stay open after that, for minutes; it is said at once.
#[test]
fn a_token_that_expires_under_watches_is_named_and_replaced() {
    let name = "outages::a_token_that_expires_under_watches_is_named_and_replaced";
    cluster_test(name, async |binaries, folder| {
        let cluster = start(binaries, &folder).await?;
        cluster.apply(READER).await?;
        let expires = SystemTime::now() + Duration::from_secs(15) - LEEWAY;
        let token = cluster.sign_token("production", "reader", expires).await?;
        let mut r = Reading::start(&config(&cluster, Login::Token(token), None).await?, |_| {})?;
        r.synced().await?;
        r.stale("401").await?;
        cluster.apply(&service("expired")).await?;
        r.until("watches go on", |r| r.get(Kind::Service, "expired").is_some()).await?;
        let fresh = cluster.request_token("production", "reader", &[], Duration::from_secs(3600)).await?;
        let client = Client::new(&config(&cluster, Login::Token(fresh), None).await?)?;
        r.access.replace(client, Duration::from_secs(10)).await?;
        recovered(&cluster, &mut r, "renewed").await
    });
}

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: production}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: production}]
";

/// A cluster's address and credentials are a file's, whatever they become.
#[test]
fn a_kubeconfig_that_changes_is_taken_over() {
    cluster_test("outages::a_kubeconfig_that_changes_is_taken_over", async |binaries, folder| {
        let cluster = start(binaries, &folder).await?;
        let server = (cluster.addresses()[0], PORT).into();
        let (first, second) = (Link::to(server).await?, Link::to(server).await?);
        let path = folder.join("kubeconfig");
        let write = |link: &Link| -> Result<()> {
            let mut kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig(cluster.admin())?)?;
            let named = kubeconfig.clusters.first_mut().and_then(|named| named.cluster.as_mut());
            let named = named.context("a cluster")?;
            named.tls_server_name = Some(cluster.addresses()[0].to_string());
            named.server = Some(format!("https://{}", link.address));
            secret_file(&path, &serde_json::to_string(&kubeconfig)?)
        };
        write(&first)?;
        let (changes, mut batches) = mpsc::channel(1024);
        let mut clusters = Clusters::new("east".into(), registry::Settings::default(), None, changes);
        clusters.add("east".into(), &Place::Kubeconfig(path.clone())).await?;
        let mut until = async |what: &str, holds: &dyn Fn(&Change) -> bool| -> Result<()> {
            let found = async {
                while let Some(batch) = batches.recv().await {
                    ensure!(
                        !batch.changes.iter().any(|c| matches!(c, Change::Remove(_))),
                        "{:?}",
                        batch.changes
                    );
                    if batch.changes.iter().any(holds) {
                        return Ok(());
                    }
                }
                anyhow::bail!("the source ended")
            };
            timeout(Duration::from_secs(60), found).await.context(what.to_owned())?.context(what.to_owned())
        };
        let synced = |change: &Change| matches!(change, Change::Cluster(_, ClusterState::Synced));
        let came = |change: &Change| matches!(change, Change::Upsert(key, _) if &*key.name == "after");
        until("synced", &synced).await?;
        // Garbage is not taken, nor is an address where nobody answers.
        secret_file(&path, "clusters: [")?;
        first.set(Mode::Cut);
        until("away", &|change| matches!(change, Change::Cluster(_, ClusterState::Stale { .. }))).await?;
        write(&second)?;
        until("by the other way", &synced).await?;
        cluster.apply(&service("after")).await?;
        until("watched", &came).await
    });
}

/// What is compared with the API server is what the API server has, also while everything changes.
#[test]
fn nothing_drifts_in_a_churn() {
    cluster_test("outages::nothing_drifts_in_a_churn", async |binaries, folder| {
        let cluster = start(binaries, &folder).await?;
        let impatient = |source: &mut KubeSource| source.timing.compare = Duration::from_secs(1);
        let mut r = Reading::start(&config(&cluster, cluster.admin(), None).await?, impatient)?;
        r.synced().await?;
        let services = cluster.objects("v1", "Service", Some("production")).await?;
        for i in 0..100 {
            cluster.apply(&service(&format!("churn-{}", i % 7))).await?;
            if i % 3 == 0 {
                services.delete(&format!("churn-{}", i % 7), &DeleteParams::default()).await?;
            }
        }
        let churned = SystemTime::now();
        r.until("compared", |r| r.report().compared.is_some_and(|at| at > churned)).await?;
        ensure!(r.report().repairs == 0, "{:#?}", r.report());
        Ok(())
    });
}

/// A list takes as long as it takes while parts of it come. Until then the cluster is not synced, and it is said.
#[test]
fn a_slow_list_is_waited_for() {
    cluster_test("outages::a_slow_list_is_waited_for", async |binaries, folder| {
        let cluster = start(binaries, &folder).await?;
        // What nothing makes shorter on its way.
        let mut state = 1_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 24) as u8 % 26)
        };
        for i in 0..50 {
            let ballast: String = (0..80_000).map(|_| letter()).collect();
            let service = service(&format!("slow-{i}"));
            cluster
                .apply(
                    &service.replace("metadata: {", &format!("metadata: {{annotations: {{a: {ballast}}}, ")),
                )
                .await?;
        }
        let link = Link::to((cluster.addresses()[0], PORT).into()).await?;
        link.set(Mode::Slow(Duration::from_millis(100)));
        let config = config(&cluster, cluster.admin(), Some(link.address)).await?;
        let mut r = Reading::start(&config, |source| {
            source.timing.answer = Duration::from_secs(3);
            source.timing.patience = Some(Duration::from_secs(2));
        })?;
        r.stale("not read whole within").await?;
        let began = std::time::Instant::now();
        r.synced().await?;
        println!("read whole {:?} after it was said to be late", began.elapsed());
        let all = (0..50).all(|i| r.get(Kind::Service, &format!("slow-{i}")).is_some());
        ensure!(all && r.removed.is_empty() && r.problems().is_empty(), "{:?}", r.problems());
        // Changes come through as late as bytes do, and are no reason for anything.
        cluster.apply(&service("late")).await?;
        r.until("late", |r| r.get(Kind::Service, "late").is_some()).await?;
        ensure!(r.state == ClusterState::Synced, "{:?}", r.state);
        Ok(())
    });
}
