//! How a connection is refused for which there is no stream: with a Kubernetes `Status`, at once, instead of silence.

use std::time::Duration;

use mykube_dial::drain;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// How long a connection waits for a stream: others may be short requests that end soon.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// How long reading its request may take, and then waiting for its end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of its request that are read before the answer, so that kubectl gets to reading it.
const READ: usize = 8 * 1024;

/// For the client's user, and for kubectl's.
pub(crate) const ALL_IN_USE: &str = "all connections of this session are in use, by watches, logs or exec that go on; end some, or \
     use a session of its own (docs/guarded.md, Limits)";

/// Answers the one request of a connection with 429. Not with `Retry-After`: client-go would try again ten times.
pub(crate) async fn refuse(mut connection: impl AsyncRead + AsyncWrite + Unpin) {
    let refused = async {
        let mut begin = [0; READ];
        let len = connection.read(&mut begin).await?;
        if len == 0 {
            return Ok(());
        }
        let answer = answer(is_discovery(&begin[..len]));
        connection.write_all(answer.as_bytes()).await?;
        connection.shutdown().await?;
        drain(&mut connection).await;
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(REQUEST_TIMEOUT, refused).await;
}

fn answer(discovery: bool) -> String {
    // client-go shows nothing of a 429 to discovery.
    let (status, kind, body) = if discovery {
        ("502 Bad Gateway", "text/plain; charset=utf-8", format!("mykube: {ALL_IN_USE}"))
    } else {
        let body = format!(
            r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"mykube: {ALL_IN_USE}","reason":"TooManyRequests","code":429}}"#
        );
        ("429 Too Many Requests", "application/json", body)
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nCache-Control: no-cache, private\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Whether a request asks what the API server offers, judged by its first line.
fn is_discovery(begin: &[u8]) -> bool {
    let line = begin.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = String::from_utf8_lossy(line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()).into_owned();
    let parts: Vec<_> = path.split('?').next().unwrap_or_default().trim_matches('/').split('/').collect();
    match parts[..] {
        ["api", ..] => parts.len() < 3,
        ["apis", ..] => parts.len() < 4,
        ["openapi" | "version" | "healthz" | "livez" | "readyz", ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_comes_once_there_is_a_request() {
        for (request, status) in [
            ("GET /api/v1/pods?limit=500 HTTP/1.1\r\n\r\n", "429 "),
            ("GET /apis/apps/v1/deployments HTTP/1.1\r\n\r\n", "429 "),
            ("GET /metrics HTTP/1.1\r\n\r\n", "429 "),
            ("GET /apis?x HTTP/1.1\r\n\r\n", "502 "),
            ("GET /apis/apps/v1 HTTP/1.1\r\n\r\n", "502 "),
            ("GET /version HTTP/1.1\r\n\r\n", "502 "),
        ] {
            let (mut near, far) = tokio::io::duplex(16 * 1024);
            let refusing = tokio::spawn(refuse(far));
            near.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            drop(near);
            refusing.await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            if status == "429 " {
                let status: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(
                    (&status["kind"], &status["message"]),
                    (&"Status".into(), &format!("mykube: {ALL_IN_USE}").into())
                );
            } else {
                assert_eq!(body, format!("mykube: {ALL_IN_USE}"));
            }
        }
    }
}
