//! A request's head, read once: policy and forwarder both use what is read here.
//!
//! hyper gets a head of our own making ([`Head::for_hyper`]) with only what the connection needs, none of which it
//! refuses: it takes no target of more than 65,534 bytes, none with `"`, `<`, `>` or a backtick, and answers anything
//! that it refuses without a body. The API server takes all of those.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::{framing::Framing, room::Room};

/// Most fields of an answer's head. Before it reads a head, hyper clears an array with an entry for each: twice 32 KiB
/// cost less than a microsecond, twice 128 KiB a hundred. The API server's own warnings have 4 KiB together.
pub(crate) const ANSWER_FIELDS_MAX: usize = 1024;
/// Most fields of a request's head. Go limits only the bytes; a field costs us up to 200 bytes beside its own, so with
/// this limit fields cost no more than the longest head. A user has a field for each group.
pub(crate) const FIELDS_MAX: usize = 4096;
const _: () = assert!(FIELDS_MAX < 24_576, "`HeaderMap` panics beyond");
/// What `net/http` of Go, and so the API server, takes beyond its limit for a head.
pub(crate) const SLACK: usize = 4096;

/// A head that was read, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Head {
    /// `None` where it could not be read; then there is a problem.
    pub(crate) method: Option<Method>,
    pub(crate) target: Target,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    pub(crate) problem: Option<Problem>,
    /// How many bytes it holds.
    pub(crate) room: Option<Room>,
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// The end of a sentence.
    pub(crate) what: String,
    /// Neither a method nor a target could be read: this is no request.
    pub(crate) foreign: bool,
}

impl Problem {
    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    pub(crate) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self { status, what: what.into(), foreign: false }
    }
}

/// Path and query, as the client wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    text: String,
    question: Option<usize>,
}

impl Target {
    /// Parses the target of a request line: in origin form, or in absolute form, whose authority is ignored (RFC 9112,
    /// section 3.2.2).
    fn new(text: &str) -> Self {
        let absolute = ["http://", "https://"]
            .into_iter()
            .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
            .map(|scheme| &text[scheme.len()..]);
        let text = match absolute.map(|rest| &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(query) => format!("/{query}"),
            None => text.to_owned(),
        };
        Self { question: text.find('?'), text }
    }

    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }

    pub(crate) fn path(&self) -> &str {
        &self.text[..self.question.unwrap_or(self.text.len())]
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.question.map(|at| &self.text[at + 1..])
    }
}

impl Head {
    /// Reads a head that includes its empty line.
    pub(crate) fn read(bytes: &Bytes) -> Self {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(bytes) {
            Err(httparse::Error::TooManyHeaders) => {
                let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(bytes);
                Self::parsed(bytes, parsed, &request)
            }
            parsed => Self::parsed(bytes, parsed, &request),
        }
    }

    /// A head that is not read to its end because of `problem`. The bytes may be no head at all, or a body: only a
    /// whole request line is used.
    pub(crate) fn cut(bytes: &[u8], problem: Problem) -> Self {
        let mut request = httparse::Request::new(&mut []);
        let _ = request.parse(bytes);
        if request.version.is_none() {
            (request.method, request.path) = (None, None);
        }
        Self::known(&request, problem)
    }

    fn parsed(bytes: &Bytes, parsed: httparse::Result<usize>, request: &httparse::Request<'_, '_>) -> Self {
        let problem = match parsed {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {
                return Self::complete(bytes, request).unwrap_or_else(|problem| Self::known(request, problem));
            }
            Ok(_) => Problem::bad("has a head whose end is in doubt"),
            Err(httparse::Error::TooManyHeaders) => {
                Problem::new(too_large(), format!("has more than {FIELDS_MAX} header fields"))
            }
            Err(_) if request.method.is_none() => Problem { foreign: true, ..Problem::bad("is not HTTP/1.1") },
            Err(_) if request.path.is_none() => {
                Problem::bad("has a target with a space or a control character, or one that is no text")
            }
            Err(error) => Problem::bad(format!("has a head that cannot be read ({error})")),
        };
        Self::known(request, problem)
    }

    fn complete(bytes: &Bytes, request: &httparse::Request<'_, '_>) -> Result<Self, Problem> {
        let method =
            request.method.and_then(|method| method.parse().ok()).ok_or_else(|| Problem::bad("has no method"))?;
        let path = request.path.unwrap_or_default();
        if path.contains('#') {
            // The API server takes `#` for a part of the path; a proxy before it may take it for the end of the path.
            return Err(Problem::bad("has a `#` in its target, which clients keep to themselves"));
        }
        let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for field in &*request.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| Problem::new(too_large(), "has a header field with too long a name"))?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
                .map_err(|_| Problem::bad(format!("has a header field {name} with a control character")))?;
            headers.append(name, value);
        }
        let framing = Framing::of(&headers, version).map_err(Problem::bad)?;
        Ok(Self {
            method: Some(method),
            target: Target::new(path),
            version,
            headers,
            framing,
            problem: None,
            room: None,
        })
    }

    /// A head with a problem, and what is known of it.
    fn known(request: &httparse::Request<'_, '_>, problem: Problem) -> Self {
        Self {
            method: request.method.and_then(|method| method.parse().ok()),
            target: Target::new(request.path.unwrap_or_default()),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            framing: Framing::NONE,
            problem: Some(problem),
            room: None,
        }
    }

    /// Whether the connection may become something else after this request.
    pub(crate) fn upgrades(&self) -> bool {
        self.version == Version::HTTP_11 && self.headers.contains_key(header::UPGRADE) && self.connection_has("upgrade")
    }

    /// The head that hyper reads instead: version, length, and whether the connection is kept or upgraded.
    pub(crate) fn for_hyper(&self) -> Bytes {
        let method = if self.method == Some(Method::HEAD) { "HEAD" } else { "GET" };
        let new = self.version == Version::HTTP_11;
        let version = if new { "1.1" } else { "1.0" };
        let mut head = format!("{method} / HTTP/{version}\r\n");
        if self.problem.is_some() || self.connection_has("close") {
            head.push_str("connection: close\r\n");
        } else if self.upgrades() {
            head.push_str("connection: upgrade\r\nupgrade: any\r\n");
        } else if !new && self.connection_has("keep-alive") {
            head.push_str("connection: keep-alive\r\n");
        }
        match &self.framing {
            Framing::Length(0) => {}
            Framing::Length(length) => head.push_str(&format!("content-length: {length}\r\n")),
            Framing::Chunked(_) => head.push_str("transfer-encoding: chunked\r\n"),
        }
        let expects = self.headers.get(header::EXPECT);
        if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            head.push_str("expect: 100-continue\r\n");
        }
        head.push_str("\r\n");
        head.into()
    }

    fn connection_has(&self, option: &str) -> bool {
        let values = self.headers.get_all(header::CONNECTION).iter();
        values
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    }
}

pub(crate) fn too_large() -> StatusCode {
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Head {
        Head::read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_target_is_what_was_written() {
        for target in [
            "/",
            "/a?b=\"<>`^|\\{}[]",
            "/a?",
            "/a?b?c",
            "/gr\u{fc}\u{df}e?\u{fc}",
            "*",
            "/<a>\"`",
            &format!("/a?{}", "x".repeat(1 << 20)),
        ] {
            let head = read(&format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert_eq!((head.target.as_str(), &head.problem), (target, &None));
            let rejoined = match head.target.query() {
                Some(query) => format!("{}?{query}", head.target.path()),
                None => head.target.path().to_owned(),
            };
            assert_eq!(rejoined, target);
        }
        for (target, expected) in [
            ("http://x/a?b", "/a?b"),
            ("HTTPS://x:1", "/"),
            ("http://x?a=http://y/", "/?a=http://y/"),
            ("https:/x", "https:/x"),
        ] {
            assert_eq!(read(&format!("GET {target} HTTP/1.1\r\n\r\n")).target.as_str(), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_known() {
        let many = format!("GET /a HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        for (text, status, foreign) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", 400, true),
            ("PRI * HTTP/2.0\r\n\r\n", 400, false),
            ("GET /a b HTTP/1.1\r\n\r\n", 400, false),
            ("GET /a\u{7f} HTTP/1.1\r\n\r\n", 400, false),
            ("GET /a#b HTTP/1.1\r\n\r\n", 400, false),
            ("GET /a HTTP/1.1\r\na b: c\r\n\r\n", 400, false),
            ("GET /a HTTP/1.1\r\na : c\r\n\r\n", 400, false),
            ("GET /a HTTP/1.1\r\na: b\r\n c\r\n\r\n", 400, false),
            ("GET /a HTTP/1.1\r\na: \u{b}\r\n\r\n", 400, false),
            ("GET /a HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, false),
            (&many, 431, false),
        ] {
            let head = read(text);
            let problem = head.problem.as_ref().expect(text);
            assert_eq!((problem.status.as_u16(), problem.foreign), (status, foreign), "{problem:?}");
            assert_eq!(head.for_hyper(), "GET / HTTP/1.1\r\nconnection: close\r\n\r\n");
            if text.starts_with("GET /a H") {
                assert_eq!(head.target.as_str(), "/a");
            }
        }
        assert!(read(&many.replacen("a: b\r\n", "", 1)).problem.is_none());
        assert!(read("GET /a HTTP/1.1\r\na: b\r\n").problem.is_some());
    }

    #[test]
    fn hyper_sees_what_the_connection_needs() {
        for (head, expected) in [
            ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y\r\n", "GET / HTTP/1.1\r\ncontent-length: 3\r\n"),
            ("HEAD /x HTTP/1.0\r\nConnection: Keep-Alive\r\n", "HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n"),
            (
                "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\nConnection: x, Close\r\n",
                "GET / HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n",
            ),
            (
                "GET /x HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
                "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: any\r\n",
            ),
            ("GET /x HTTP/1.1\r\nUpgrade: websocket\r\n", "GET / HTTP/1.1\r\n"),
            ("GET /x HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "GET / HTTP/1.0\r\n"),
        ] {
            assert_eq!(read(&format!("{head}\r\n")).for_hyper(), format!("{expected}\r\n"), "{head}");
        }
    }
}
