//! A mesh in an API server, as `kubectl proxy` shows it: plain HTTP, so that neither TLS nor credentials are any affair of ours.
//!
//! Server-side apply of the documents of a file that differ from what it said before; objects that it named and names no more
//! are deleted. What an API server keeps in `status` (addresses of pods and load balancers) is applied there, too.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use thiserror::Error;

/// An answer takes some milliseconds; a server that is starved of CPU may take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// `HOST:PORT` of a `kubectl proxy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Api(String);

/// Why an object is not in the API server as it should be.
#[derive(Debug, Error)]
pub enum Error {
    /// No answer.
    #[error("{api}: {source} (`kubectl proxy --port PORT` has to run there)")]
    Unreachable {
        /// Where.
        api: String,
        /// Why.
        source: io::Error,
    },
    /// The API server said no.
    #[error("{object}: {api} says {status}: {reason}")]
    Refused {
        /// Which object.
        object: String,
        /// Who.
        api: String,
        /// The status of HTTP.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// A document that is no object.
    #[error("not a Kubernetes object: {0}")]
    Manifest(String),
}

/// As much of an object as says where it belongs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Name,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    namespace: Option<String>,
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            true => Ok(Self(address.to_owned())),
            false => Err(format!("{text:?} is not HOST:PORT of a `kubectl proxy`")),
        }
    }
}

impl TryFrom<String> for Api {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Api> for String {
    fn from(api: Api) -> Self {
        api.0
    }
}

impl Api {
    /// Makes the API server hold what a file says, which said `before` until now.
    pub fn change(&self, before: &str, now: &str) -> Result<(), Error> {
        let (before, now) = (documents(before), documents(now));
        let mut kept = Vec::new();
        for document in now {
            let object = Object::read(document)?;
            kept.push(object.path());
            if before.contains(&document) {
                continue;
            }
            self.apply(&object, "", document)?;
            if object.status.is_some() {
                self.apply(&object, "/status", document)?;
            }
        }
        for document in before {
            let object = Object::read(document)?;
            if !kept.contains(&object.path()) {
                // Nobody else would finish the deletion of a pod: there is no kubelet.
                let path = format!("{}?gracePeriodSeconds=0", object.path());
                self.send("DELETE", &path, "", &object, &[404])?;
            }
        }
        Ok(())
    }

    fn apply(&self, object: &Object, part: &str, document: &str) -> Result<(), Error> {
        let path = format!("{}{part}?fieldManager=xds-load&force=true", object.path());
        self.send("PATCH", &path, document, object, &[])
    }

    /// One request on a connection of its own; statuses in `also` are as good as success.
    fn send(&self, method: &str, path: &str, body: &str, object: &Object, also: &[u16]) -> Result<(), Error> {
        let answer = self
            .exchange(method, path, body)
            .map_err(|source| Error::Unreachable { api: self.0.clone(), source })?;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if (200..300).contains(&status) || also.contains(&status) {
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        let said = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
        let said = said.and_then(|json| serde_json::from_str::<Status>(json).ok());
        let reason = match said {
            Some(status) => status.message,
            None if status == 404 => "it does not know this kind: apply its CRD first".to_owned(),
            None => text.trim().chars().take(200).collect(),
        };
        Err(Error::Refused { object: object.to_string(), api: self.0.clone(), status, reason })
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/apply-patch+yaml\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.0,
            body.len(),
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The documents of a file as the mesh writes them.
fn documents(text: &str) -> Vec<&str> {
    let parts = text.split("---\n").map(str::trim_end);
    parts.filter(|part| part.lines().any(|line| !line.starts_with('#'))).collect()
}

impl Object {
    fn read(document: &str) -> Result<Self, Error> {
        serde_saphyr::from_str(document).map_err(|error| Error::Manifest(error.to_string()))
    }

    /// Where the API server has it.
    fn path(&self) -> String {
        let Self { api_version, kind, metadata: Name { name, namespace }, .. } = self;
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let namespace = namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        // So are the plurals of all kinds that a mesh has.
        let plural = kind.to_lowercase() + "s";
        format!("/{root}/{api_version}{namespace}/{plural}/{name}")
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, metadata: Name { name, namespace }, .. } = self;
        let namespace = namespace.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
        write!(f, "{kind} {namespace}{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::Api;
    use crate::mesh::{Change, Mesh, ServiceId, Slot, Spec, Write};

    /// Takes so many requests and answers them with this; gives their first lines back.
    fn server(requests: usize, answer: &'static str) -> (Api, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let serve = move || {
            let one = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut request, mut buffer) = (String::new(), [0; 4096]);
                let complete = |request: &str| {
                    let (head, body) = request.split_once("\r\n\r\n")?;
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
                    (body.len() >= length.parse().ok()?).then_some(())
                };
                while complete(&request).is_none() {
                    let read = stream.read(&mut buffer).unwrap();
                    assert!(read > 0, "a whole request: {request}");
                    request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                }
                stream.write_all(answer.as_bytes()).unwrap();
                request.lines().next().unwrap_or_default().to_owned()
            };
            (0..requests).map(one).collect()
        };
        (api, std::thread::spawn(serve))
    }

    fn text(write: &Write) -> &str {
        match write {
            Write::Put { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_changed_is_applied_and_what_vanished_is_deleted() {
        let mut mesh = Mesh::generate(Spec { services: 1, endpoints: 2, ..Spec::default() }).unwrap();
        let slot = Slot { service: ServiceId(0), cluster: 0, place: 0 };
        let ready = |mesh: &mut Mesh| mesh.apply(Change::Ready { slot, ready: false }).unwrap().writes;
        let before = ready(&mut mesh);
        let after = mesh.apply(Change::Replace { slot }).unwrap().writes;
        let (before, after) = (text(&before[0]), text(&after[0]));
        let (api, requests) = server(4, "HTTP/1.0 200 OK\r\n\r\n{}");
        api.change(before, after).unwrap();
        let requests = requests.join().unwrap();
        let said = |at: usize, method: &str, place: &str| {
            assert!(requests[at].starts_with(method) && requests[at].contains(place), "{requests:?}");
        };
        said(0, "PATCH", "/pods/service-0-");
        said(1, "PATCH", "/status?");
        said(2, "PATCH", "/apis/discovery.k8s.io/v1/namespaces/namespace-0/endpointslices/service-0-0?");
        said(3, "DELETE", "/api/v1/namespaces/namespace-0/pods/service-0-");
    }

    #[test]
    fn a_refusal_says_which_object_and_why() {
        let (api, requests) =
            server(1, "HTTP/1.0 422 Unprocessable Entity\r\n\r\n{\"message\":\"clusterIP is not in range\"}");
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n";
        let error = api.change("", service).unwrap_err().to_string();
        requests.join().unwrap();
        let (unknown, requests) = server(1, "HTTP/1.0 404 Not Found\r\n\r\n404 page not found\n");
        assert!(unknown.change("", service).unwrap_err().to_string().ends_with("CRD first"));
        requests.join().unwrap();
        assert!(
            error.starts_with("Service shop/a: ") && error.ends_with("422: clusterIP is not in range"),
            "{error}"
        );
        assert!("127.0.0.1".parse::<Api>().unwrap_err().contains("kubectl proxy"));
    }
}
