//! The server: one thread, one task per connection.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::Notify,
    task::{LocalSet, spawn_local},
    time::timeout,
};

use super::{
    connection::Connection,
    cpu,
    frames::{self, Frames, Protocol, Sizes},
    wire::Heard,
};
use crate::{expect::Type, wire::type_of};

/// Connections that the kernel holds until they are accepted: a storm must not wait for repeated SYNs.
const BACKLOG: u32 = 4096;
/// How long ACKs of a push are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A floor that listens. Runs on the thread that calls [`Floor::run`].
#[derive(Debug)]
pub struct Floor {
    listener: TcpListener,
    control: UdpSocket,
    tls: Option<Arc<ServerConfig>>,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sizes: Sizes,
    frames: Frames,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    scratch: RefCell<Box<[u8]>>,
    /// The last push, and how many have acknowledged it.
    pushed: Cell<u64>,
    acknowledged: Cell<u64>,
    heard: Notify,
}

/// What one push cost, and what the server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Connections.
    pub connections: usize,
    /// Streams that have asked for endpoints, and were sent the push.
    pub streams: u64,
    /// Of these, how many acknowledged it.
    pub acknowledged: u64,
    /// Until all was written.
    pub write_seconds: f64,
    /// Until the last ACK.
    pub acknowledged_seconds: f64,
    /// The server's CPU from the order to the last ACK.
    pub cpu_seconds: f64,
    /// The same for each stream: one write, and one ACK that is read.
    pub cpu_microseconds_per_stream: f64,
}

impl Floor {
    /// Binds a TCP port for clients, and the UDP port of the same number for orders.
    pub fn bind(listen: SocketAddr, tls: Option<Arc<ServerConfig>>, sizes: Sizes) -> io::Result<Self> {
        let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        let listener = socket.listen(BACKLOG)?;
        let control = std::net::UdpSocket::bind(listener.local_addr()?)?;
        control.set_nonblocking(true)?;
        let shared = Shared {
            sizes,
            frames: Frames::new(sizes),
            connections: RefCell::default(),
            scratch: RefCell::new(vec![0; 64 << 10].into()),
            pushed: Cell::new(0),
            acknowledged: Cell::new(0),
            heard: Notify::new(),
        };
        Ok(Self { listener, control: UdpSocket::from_std(control)?, tls, shared: Rc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until its sockets fail. With an interval it pushes by itself, too, and tells what each push cost.
    pub async fn run(self, every: Option<Duration>, tell: impl Fn(Totals) + 'static) -> io::Result<()> {
        let Self { listener, control, tls, shared } = self;
        let local = LocalSet::new();
        let orders = shared.clone();
        local.spawn_local(async move {
            if let Err(error) = obey(&orders, &control).await {
                eprintln!("no more orders are taken: {error}");
            }
        });
        if let Some(every) = every {
            let shared = shared.clone();
            local.spawn_local(async move {
                loop {
                    tokio::time::sleep(every).await;
                    tell(shared.push(shared.pushed.get() + 1).await);
                }
            });
        }
        local.run_until(accept(listener, tls, shared)).await
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, shared: Rc<Shared>) -> io::Result<()> {
    let mut id = 0;
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            // Out of file descriptors: others have to end first.
            Err(error) => {
                eprintln!("cannot accept: {error}; raise the limit of open files (ulimit -n)");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        id += 1;
        let (shared, tls) = (shared.clone(), tls.clone());
        spawn_local(async move {
            // A client that leaves or misbehaves ends its own connection only.
            let _ = serve(&shared, id, socket, tls).await;
            shared.connections.borrow_mut().remove(&id);
        });
    }
}

async fn serve(
    shared: &Rc<Shared>,
    id: u64,
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let tls = tls.map(ServerConnection::new).transpose().map_err(io::Error::other)?;
    let connection = Rc::new(Connection::new(socket, tls));
    shared.connections.borrow_mut().insert(id, connection.clone());
    loop {
        connection.readable().await?;
        let mut over = false;
        while let Some(read) = shared.read(&connection)? {
            over |= read;
            if over {
                break;
            }
        }
        flush(&connection)?;
        if over {
            return Ok(());
        }
    }
}

/// Writes, and leaves the rest to a task that waits for the socket.
fn flush(connection: &Rc<Connection>) -> io::Result<()> {
    if connection.flush()? || connection.finishing.replace(true) {
        return Ok(());
    }
    let connection = connection.clone();
    spawn_local(async move {
        // A broken socket is noticed by its reader.
        while connection.writable().await.is_ok() && connection.flush().is_ok_and(|done| !done) {}
        connection.finishing.set(false);
    });
    Ok(())
}

impl Shared {
    /// Reads once. None: nothing was there; true: the connection is over.
    fn read(&self, connection: &Connection) -> io::Result<Option<bool>> {
        let mut scratch = self.scratch.borrow_mut();
        let Some(read) = connection.read(&mut scratch)? else { return Ok(None) };
        let mut over = read == 0;
        let mut asked = Vec::new();
        let told = connection.wire.borrow_mut().receive(&scratch[..read], |heard| match heard {
            Heard::Asked(protocol, url) => asked.push((protocol, url)),
            Heard::Acknowledged(number) if number != 0 && number == self.pushed.get() => {
                self.acknowledged.set(self.acknowledged.get() + 1);
                self.heard.notify_one();
            }
            Heard::Acknowledged(_) => {}
            Heard::Ended => over = true,
        });
        told.map_err(io::Error::other)?;
        for (protocol, url) in asked {
            connection.push(self.frames.answer(protocol, &url));
            if type_of(&url) == Some(Type::Endpoint) {
                connection.follows.set(Some(protocol));
            }
        }
        Ok(Some(over))
    }

    /// Sends the assignment with this number to every stream that asked for it; waits for the ACKs.
    async fn push(&self, number: u64) -> Totals {
        let (cpu, began) = (cpu::of_this_thread(), Instant::now());
        self.pushed.set(number);
        self.acknowledged.set(0);
        let frames = [Protocol::Delta, Protocol::Sotw]
            .map(|protocol| (protocol, frames::push(protocol, number, self.sizes.push)));
        let mut streams = 0;
        for connection in self.connections.borrow().values() {
            let wanted = connection.follows.get();
            let Some((_, frames)) = frames.iter().find(|(p, _)| Some(*p) == wanted) else { continue };
            streams += 1;
            connection.push(frames.clone());
            let _ = flush(connection); // a broken socket is noticed by its reader
        }
        let write_seconds = began.elapsed().as_secs_f64();
        let all = async {
            while self.acknowledged.get() < streams {
                self.heard.notified().await;
            }
        };
        // Who has not answered by then is missing in the count.
        let _ = timeout(PATIENCE, all).await;
        let cpu_seconds = (cpu::of_this_thread() - cpu).as_secs_f64();
        Totals {
            connections: self.connections.borrow().len(),
            streams,
            acknowledged: self.acknowledged.get(),
            write_seconds,
            acknowledged_seconds: began.elapsed().as_secs_f64(),
            cpu_seconds,
            cpu_microseconds_per_stream: cpu_seconds * 1e6 / streams.max(1) as f64,
        }
    }
}

/// `push 7`, answered with what it cost as JSON.
async fn obey(shared: &Shared, control: &UdpSocket) -> io::Result<()> {
    let mut order = [0; 64];
    loop {
        let (length, from) = control.recv_from(&mut order).await?;
        let number = std::str::from_utf8(&order[..length]).ok().and_then(|text| text.strip_prefix("push "));
        let Some(number) = number.and_then(|text| text.trim().parse().ok()) else { continue };
        let totals = shared.push(number).await;
        control.send_to(&serde_json::to_vec(&totals).unwrap_or_default(), from).await?;
    }
}
