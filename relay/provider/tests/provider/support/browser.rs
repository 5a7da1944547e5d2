//! Somebody at a browser: follows redirects, keeps cookies, fills in forms.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use mykube_dial::fetch::{Way, fetch};
use url::{Url, form_urlencoded};

use super::{LIMIT, REDIRECT_URI, TRUST};

/// Pages and redirects of a sign-in at most.
const STEPS: usize = 20;

/// Goes from a provider's page through its forms, with these fields filled in, until it sends back to the relay. Gives the
/// query of that.
pub(crate) async fn sign_in(url: &str, fields: &[(&str, &str)]) -> String {
    let mut cookies = BTreeMap::new();
    let mut at: Url = url.parse().unwrap();
    let mut form = None;
    for _ in 0..STEPS {
        let answer = send(&at, form.take(), None, &mut cookies).await;
        if let Some(to) = answer.headers().get(header::LOCATION) {
            let to = at.join(to.to_str().unwrap()).unwrap();
            if to.as_str().starts_with(REDIRECT_URI) {
                return to.query().unwrap().to_owned();
            }
            at = to;
            continue;
        }
        let page = String::from_utf8(answer.body().to_vec()).unwrap();
        assert!(answer.status().is_success(), "{at}: {} {page}", answer.status());
        let (action, body) = fill(&page, fields);
        (at, form) = (at.join(&action).unwrap(), Some(body));
    }
    panic!("{url} leads nowhere");
}

/// One request, with a form if there is one.
pub(crate) async fn send(
    at: &Url,
    form: Option<String>,
    authorization: Option<String>,
    cookies: &mut BTreeMap<String, String>,
) -> Response<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = at.as_str().parse().unwrap();
    if let Some(form) = form {
        *request.method_mut() = Method::POST;
        *request.body_mut() = form.into();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.parse().unwrap());
    }
    let shown: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    request.headers_mut().insert(header::COOKIE, shown.join("; ").parse().unwrap());
    let way = Way { trust: &TRUST, proxy_trust: &TRUST, proxy: None, limit: LIMIT };
    let answer = fetch(request, &way).await.unwrap_or_else(|error| panic!("{at}: {error}"));
    for cookie in answer.headers().get_all(header::SET_COOKIE) {
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        let (name, value) = cookie.split_once('=').unwrap();
        cookies.insert(name.to_owned(), value.to_owned());
    }
    answer
}

/// Where the form of a page is sent, and with what: its hidden fields, and those that somebody fills in.
fn fill(page: &str, fields: &[(&str, &str)]) -> (String, String) {
    let form = page.split_once("<form").expect(page).1.split("</form>").next().unwrap();
    let action = attribute(form.split('>').next().unwrap(), "action").unwrap();
    let mut body = form_urlencoded::Serializer::new(String::new());
    for input in form.split("<input").skip(1).map(|input| input.split('>').next().unwrap()) {
        let Some(name) = attribute(input, "name") else { continue };
        let typed = fields.iter().find(|(field, _)| *field == name).map(|(_, value)| (*value).to_owned());
        body.append_pair(&name, &typed.or_else(|| attribute(input, "value")).unwrap_or_default());
    }
    (action, body.finish())
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
    Some(value.replace("&amp;", "&").replace("&#x2F;", "/"))
}
