//! Asking the system's resolver.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{net::lookup_host, time::timeout};

use super::names::Answer;

/// Asks what a name means.
pub type Lookup = Arc<dyn Fn(Arc<str>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A question that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// By the system's resolver. It does not tell for how long an answer holds: names are asked for again as soon as any answer
/// may be.
pub fn system() -> Lookup {
    Arc::new(|host| ask(host).boxed())
}

/// IPv4 addresses if there are some: a gateway with both is the same gateway, and not every pod has IPv6.
async fn ask(host: Arc<str>) -> Answer {
    // With the dot at its end no search domain is tried.
    let absolute = format!("{}.", host.trim_end_matches('.'));
    let found = timeout(TIMEOUT, lookup_host((absolute, 0))).await;
    let found =
        found.map_err(|_| format!("no answer within {TIMEOUT:?}"))?.map_err(|error| error.to_string())?;
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = found.map(|at| at.ip()).partition(IpAddr::is_ipv4);
    Ok((if four.is_empty() { six } else { four }, Duration::ZERO))
}
