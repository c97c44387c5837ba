//! Requests of state-of-the-world streams.

use landbridge_proto::envoy::service::discovery::v3::DiscoveryRequest;

use super::{
    kind::Kind,
    session::{Heard, Session, Violation},
    watch::Has,
};

impl Session {
    /// Takes in a request for this type.
    ///
    /// - The first request of a type is always answered in full, whatever `version_info` it carries: the version
    ///   describes one response, not all that the client has.
    /// - A later one with the last response's nonce is its ACK or NACK, and may change the names.
    /// - One without a nonce was sent before the client saw a response: it changes the names and is no answer.
    /// - One with another nonce is stale: no answer to what is on its way. The names in it count all the same. xDS lets
    ///   servers wait for the next answer, which repeats them, but then a name that was dropped and taken up again in
    ///   between would look as if it never was, and its resource would not be sent to a client that dropped it.
    pub fn sotw(&mut self, kind: Kind, request: &DiscoveryRequest) -> Result<Heard, Violation> {
        self.check(kind, true, request.resource_names.iter().map(String::as_str))?;
        let refusal = request.error_detail.as_ref().map(|e| e.message.as_str());
        let first = !self.watch(kind).started;
        let heard = if first || (request.response_nonce.is_empty() && refusal.is_none()) {
            Heard::Subscribed
        } else {
            self.answer(kind, &request.response_nonce, refusal).unwrap_or(Heard::Stale)
        };

        let watch = self.watch_mut(kind);
        watch.started = true;
        watch.pay(false);
        let replaced = watch.subscription.replace(&request.resource_names, kind.is_wildcard());
        for name in &replaced.removed {
            watch.forget(name);
        }
        for name in replaced.added {
            watch.want(name, Has::Unknown);
        }
        let again = !first && request.response_nonce.is_empty() && watch.in_flight.is_none();
        if replaced.grew || again {
            watch.want_all(std::iter::empty());
        }
        if again {
            let names: Vec<_> = watch.subscription.names.iter().cloned().collect();
            names.into_iter().for_each(|name| watch.want(name, Has::Unknown));
        }
        if kind.is_complete() && (first || again) && !watch.subscription.is_empty() {
            watch.must_answer();
        }
        Ok(heard)
    }
}
