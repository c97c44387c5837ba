//! Which namespaces are read: `discoverySelectors` of the mesh's configuration, which all clusters go by.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;

use crate::model::{Change, Kind, Object, mesh::MeshConfig, selector::LabelSelector};

/// Selectors, of which any selects; none select everything.
pub type Selectors = Arc<[LabelSelector]>;

/// The mesh's configuration, told by the source of the config cluster to those who read other clusters, or write to any. Nothing
/// is known before that source has read whether there is such a configuration.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<watch::Sender<Option<Arc<MeshConfig>>>>);

/// The namespaces of a cluster that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// These.
    Only(HashSet<Arc<str>>),
}

// === impl Discovery ===

impl Default for Discovery {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Discovery {
    /// Takes note of changes of the config cluster.
    pub fn observe(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Upsert(_, Object::MeshConfig(mesh)) => self.set(mesh.clone()),
                Change::Remove(key) if key.kind == Kind::MeshConfig => self.set(Arc::default()),
                _ => {}
            }
        }
    }

    /// There is no configuration, or none can be read for now: the defaults hold until there is one.
    pub fn settle(&self) {
        self.0.send_if_modified(|known| {
            let news = known.is_none();
            known.get_or_insert_default();
            news
        });
    }

    fn set(&self, mesh: Arc<MeshConfig>) {
        self.0.send_if_modified(|known| {
            let news = known.as_ref() != Some(&mesh);
            *known = Some(mesh);
            news
        });
    }

    /// What is known, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<MeshConfig>>> {
        self.0.subscribe()
    }
}

// === impl Selection ===

impl Selection {
    /// Whether objects of this kind in this namespace are read.
    pub fn includes(&self, kind: Kind, namespace: &str) -> bool {
        match self {
            Self::All => true,
            _ if matches!(kind, Kind::Namespace | Kind::Node | Kind::MeshConfig | Kind::RemoteSecret) => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}
