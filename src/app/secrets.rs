//! The CA's secrets as the xDS server gives them to streams.

use std::sync::Arc;

use crate::{
    ca::svid::SvidStore,
    model::identity::Spiffe,
    xds::secrets::{Secret, SecretProvider},
};

/// Secrets by identity.
pub struct WorkloadSecrets(pub Arc<SvidStore>);

impl SecretProvider for WorkloadSecrets {
    fn subscribe(&self, identity: &Spiffe, name: &str) -> Option<Box<dyn Secret>> {
        self.0.secret(identity, name).map(|receiver| Box::new(receiver) as Box<dyn Secret>)
    }
}
