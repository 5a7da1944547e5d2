//! Somebody at a browser: follows redirects, keeps cookies, fills in forms.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use url::{Position, Url, form_urlencoded};

use crate::support::bounded;

/// Pages and redirects of a sign-in at most.
const STEPS: usize = 25;
const FORM: &str = "application/x-www-form-urlencoded";

type Cookies = BTreeMap<String, String>;

/// Cookies, by host and port.
#[derive(Default)]
pub(super) struct Browser(BTreeMap<String, Cookies>);

/// What is there at an address.
pub(super) struct Seen {
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.url, self.body))
    }
}

impl Browser {
    /// Goes on until a page has no form that belongs to a sign-in, or leads to an address that is not to be gone to. Gives
    /// that, and all addresses on the way.
    pub(super) async fn go(
        &mut self,
        to: &str,
        fields: &[(&str, &str)],
        stop: &dyn Fn(&Url) -> bool,
    ) -> (Seen, Vec<Url>) {
        let (mut at, mut form, mut way) = (to.parse::<Url>().unwrap(), None, Vec::new());
        for _ in 0..STEPS {
            way.push(at.clone());
            if stop(&at) {
                return (Seen { url: at, status: 0, location: None, body: String::new() }, way);
            }
            let seen = self.send(at.as_str(), form.take()).await;
            if let Some(location) = &seen.location {
                at = at.join(location).unwrap();
                continue;
            }
            assert_eq!(seen.status, 200, "{at}: {}", seen.body);
            // Of the relay's own pages, one form is pressed: the click.
            let pages_own = at.path().starts_with("/portal/").then_some("/portal/confirm");
            let Some((action, body)) = fill(&seen.body, pages_own, fields) else { return (seen, way) };
            (at, form) = (at.join(&action).unwrap(), Some(body));
        }
        panic!("{to} leads nowhere");
    }

    /// One request: a form, if there is one.
    pub(super) async fn send(&mut self, url: &str, form: Option<String>) -> Seen {
        match form {
            Some(form) => self.request(Method::POST, url, &[("content-type", FORM)], form).await,
            None => self.request(Method::GET, url, &[], String::new()).await,
        }
    }

    pub(super) async fn post(&mut self, url: &str, body: &Value) -> Seen {
        self.request(Method::POST, url, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(super) async fn with_token(&mut self, url: &str, token: &str) -> Seen {
        self.request(Method::GET, url, &[("authorization", &format!("Bearer {token}"))], String::new()).await
    }

    /// A form with a client's secret.
    pub(super) async fn redeem(&mut self, url: &str, form: String, authorization: &str) -> Seen {
        self.request(Method::POST, url, &[("content-type", FORM), ("authorization", authorization)], form).await
    }

    /// The cookies of a site.
    pub(super) fn cookies(&self, url: &str) -> Cookies {
        self.0.get(authority(&url.parse().unwrap())).cloned().unwrap_or_default()
    }

    async fn request(&mut self, method: Method, url: &str, headers: &[(&str, &str)], body: String) -> Seen {
        let url: Url = url.parse().unwrap();
        let host = authority(&url).to_owned();
        let cookies = self.0.entry(host.clone()).or_default();
        let shown: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request =
            Request::builder().method(method.clone()).uri(&url[Position::BeforePath..Position::AfterQuery]);
        request = request.header(header::HOST, &host);
        if !shown.is_empty() {
            request = request.header(header::COOKIE, shown.join("; "));
            if method == Method::POST {
                request = request.header(header::ORIGIN, format!("http://{host}"));
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = bounded(async {
            let stream = TcpStream::connect(&host).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let driving = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            driving.abort();
            (head, String::from_utf8(body.to_vec()).unwrap())
        });
        let (head, body) = answer.await;
        for cookie in head.headers.get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                cookies.remove(name)
            } else {
                cookies.insert(name.to_owned(), value.to_owned())
            };
        }
        let location = head.headers.get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        Seen { url, status: head.status.as_u16(), location, body }
    }
}

/// Host and port.
fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

/// Where a form of a page is sent, and with what: its hidden fields, and those that somebody fills in. The one with this
/// action, or the first.
fn fill(page: &str, action: Option<&str>, fields: &[(&str, &str)]) -> Option<(String, String)> {
    let forms = page.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap());
    let actions = forms.map(|form| (form, attribute(form.split('>').next().unwrap(), "action").unwrap_or_default()));
    let mut wanted = actions.filter(|(_, found)| action.is_none_or(|action| found == action));
    let (form, action) = wanted.next()?;
    let mut body = form_urlencoded::Serializer::new(String::new());
    for input in form.split("<input").skip(1).map(|input| input.split('>').next().unwrap()) {
        let Some(name) = attribute(input, "name") else { continue };
        let typed = fields.iter().find(|(field, _)| *field == name).map(|(_, value)| (*value).to_owned());
        body.append_pair(&name, &typed.or_else(|| attribute(input, "value")).unwrap_or_default());
    }
    Some((action, body.finish()))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
    Some(value.replace("&amp;", "&").replace("&#x2F;", "/"))
}
