//! From a request to its answer: what is asked before any call is.

use axum::{
    BoxError,
    body::{Body, HttpBody},
    response::IntoResponse as _,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use tower_service::Service as _;

use crate::{
    PublicUrl,
    again::until_alone,
    arrival::Arrival,
    control,
    failure::{Changed, Failure},
    origin, pages,
    portal::Portal,
    socket::Serve,
};

impl Portal {
    /// The answer to one request. Nothing in it can panic this thread's other work, and none of it takes long but for the
    /// database.
    pub async fn answer<B>(&self, request: Request<B>, arrival: Arrival) -> Response<Full<Bytes>>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
    {
        let path = request.uri().path().to_owned();
        let origin = origin::of(request.headers()).cloned();
        let preflight = is_preflight(&request);
        let mut answer = match self.admit(&request, &path, arrival) {
            Err(failure) => whole(failure.into_response()).await,
            Ok(()) if preflight => with_status(StatusCode::NO_CONTENT),
            Ok(()) => self.route(request, arrival).await,
        };
        let failure = answer.extensions_mut().remove::<Failure>();
        if let Some(failure) = failure.filter(|failure| failure.is_page() || pages::paths::has(&path)) {
            answer = whole(pages::show(self.shared(), &failure)).await;
        }
        self.shared().origins.share(&path, origin.as_ref(), preflight, answer.headers_mut());
        let headers = answer.headers_mut();
        // Answers are one person's, and hold tokens.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    /// Whether a WebSocket may be opened here, and what serves it then; else the answer.
    ///
    /// # Errors
    /// The answer to be given instead.
    pub async fn accept(&self, request: &Request<()>, arrival: Arrival) -> Result<Serve, Response<Full<Bytes>>> {
        let accepted = match self.admit(request, request.uri().path(), arrival) {
            Ok(()) => control::accept(self.shared(), request.headers(), arrival).await,
            Err(failure) => Err(failure.into()),
        };
        match accepted {
            Ok(serve) => Ok(serve),
            Err(refused) => Err(whole(refused.into_response()).await),
        }
    }

    fn admit<B>(&self, request: &Request<B>, path: &str, arrival: Arrival) -> Result<(), Failure> {
        let shared = self.shared();
        if path != "/health" {
            self.check_way(request, arrival)?;
        }
        let (method, headers) = (request.method(), request.headers());
        if !shared.origins.admits(method, path, headers) || shared.origins.is_drive_by(method, path, headers) {
            return Err(Failure::json(StatusCode::FORBIDDEN, "this origin is not allowed"));
        }
        let admitted = shared.limits.admit(request.method(), path, arrival.address, shared.now());
        admitted.map_err(Failure::too_many)
    }

    /// Refuses what somebody else could have read on its way, or sent by another's hand.
    fn check_way<B>(&self, request: &Request<B>, arrival: Arrival) -> Result<(), Failure> {
        let refused = |text| Err(Failure::json(StatusCode::FORBIDDEN, text));
        if !arrival.is_private {
            if !arrival.address.to_canonical().is_loopback() {
                return refused(
                    "signing in needs https: by --tls-cert on this relay, or by a proxy that it knows as --trusted-proxy",
                );
            }
            // From this machine, and yet somebody else's: a proxy that nobody declared.
            if PROXIED.iter().any(|name| request.headers().contains_key(*name)) {
                return refused(
                    "this came through a proxy that the relay does not know, or over plain http to one that it does: \
                     serve https there, and name it with --trusted-proxy",
                );
            }
        }
        // A page may have its name resolved to this machine, and a tunnel may end here: either names another host.
        if self.shared().settings.dev.is_some() && !hosts(request).all(is_loopback) {
            return refused("dev mode is for this machine alone: reach it as http://127.0.0.1 or http://localhost");
        }
        Ok(())
    }

    async fn route<B>(&self, request: Request<B>, arrival: Arrival) -> Response<Full<Bytes>>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        let settings = &self.shared().settings;
        let body = match timeout(settings.body_time, Limited::new(body, settings.body_max).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(cut)) if cut.is::<LengthLimitError>() => {
                return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large").await;
            }
            Ok(Err(_)) => return error(StatusCode::BAD_REQUEST, "the body cannot be read").await,
            Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time").await,
        };
        let call = || {
            let mut request = Request::from_parts(head.clone(), Body::from(body.clone()));
            request.extensions_mut().insert(arrival);
            let mut router = self.router();
            async move {
                let Ok(answer) = router.call(request).await;
                answer
            }
        };
        whole(until_alone(call, |answer| answer.extensions().get::<Changed>().is_some()).await).await
    }
}

/// What proxies add, RFC 7239 and RFC 9110 section 7.6.3.
const PROXIED: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// What the request says it is for: `Host`, and the target where that is a whole address.
fn hosts<B>(request: &Request<B>) -> impl Iterator<Item = &str> {
    let named = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    named.chain(request.uri().authority().map(http::uri::Authority::as_str))
}

fn is_loopback(host: &str) -> bool {
    PublicUrl::parse(&format!("http://{host}")).is_ok_and(|url| url.is_loopback())
}

async fn error(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    whole(Failure::json(status, text).into_response()).await
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn with_status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::default();
    *answer.status_mut() = status;
    answer
}

/// Calls answer with bodies that are already there.
async fn whole(answer: Response<Body>) -> Response<Full<Bytes>> {
    let (head, body) = answer.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(head, Full::new(body.to_bytes())),
        Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
