//! From header fields to a request.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

/// Fields that speak of a connection, which HTTP/2 does not carry (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [&[u8]; 5] =
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

/// The fields of a header block, as they come.
#[derive(Debug, Default)]
pub struct Head {
    method: Option<Method>,
    path: Option<Uri>,
    has_scheme: bool,
    has_authority: bool,
    headers: HeaderMap,
    /// The pseudo-headers are over.
    regular: bool,
    malformed: bool,
}

impl Head {
    /// Takes a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.malformed |= self.take(name, value).is_none();
    }

    /// None: this is not allowed.
    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let once = |seen: &mut bool| (!std::mem::replace(seen, true)).then_some(());
        if name.starts_with(b":") && self.regular {
            return None;
        }
        match name {
            b":method" => none(self.method.replace(Method::from_bytes(value).ok()?)),
            // `*` and a whole URI mean nothing here.
            b":path" if value.starts_with(b"/") => none(self.path.replace(value.try_into().ok()?)),
            b":scheme" => once(&mut self.has_scheme),
            b":authority" => once(&mut self.has_authority),
            [b':', ..] => None,
            b"te" if value != b"trailers" => None,
            _ if OF_CONNECTIONS.contains(&name) || name.iter().any(u8::is_ascii_uppercase) => None,
            _ => {
                self.regular = true;
                let (name, value) =
                    (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
                self.headers.try_append(name, value).ok().map(drop)
            }
        }
    }

    /// Whether this may be the trailers of a request.
    pub fn are_trailers(&self) -> bool {
        let pseudo = self.has_scheme || self.has_authority || self.method.is_some() || self.path.is_some();
        !self.malformed && !pseudo
    }

    /// How long the body is, if the client says so.
    pub fn length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The request. None: it is malformed (RFC 9113, 8.1.1).
    pub fn request<B>(self, body: B) -> Option<Request<B>> {
        if self.malformed || !self.has_scheme {
            return None;
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method?;
        *request.uri_mut() = self.path?;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

fn none<T>(before: Option<T>) -> Option<()> {
    before.is_none().then_some(())
}
