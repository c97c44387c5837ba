//! What the webhook counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    result: &'static str,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object is good, or of no kind that is read.
    Allowed,
    /// It is taken, and something in it is not applied as written.
    Warned,
    /// It would not be applied.
    Refused,
    /// The question itself was wrong.
    Garbage,
}

/// Counters of the webhook.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    validations: Family<Answered, Counter>,
}

impl WebhookMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "landbridge_validations",
            "Objects that API servers asked about before storing them, by the answer",
            metrics.validations.clone(),
        );
        metrics
    }

    /// A question was answered.
    pub fn answered(&self, verdict: Verdict) {
        let result = match verdict {
            Verdict::Allowed => "allowed",
            Verdict::Warned => "warned",
            Verdict::Refused => "refused",
            Verdict::Garbage => "garbage",
        };
        self.validations.get_or_create(&Answered { result }).inc();
    }
}
