//! A socket of the floor, with or without TLS: writes what is queued as far as it goes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    rc::Rc,
};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use super::{frames::Protocol, wire::Wire};

/// A connection. One thread has them all.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    tls: Option<RefCell<Box<ServerConnection>>>,
    /// What the client said and may be told.
    pub wire: RefCell<Wire>,
    queue: RefCell<VecDeque<Queued>>,
    /// A task waits for the socket, to write the rest.
    pub finishing: Cell<bool>,
    /// Set once the client has asked for endpoints.
    pub follows: Cell<Option<Protocol>>,
}

#[derive(Debug)]
struct Queued {
    bytes: Rc<[u8]>,
    written: usize,
    /// What the windows allow.
    allowed: usize,
    /// Not DATA: no window is asked.
    control: bool,
}

impl Connection {
    /// Takes over an accepted socket.
    pub fn new(socket: TcpStream, tls: Option<ServerConnection>) -> Self {
        Self {
            socket,
            tls: tls.map(Box::new).map(RefCell::new),
            wire: RefCell::default(),
            queue: RefCell::default(),
            finishing: Cell::new(false),
            follows: Cell::new(None),
        }
    }

    /// Queues whole DATA frames.
    pub fn push(&self, bytes: Rc<[u8]>) {
        self.queue.borrow_mut().push_back(Queued { bytes, written: 0, allowed: 0, control: false });
    }

    /// Writes until all is written, or the window is used up (true), or the socket is full (false).
    pub fn flush(&self) -> io::Result<bool> {
        let mut wire = self.wire.borrow_mut();
        let mut queue = self.queue.borrow_mut();
        if !wire.out.is_empty() {
            let bytes: Rc<[u8]> = std::mem::take(&mut wire.out).into();
            let control = Queued { allowed: bytes.len(), bytes, written: 0, control: true };
            // Not into the middle of a frame, and behind its like.
            let place = queue.iter().take_while(|next| next.control || next.written < next.allowed).count();
            queue.insert(place, control);
        }
        while let Some(next) = queue.front_mut() {
            if next.written == next.allowed && !next.control {
                next.allowed += wire.allowed(&next.bytes[next.allowed..]);
            }
            while next.written < next.allowed {
                match self.write(&next.bytes[next.written..next.allowed]) {
                    Ok(n) => next.written += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if next.written < next.bytes.len() {
                break;
            }
            queue.pop_front();
        }
        self.write_tls()
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.try_write(bytes) };
        let taken = tls.borrow_mut().writer().write(bytes)?;
        if !self.write_tls()? && taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Writes what TLS has ready; false if the socket is full.
    fn write_tls(&self) -> io::Result<bool> {
        let Some(tls) = &self.tls else { return Ok(true) };
        let mut tls = tls.borrow_mut();
        while tls.wants_write() {
            match tls.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads what is there; none when nothing is, 0 at the end.
    pub fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match &self.tls {
            None => self.socket.try_read(into),
            Some(tls) => read_tls(&mut tls.borrow_mut(), &self.socket, into),
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        }
    }

    /// Waits until there is something to read.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until the socket takes something.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }
}

fn read_tls(tls: &mut ServerConnection, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.read_tls(&mut Socket(socket))? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

struct Socket<'a>(&'a TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
