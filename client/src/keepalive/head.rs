//! Whether an HTTP/1.1 head asks for a WebSocket, or grants one.

use httparse::{EMPTY_HEADER, Header, Request, Response, Status};

/// Longest head of a request that is parsed; the agent and the API server take none longer.
pub(super) const REQUEST_MAX: usize = 1024 * 1024 + 4096;
/// Longest head of an answer that is parsed. An API server's 101 has about 200 bytes.
pub(super) const RESPONSE_MAX: usize = 16 * 1024;
/// Room for as many headers as most heads have: kubectl sends about ten.
const HEADERS: usize = 100;
/// Most headers of a request that are parsed, as many as the agent takes: one for each group of `--as-group`.
const HEADERS_MAX: usize = 4096;

/// What a head is, as far as it has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// It is not whole yet.
    Partial,
    /// Its length: it asks for a WebSocket, or grants it.
    WebSocket(usize),
    /// Its length: a preliminary answer (1xx).
    Interim(usize),
    /// Anything else.
    Other,
}

/// Reads the head of a request, of whose bytes those before `seen` have been read.
pub(super) fn request(bytes: &[u8], seen: usize) -> Head {
    request_with(bytes, seen, &mut [EMPTY_HEADER; HEADERS])
        .or_else(|error| match error {
            httparse::Error::TooManyHeaders => request_with(bytes, seen, &mut vec![EMPTY_HEADER; HEADERS_MAX]),
            error => Err(error),
        })
        .unwrap_or(Head::Other)
}

fn request_with<'b>(bytes: &'b [u8], seen: usize, headers: &mut [Header<'b>]) -> Result<Head, httparse::Error> {
    let mut request = Request::new(headers);
    Ok(match parsed(bytes, seen, REQUEST_MAX, || request.parse(bytes))? {
        Status::Partial => Head::Partial,
        Status::Complete(len) if request.method == Some("GET") && upgrades(request.headers) => Head::WebSocket(len),
        Status::Complete(_) => Head::Other,
    })
}

/// Reads the head of its answer, of whose bytes those before `seen` have been read.
pub(super) fn response(bytes: &[u8], seen: usize) -> Head {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = Response::new(&mut headers);
    match parsed(bytes, seen, RESPONSE_MAX, || response.parse(bytes)) {
        Ok(Status::Partial) => Head::Partial,
        Ok(Status::Complete(len)) => match response.code {
            Some(101) if upgrades(response.headers) => Head::WebSocket(len),
            Some(100 | 102..=199) => Head::Interim(len),
            _ => Head::Other,
        },
        Err(_) => Head::Other,
    }
}

/// Parses a head when a line has ended, and only up to `max` bytes.
fn parsed(
    bytes: &[u8],
    seen: usize,
    max: usize,
    parse: impl FnOnce() -> httparse::Result<usize>,
) -> httparse::Result<usize> {
    let status = if bytes[seen..].contains(&b'\n') { parse()? } else { Status::Partial };
    let len = match status {
        Status::Partial => bytes.len(),
        Status::Complete(len) => len,
    };
    if len > max { Err(httparse::Error::TooManyHeaders) } else { Ok(status) }
}

/// RFC 6455, sections 4.1 and 4.2.2: `Upgrade` is the one word `websocket`, in any case.
fn upgrades(headers: &[Header<'_>]) -> bool {
    let mut upgrades = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
    upgrades.next().is_some_and(|header| header.value.trim_ascii().eq_ignore_ascii_case(b"websocket"))
        && upgrades.next().is_none()
}
