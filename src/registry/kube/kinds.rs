//! What is read of a cluster.

use std::{borrow::Cow, sync::Arc};

use crate::model::{Kind, mcs::Api, remote_secret};

/// A collection of an API server.
#[derive(Clone, Debug)]
pub struct Resource {
    /// What its objects are.
    pub kind: Kind,
    /// Empty for the core group.
    group: Cow<'static, str>,
    versions: Versions,
    plural: &'static str,
    /// Which of them.
    which: Which,
    /// What its absence means.
    pub need: Need,
}

/// The versions of a collection that have the shape that is read, the preferred one first.
#[derive(Clone, Debug)]
enum Versions {
    Known(&'static [&'static str]),
    Told(Arc<str>),
}

/// Which objects of a collection.
#[derive(Clone, Copy, Debug)]
enum Which {
    All,
    /// By fields.
    Fields(&'static str),
    /// One, in the root namespace.
    OfRoot(&'static str),
    /// In the root namespace, by a label that is `true`.
    Labelled(&'static str),
}

/// What it means that a collection cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The cluster is not read whole without it.
    Always,
    /// It is said, and the cluster counts as read whole: some reader roles do not allow it.
    Allowed,
    /// A custom resource: the same, and it may be installed later.
    Installed,
}

impl Resource {
    const fn core(kind: Kind, plural: &'static str, which: Which, need: Need) -> Self {
        Self { kind, group: Cow::Borrowed(""), versions: Versions::Known(&["v1"]), plural, which, need }
    }

    const fn custom(
        kind: Kind,
        group: &'static str,
        versions: &'static [&'static str],
        plural: &'static str,
    ) -> Self {
        let (group, versions) = (Cow::Borrowed(group), Versions::Known(versions));
        Self { kind, group, versions, plural, which: Which::All, need: Need::Installed }
    }

    fn of_mcs(kind: Kind, api: &Api, plural: &'static str) -> Self {
        let (group, versions) = (Cow::Owned(api.group.to_string()), Versions::Told(api.version.clone()));
        Self { kind, group, versions, plural, which: Which::All, need: Need::Installed }
    }
}

/// Of every cluster.
const EVERYWHERE: &[Resource] = &[
    Resource::core(Kind::MeshConfig, "configmaps", Which::OfRoot("istio"), Need::Allowed),
    Resource::core(Kind::Namespace, "namespaces", Which::All, Need::Always),
    Resource::core(Kind::Node, "nodes", Which::All, Need::Always),
    Resource::core(Kind::ServiceAccount, "serviceaccounts", Which::All, Need::Allowed),
    Resource::core(Kind::Service, "services", Which::All, Need::Always),
    // As Istio: a failed pod has no address any more that anybody should know.
    Resource::core(Kind::Pod, "pods", Which::Fields("status.phase!=Failed"), Need::Always),
    Resource {
        kind: Kind::EndpointSlice,
        group: Cow::Borrowed("discovery.k8s.io"),
        versions: Versions::Known(&["v1"]),
        plural: "endpointslices",
        which: Which::All,
        need: Need::Always,
    },
];

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// Of the config cluster: Istio's objects are in force, and clusters are registered, only there.
const CONFIG: &[Resource] = &[
    Resource::core(Kind::RemoteSecret, "secrets", Which::Labelled(remote_secret::LABEL), Need::Allowed),
    Resource::custom(Kind::Gateway, "networking.istio.io", NETWORKING, "gateways"),
    Resource::custom(Kind::DestinationRule, "networking.istio.io", NETWORKING, "destinationrules"),
    Resource::custom(
        Kind::PeerAuthentication,
        "security.istio.io",
        &["v1", "v1beta1"],
        "peerauthentications",
    ),
];

/// What is read of a cluster; exports and imports, where `mcs` says that and where they are.
pub fn resources(config_cluster: bool, mcs: Option<&Api>) -> impl Iterator<Item = Resource> {
    let config = if config_cluster { CONFIG } else { &[] };
    let mcs = mcs.into_iter().flat_map(|api| {
        [(Kind::ServiceExport, "serviceexports"), (Kind::ServiceImport, "serviceimports")]
            .map(|(kind, plural)| Resource::of_mcs(kind, api, plural))
    });
    EVERYWHERE.iter().chain(config).cloned().chain(mcs)
}

/// What is read of an object of a Secret's name, besides remote secrets.
const SECRET: Resource = Resource::core(Kind::RemoteSecret, "secrets", Which::All, Need::Allowed);

/// The collection that an object of a kind is in; kinds as [`crate::registry::Problem`] writes them.
pub fn of_kind(kind: &str, mcs: &Api) -> Option<Resource> {
    let of = |resource: &Resource| format!("{:?}", resource.kind) == kind;
    resources(true, Some(mcs)).find(of).or((kind == "Secret").then_some(SECRET))
}

// === impl Versions ===

impl Versions {
    fn get(&self, at: usize) -> Option<&str> {
        match self {
            Self::Known(versions) => versions.get(at).copied(),
            Self::Told(version) => (at == 0).then_some(version),
        }
    }
}

// === impl Resource ===

impl Resource {
    /// What Kubernetes calls its objects.
    pub fn kubernetes_kind(&self) -> String {
        match self.kind {
            Kind::MeshConfig => "ConfigMap".to_owned(),
            Kind::RemoteSecret => "Secret".to_owned(),
            kind => format!("{kind:?}"),
        }
    }

    /// A version of the collection as objects name it, and the path to list one object of it; none if there are no more versions.
    pub fn one(&self, version: usize, namespace: &str, name: &str) -> Option<(String, String)> {
        let version = self.versions.get(version)?;
        let Self { group, plural, .. } = self;
        let (api, version) = match &**group {
            "" => (format!("/api/{version}"), version.to_owned()),
            _ => (format!("/apis/{group}/{version}"), format!("{group}/{version}")),
        };
        let namespace = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
        Some((version, format!("{api}/{namespace}{plural}?fieldSelector=metadata.name%3D{name}&limit=1")))
    }

    /// The path of a version of the collection; none if there are no more versions.
    pub fn path(&self, version: usize, root_namespace: &str) -> Option<String> {
        let version = self.versions.get(version)?;
        let Self { group, plural, .. } = self;
        let api =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        Some(match self.which {
            Which::All => format!("{api}/{plural}?"),
            Which::Fields(fields) => format!("{api}/{plural}?fieldSelector={}&", escaped(fields)),
            Which::Labelled(label) => {
                let label = label.replace('/', "%2F");
                format!("{api}/namespaces/{root_namespace}/{plural}?labelSelector={label}%3Dtrue&")
            }
            Which::OfRoot(name) => {
                format!("{api}/namespaces/{root_namespace}/{plural}?fieldSelector=metadata.name%3D{name}&")
            }
        })
    }

    /// The path of the definition of a custom resource.
    pub fn definition(&self) -> String {
        let Self { group, plural, .. } = self;
        format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}")
    }

    /// Whether discovery selectors leave some of it out.
    pub fn is_selected(&self) -> bool {
        !matches!(self.kind, Kind::Namespace | Kind::Node | Kind::MeshConfig | Kind::RemoteSecret)
    }

    /// `endpointslices.discovery.k8s.io`, as people write it.
    pub fn name(&self) -> String {
        let Self { group, plural, .. } = self;
        if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") }
    }
}

fn escaped(fields: &str) -> String {
    fields.replace('!', "%21").replace('=', "%3D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let all: Vec<_> = resources(true, Some(&Api::default()))
            .map(|r| r.path(0, "istio-system").unwrap_or_default())
            .collect();
        assert!(all.contains(&"/api/v1/pods?fieldSelector=status.phase%21%3DFailed&".to_owned()), "{all:?}");
        assert!(all.contains(&"/apis/discovery.k8s.io/v1/endpointslices?".to_owned()), "{all:?}");
        let mesh = "/api/v1/namespaces/istio-system/configmaps?fieldSelector=metadata.name%3Distio&";
        assert!(all.contains(&mesh.to_owned()), "{all:?}");
        let secrets = "/api/v1/namespaces/istio-system/secrets?labelSelector=istio%2FmultiCluster%3Dtrue&";
        assert!(all.contains(&secrets.to_owned()), "{all:?}");
        let told = Api { group: "net.example".into(), version: "v1".into() };
        let of_mcs: Vec<_> = resources(false, Some(&told)).filter(|r| r.need == Need::Installed).collect();
        let paths = of_mcs.iter().map(|r| [r.path(0, "istio-system"), r.path(1, "istio-system")]);
        assert!(
            paths.eq(["serviceexports", "serviceimports"]
                .map(|plural| [Some(format!("/apis/net.example/v1/{plural}?")), None]))
        );
        assert!(of_mcs[0].definition().ends_with("/serviceexports.net.example"));
        let rule = resources(true, Some(&Api::default()))
            .find(|r| r.kind == Kind::DestinationRule)
            .expect("is read");
        let of = |version| rule.path(version, "istio-system");
        assert_eq!(of(2).as_deref(), Some("/apis/networking.istio.io/v1alpha3/destinationrules?"));
        assert_eq!((of(3), rule.name().as_str()), (None, "destinationrules.networking.istio.io"));
        let one = |kind, version| of_kind(kind, &Api::default()).and_then(|r| r.one(version, "a", "b"));
        let rule = "/apis/networking.istio.io/v1beta1/namespaces/a/destinationrules?fieldSelector=metadata.name%3Db&limit=1";
        assert_eq!(
            one("DestinationRule", 1),
            Some(("networking.istio.io/v1beta1".to_owned(), rule.to_owned()))
        );
        for kind in ["Secret", "RemoteSecret"] {
            let secret = "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Db&limit=1";
            assert_eq!(one(kind, 0), Some(("v1".to_owned(), secret.to_owned())));
        }
        assert!(one("DestinationRule", 3).is_none() && of_kind("Lease", &Api::default()).is_none());
        assert!(resources(false, None).all(|r| r.need != Need::Installed && r.kind != Kind::RemoteSecret));
    }
}
