//! Orders pushes from a floor in another process.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{net::UdpSocket, time::timeout};

use super::{
    frames::{ASSIGNMENT, marker},
    serve::Totals,
};
use crate::expect::{Expectation, Marker, Type};

/// What a push cost the floor.
pub type PushReport = Totals;

/// Longer than the floor waits for ACKs.
const PATIENCE: Duration = Duration::from_secs(40);

/// A way to order pushes.
#[derive(Debug)]
pub struct Pusher {
    socket: UdpSocket,
    floor: SocketAddr,
    /// Of the last push. Begins at a time of day, so that a floor that stays hears new numbers from each process.
    number: u64,
}

/// Why a push was not made.
#[derive(Debug, Error)]
pub enum PushError {
    /// The socket failed.
    #[error("cannot order a push from the floor at {0}: {1}; is `xds-load floor serve` there?")]
    Io(SocketAddr, io::Error),
    /// Nothing came back.
    #[error("the floor at {0} did not answer within {PATIENCE:?}; is `xds-load floor serve` there?")]
    Silent(SocketAddr),
}

impl Pusher {
    /// Orders from the floor at the address that clients connect to.
    pub async fn new(floor: SocketAddr) -> Result<Self, PushError> {
        let any = if floor.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).await.map_err(|e| PushError::Io(floor, e))?;
        socket.connect(floor).await.map_err(|e| PushError::Io(floor, e))?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let number = since.map_or(1, |since| since.as_micros() as u64);
        Ok(Self { socket, floor, number })
    }

    /// Has one assignment sent to every stream. `announce` gets what clients must see, just before the order; the report
    /// comes when all have acknowledged it.
    pub async fn push(&mut self, announce: impl FnOnce(Expectation)) -> Result<PushReport, PushError> {
        let failed = |error| PushError::Io(self.floor, error);
        self.number += 1;
        let order = format!("push {}", self.number);
        announce(Expectation {
            sequence: self.number,
            kind: Type::Endpoint,
            name: ASSIGNMENT.into(),
            marker: Marker::Contains(marker(self.number).into_bytes().into()),
            network: None,
            at: Instant::now(),
        });
        self.socket.send(order.as_bytes()).await.map_err(failed)?;
        let mut answer = [0; 1024];
        let received = timeout(PATIENCE, self.socket.recv(&mut answer)).await;
        let length = received.map_err(|_| PushError::Silent(self.floor))?.map_err(failed)?;
        serde_json::from_slice(&answer[..length]).map_err(|e| failed(io::Error::other(e)))
    }
}
