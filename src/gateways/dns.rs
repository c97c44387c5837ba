//! Asking the system's name servers.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use hickory_resolver::{
    ResolverBuilder, TokioResolver, config::LookupIpStrategy, net::runtime::TokioRuntimeProvider,
};

use super::names::Answer;

/// Asks what a name means.
pub type Lookup = Arc<dyn Fn(Arc<str>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// For one server and one attempt.
const TIMEOUT: Duration = Duration::from_secs(2);

/// By `/etc/resolv.conf` as it is when a name is asked for, and `/etc/hosts`.
pub fn system() -> Lookup {
    Arc::new(|host| {
        async move {
            let builder = TokioResolver::builder_tokio()
                .map_err(|error| format!("the system's name servers are not known: {error}"))?;
            ask(builder, &host).await
        }
        .boxed()
    })
}

/// IPv4 addresses if there are some: a gateway with both is the same gateway, and not every pod has IPv6.
async fn ask(mut builder: ResolverBuilder<TokioRuntimeProvider>, host: &str) -> Answer {
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.timeout = TIMEOUT;
    // Answers are kept by whoever asks.
    options.cache_size = 0;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    // With the dot at its end no search domain is tried.
    let absolute = format!("{}.", host.trim_end_matches('.'));
    let found = resolver.lookup_ip(absolute).await.map_err(|error| error.to_string())?;
    let addresses: Vec<IpAddr> = found.iter().collect();
    Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use hickory_resolver::{
        config::{NameServerConfig, ResolverConfig},
        proto::{
            op::{Message, ResponseCode},
            rr::{RData, Record, RecordType},
        },
    };
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows one name, with two IPv4 addresses.
    async fn serve() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let at = socket.local_addr().expect("its address");
        tokio::spawn(async move {
            let mut bytes = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let asked = Message::from_vec(&bytes[..length]).expect("a question");
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.add_query(query.clone());
                if query.name().to_ascii() != "gateway.example.com." {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                } else if query.query_type() == RecordType::A {
                    for last in [2, 1] {
                        let data = RData::A(Ipv4Addr::new(192, 0, 2, last).into());
                        answer.add_answer(Record::from_rdata(query.name().clone(), 90, data));
                    }
                }
                let bytes = answer.to_vec().expect("bytes");
                socket.send_to(&bytes, from).await.expect("it is sent");
            }
        });
        at
    }

    fn builder(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
        let mut name_server = NameServerConfig::udp(server.ip());
        name_server.connections[0].port = server.port();
        let config = ResolverConfig::from_parts(None, vec![], vec![name_server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    }

    #[tokio::test]
    async fn all_addresses_come_with_their_ttl() {
        let server = serve().await;
        let (mut addresses, ttl) = ask(builder(server), "gateway.example.com").await.expect("an answer");
        addresses.sort();
        assert_eq!(addresses, [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from));
        assert!((85..=90).contains(&ttl.as_secs()), "{ttl:?}");
        let none = ask(builder(server), "nobody.example.com").await;
        assert!(none.is_err_and(|why| !why.is_empty()));
    }
}
