//! What an API server says of itself. Watches can be quiet for a minute, and stay open while its storage is gone or our
//! credentials are not good any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{backoff::jitter, client::Client, source::Shared};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// While it does not do well.
const OFTEN: Duration = Duration::from_secs(2);

/// Asks `/readyz`, for ever.
pub(super) async fn probe(shared: &Shared, access: watch::Receiver<Arc<Client>>) {
    loop {
        let client = access.borrow().clone();
        let patience = PATIENCE.min(shared.timing.answer);
        let failure = client.get_all("/readyz", "*/*", patience).await.err();
        // Whoever may not ask, or asks something in front of the API server, learns nothing from it.
        let failure = failure.filter(|failure| !failure.is_of_question());
        let wait = if failure.is_some() { OFTEN.min(shared.timing.probe) } else { shared.timing.probe };
        shared.freshness.lock().probed(failure, Instant::now());
        sleep(jitter(wait)).await;
    }
}
