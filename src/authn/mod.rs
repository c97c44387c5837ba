//! Who is calling: identities from client certificates and from service-account tokens.

pub mod dev_issuer;
