//! Answers of our own, in forms that kubectl prints well: Kubernetes `Status` objects, and plain text for discovery,
//! where client-go reads no object from a failure.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// A failure that the gateway answers itself. `Retry-After` is set on 429 alone: client-go would try again ten times,
/// each after that time, and a server that cannot be reached should fail at once, as it does without us.
pub(crate) fn failure(code: StatusCode, message: &str) -> Response<Bytes> {
    let reason = match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::REQUEST_TIMEOUT => "Timeout",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    let again = match code {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => {
            status["details"] = json!({ "retryAfterSeconds": 1 });
            false
        }
        _ => false,
    };
    let mut response = Response::new(Bytes::from(status.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A failure for discovery (`/api`, `/apis`, `/version` ...). client-go shows nothing of a 503, so it becomes a 502.
pub(crate) fn discovery_failure(code: StatusCode, message: &str) -> Response<Bytes> {
    let mut response = failure(code, message);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if code == StatusCode::SERVICE_UNAVAILABLE {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
    response.map(|_| Bytes::from(message.to_owned()))
}
