//! Which class of token opens which call, and from where it is taken.

use super::*;

/// What is shown, in columns.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Nothing,
    /// `Authorization: Bearer`.
    Bearer(Class),
    /// `lukan_token`, of a page of the relay's own.
    Published(Class),
    /// `__Host-mykube` alone.
    Own,
    /// Both cookies of one sign-in.
    Both,
    /// `lukan_token` of class `browser`, of a page that `allow_origin` names.
    Elsewhere,
    /// Field `jwt` of the body.
    Body(Class),
}

const COLUMNS: [(&str, Shown); 16] = [
    ("nothing", Shown::Nothing),
    ("Bearer mykube", Shown::Bearer(Class::Mykube)),
    ("Bearer devices", Shown::Bearer(Class::Devices)),
    ("Bearer daemon", Shown::Bearer(Class::Daemon)),
    ("Bearer browser", Shown::Bearer(Class::Browser)),
    ("lukan_token mykube", Shown::Published(Class::Mykube)),
    ("lukan_token devices", Shown::Published(Class::Devices)),
    ("lukan_token daemon", Shown::Published(Class::Daemon)),
    ("lukan_token browser", Shown::Published(Class::Browser)),
    ("__Host-mykube", Shown::Own),
    ("both cookies", Shown::Both),
    ("lukan_token, allow_origin", Shown::Elsewhere),
    ("jwt mykube", Shown::Body(Class::Mykube)),
    ("jwt devices", Shown::Body(Class::Devices)),
    ("jwt daemon", Shown::Body(Class::Daemon)),
    ("jwt browser", Shown::Body(Class::Browser)),
];

/// What each call answers, in the order of the columns. Where all cells are the same, nothing that is shown opens it.
#[rustfmt::skip]
pub(super) const ROWS: [(&str, [u16; 16]); 43] = [
    ("DELETE /v1/agents/{name}", [401, 404, 401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 401, 401, 401, 401]),
    ("DELETE /v1/agents/{name}/token", [401, 404, 401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 401, 401, 401, 401]),
    ("GET /", [303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303]),
    ("GET /auth/callback", [404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404]),
    ("GET /auth/callback/{provider}", [404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404]),
    ("GET /auth/dev", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET /auth/status", [401, 401, 401, 401, 401, 401, 401, 401, 200, 401, 200, 200, 401, 401, 401, 401]),
    ("GET /auth/{provider}", [404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404]),
    ("GET /device", [303, 303, 303, 303, 303, 303, 303, 303, 303, 200, 200, 303, 303, 303, 303, 303]),
    ("GET /health", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET /portal", [303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303, 303]),
    ("GET /portal/", [303, 303, 303, 303, 303, 303, 303, 303, 303, 200, 200, 303, 303, 303, 303, 303]),
    ("GET /portal/confirm", [303, 303, 303, 303, 303, 303, 303, 303, 303, 400, 400, 303, 303, 303, 303, 303]),
    ("GET /portal/invitation", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET /portal/sessions", [303, 303, 303, 303, 303, 303, 303, 303, 303, 200, 200, 303, 303, 303, 303, 303]),
    ("GET /portal/sign-in", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET /v1/agents", [401, 200, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
    ("GET /v1/audit", [401, 200, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
    ("GET /v1/whoami", [401, 200, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
    ("POST /auth", [404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404]),
    ("POST /auth/dev", [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
    ("POST /auth/dev/token", [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
    ("POST /auth/device", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("POST /auth/device/poll", [422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422]),
    ("POST /auth/device/verify", [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 200, 200, 401, 401, 401, 401]),
    ("POST /auth/exchange", [422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422]),
    ("POST /auth/logout", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("POST /auth/otp/request", [422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422]),
    ("POST /auth/otp/verify", [422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422, 422]),
    ("POST /auth/refresh", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 401, 200, 401, 401]),
    ("POST /auth/refresh/received", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400]),
    ("POST /auth/revoke", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 200, 200, 200, 200]),
    ("POST /device", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /device/answer", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /portal/confirm", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /portal/sessions/end", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /portal/sessions/end-others", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /portal/sign-in/code", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 403, 400, 400, 400, 400]),
    ("POST /portal/sign-in/dev", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 403, 400, 400, 400, 400]),
    ("POST /portal/sign-in/email", [400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 403, 400, 400, 400, 400]),
    ("POST /portal/sign-out", [401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 403, 403, 401, 401, 401, 401]),
    ("POST /v1/agents", [401, 201, 401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 422, 422, 422, 422]),
    ("POST /v1/agents/{name}/token", [401, 404, 401, 401, 401, 401, 401, 401, 401, 401, 401, 403, 400, 400, 400, 400]),
];

#[tokio::test]
async fn each_call_takes_its_class_and_no_other() {
    let site = Site::new(settings()).await;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for route in routes(&site) {
        let mut measured = Vec::new();
        for (_, shown) in COLUMNS {
            measured.push(ask(&site, &route, shown).await);
        }
        match ROWS.iter().find(|(call, _)| *call == route) {
            Some((_, expected)) if *expected == *measured => {}
            Some((_, expected)) => problems.push(format!("{route}\n  is      {measured:?}\n  must be {expected:?}")),
            None => problems.push(format!("no row for ({route:?}, {measured:?}),")),
        }
        let cells = measured.iter().map(ToString::to_string);
        rows.push(std::iter::once(route).chain(cells).collect());
    }
    for (call, _) in ROWS {
        if !rows.iter().any(|row: &Vec<String>| row[0] == call) {
            problems.push(format!("there is no {call} any more"));
        }
    }
    let head: Vec<_> = std::iter::once("call").chain(COLUMNS.map(|(name, _)| name)).collect();
    write("classes", "What each call answers to each class of token", &head, &rows);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Somebody who is signed in anew asks: what one cell ends, no other misses.
async fn ask(site: &Site, route: &str, shown: Shown) -> u16 {
    let json = ("content-type", "application/json");
    let signed_in = async |path: &str| {
        let body = json!({"email": "alice@example.com", "secret": SECRET}).to_string();
        site.ask(request(Method::POST, path, &[json], &body), anywhere()).await
    };
    let (method, path) = call_of(route);
    let mut body = json!({});
    if path == "/auth/device/verify" {
        let code = site.ask(request(Method::POST, "/auth/device", &[], ""), anywhere()).await;
        body["userCode"] = code.json()["userCode"].clone();
    }
    if path == "/v1/agents" {
        body["name"] = "prod".into();
    }
    let mut origin = URL;
    let (name, value) = match shown {
        Shown::Nothing => ("accept", "*/*".to_owned()),
        Shown::Bearer(class) | Shown::Published(class) | Shown::Body(class) => {
            let daemon = signed_in("/auth/dev/token").await.json()["token"].as_str().unwrap().to_owned();
            let token = site.token(class, &daemon);
            match shown {
                Shown::Bearer(_) => ("authorization", bearer(&token)),
                Shown::Published(_) => ("cookie", format!("lukan_token={token}")),
                _ => {
                    body["jwt"] = token.into();
                    ("accept", "*/*".to_owned())
                }
            }
        }
        Shown::Own | Shown::Both | Shown::Elsewhere => {
            let cookies = signed_in("/auth/dev").await.cookies();
            let (published, own) = cookies.split_once("; ").unwrap();
            match shown {
                Shown::Own => ("cookie", own.to_owned()),
                Shown::Both => ("cookie", cookies),
                _ => {
                    origin = "https://console.example";
                    ("cookie", published.to_owned())
                }
            }
        }
    };
    let headers = [json, ("origin", origin), (name, &value)];
    let body = if method == Method::GET { String::new() } else { body.to_string() };
    site.ask(request(method, &path, &headers, &body), anywhere()).await.status.as_u16()
}
