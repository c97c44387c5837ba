//! Sends every request's body back, on the address given: something for conformance suites such as h2spec to talk to.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use lean_http2::server::{Answer, Connection, Incoming, Reset, Settings};
use tokio::net::TcpListener;

struct Echo(Incoming);

impl Body for Echo {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

fn echo(request: Request<Incoming>) -> Answer<Echo> {
    Box::pin(async move { Response::new(Echo(request.into_body())) })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (socket, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = Connection::new(socket, Settings::default(), echo).await {
                println!("{peer}: {error}");
            }
        });
    }
}
