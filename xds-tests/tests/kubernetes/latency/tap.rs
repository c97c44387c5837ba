//! Between an xDS client and its server, without encryption: when messages pass. Of HTTP/2 it knows the heads of frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// When the last DATA frame with something in it passed.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    to_client: Option<Instant>,
    to_server: Option<Instant>,
}

/// Listens on a loopback port, and forwards.
pub struct Tap {
    pub address: SocketAddr,
    passed: Arc<watch::Sender<Passed>>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tap {
    pub async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let passed = Arc::new(watch::Sender::new(Passed::default()));
        let given = passed.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passed = given.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    let (up, down) = (passed.clone(), passed);
                    // A client begins with a preface, which is no frame.
                    tokio::join!(
                        copy(from_client, to_server, Frames::after(24), |now| {
                            up.send_modify(|passed| passed.to_server = Some(now));
                        }),
                        copy(from_server, to_client, Frames::after(0), |now| {
                            down.send_modify(|passed| passed.to_client = Some(now));
                        }),
                    );
                });
            }
        });
        Ok(Self { address, passed, task })
    }

    /// When the last message since `begin` went to the client, and its first answer to that.
    pub async fn acknowledged_since(&self, begin: Instant) -> Result<(Instant, Instant)> {
        let mut passed = self.passed.subscribe();
        let since = |passed: &Passed| {
            let (pushed, acked) = (passed.to_client?, passed.to_server?);
            (pushed >= begin && acked >= pushed).then_some((pushed, acked))
        };
        let found = passed.wait_for(|passed| since(passed).is_some()).await?;
        Ok(since(&found).unwrap_or((begin, begin)))
    }

    /// Waits until nothing passed for so long.
    pub async fn quiet(&self, long: Duration, within: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Passed { to_client, to_server } = *self.passed.borrow();
            let last = to_client.max(to_server);
            if last.is_some_and(|last| last.elapsed() >= long) {
                return Ok(());
            }
            ensure!(begun.elapsed() < within, "messages pass all the time");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frames: Frames, passed: impl Fn(Instant)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = Instant::now();
        if frames.have_data(&buffer[..read]) {
            passed(now);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Where in a sequence of frames the bytes are that were seen last.
struct Frames {
    /// Until the next frame's head.
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, head: Vec::new() }
    }

    /// Whether a DATA frame with something in it begins in these bytes.
    fn have_data(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            // RFC 9113, 4.1: three bytes of length, one of type, one of flags, four of the stream.
            let taken = (9 - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [a, b, c, kind, ..] = self.head[..]
                && self.head.len() == 9
            {
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                found |= kind == 0 && self.skip > 0;
                self.head.clear();
            }
        }
        found
    }
}

#[test]
fn frames_are_found_wherever_reads_end() {
    let mut wire = vec![b'P'; 24];
    wire.extend([0, 0, 2, 4, 0, 0, 0, 0, 0, 9, 9]); // SETTINGS
    wire.extend([0, 0, 0, 0, 1, 0, 0, 0, 1]); // DATA with nothing in it
    let quiet = wire.len();
    wire.extend([0, 0, 3, 0, 0, 0, 0, 0, 1, 7, 7, 7]); // DATA
    for step in 1..wire.len() {
        let mut frames = Frames::after(24);
        let found: Vec<_> = wire.chunks(step).map(|chunk| frames.have_data(chunk)).collect();
        assert_eq!(found.iter().filter(|found| **found).count(), 1, "{step}");
        assert_eq!(found.iter().position(|found| *found), Some((quiet + 8) / step), "{step}");
    }
}
