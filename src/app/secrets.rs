//! The CA's secrets as the xDS server gives them to streams.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{
    ca::svid::{SvidSecret, SvidStore},
    model::identity::Spiffe,
    snapshot::{Encoded, Version},
    xds::secrets::{Secret, SecretProvider},
};

/// Secrets by identity.
pub struct WorkloadSecrets(pub Arc<SvidStore>);

impl SecretProvider for WorkloadSecrets {
    fn subscribe(&self, identity: &Spiffe, name: &str, known: Option<Version>) -> Option<Box<dyn Secret>> {
        self.0.secret(identity, name, known).map(|secret| Box::new(secret) as Box<dyn Secret>)
    }
}

impl Secret for SvidSecret {
    fn current(&mut self) -> Option<Arc<Encoded>> {
        Self::current(self)
    }

    fn changed(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(Self::changed(self))
    }
}
