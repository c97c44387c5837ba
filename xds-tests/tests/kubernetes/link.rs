//! A connection to an API server that a test can hold still or cut, as a network does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Carries bytes.
    Up,
    /// Carries bytes, and every piece of them (64 KiB at most) takes so long.
    Slow(Duration),
    /// Connections stay and carry nothing, new ones as well: half-open.
    Silent,
    /// Connections break, new ones at once.
    Cut,
}

/// Listens on a loopback port, and forwards.
pub struct Link {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = Arc::new(watch::Sender::new(Mode::Up));
        let given = mode.clone();
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(from, target, given.subscribe()));
            }
        });
        Ok(Self { address, mode, task })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(from: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let carrying = async {
        up(&mut mode).await;
        let Ok(to) = TcpStream::connect(target).await else { return };
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        tokio::select! {
            () = copy(from_read, to_write, mode.clone()) => {}
            () = copy(to_read, from_write, mode) => {}
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        up(&mut mode).await;
        let now = *mode.borrow();
        if let Mode::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn up(mode: &mut watch::Receiver<Mode>) {
    // Its sender is gone with the link, and with it the runtime's interest.
    let _ = mode.wait_for(|mode| matches!(mode, Mode::Up | Mode::Slow(_))).await;
}
