//! Signing in at a provider, against one on loopback that says what a test wants.

use std::{collections::BTreeMap, sync::Arc};

use mykube_relay_accounts::identity::{Kind, Provider};
use mykube_relay_provider::{Providers, RelyingParty, Settings as ProviderSettings, Web};
use url::Url;

use super::*;
use crate::SignUp;

#[path = "../../../provider/tests/provider/support/server.rs"]
#[allow(dead_code, reason = "these are the tests of relay/provider's own")]
mod server;
#[path = "../../../provider/tests/provider/support/signer.rs"]
#[allow(dead_code, reason = "these are the tests of relay/provider's own")]
mod signer;
#[path = "../../../provider/tests/provider/support/stand_in.rs"]
#[allow(dead_code, reason = "these are the tests of relay/provider's own")]
mod stand_in;

mod id_tokens;
mod programs;
mod sign_in;

use stand_in::{StandIn, signed};

/// When the clock of a test begins, as providers see it.
const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// A relay with three providers: two of the same kind, and one that is as Google is.
struct World {
    site: Site,
    one: StandIn,
    two: StandIn,
    google: StandIn,
}

impl World {
    async fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let (one, two, google) = (StandIn::start().await, StandIn::start().await, StandIn::start().await);
        let web = Web::from_env(None).unwrap();
        let party = |name: &str, kind, issuer: &str| {
            let settings = ProviderSettings {
                provider: Provider {
                    name: name.parse().unwrap(),
                    kind,
                    issuer: issuer.to_owned(),
                    email_domains: vec!["example.com".to_owned()],
                },
                client_id: "relay".to_owned(),
                client_secret: Some(String::from("canary-of-a-client").into()),
                id_token_audiences: vec!["app".to_owned()],
                github_api: None,
            };
            RelyingParty::new(settings, &web).unwrap()
        };
        let providers = Providers::new(vec![
            party("one", Kind::Oidc, &one.issuer),
            party("two", Kind::Oidc, &two.issuer),
            party("goo", Kind::Google, &google.issuer),
        ]);
        let mut settings = Settings { sign_up: SignUp::Open, providers: Arc::new(providers), ..settings() };
        change(&mut settings);
        Self { site: Site::new(settings).await, one, two, google }
    }

    /// Ada signs in at the first provider: her browser, which is then at this page.
    async fn signed_in(&self, query: &str) -> (Browser, Answer) {
        let mut browser = Browser::default();
        let sent = browser.leaves(&self.site, &format!("/auth/one?{query}")).await;
        let answer = browser.comes_back(&self.site, &self.one, "/auth/callback/one", &sent).await;
        (browser, answer)
    }
}

/// Cookies, and nothing else.
#[derive(Clone, Default)]
struct Browser(BTreeMap<String, String>);

/// What was sent to a provider with a browser.
struct Sent {
    url: Url,
    state: String,
    nonce: String,
}

impl Browser {
    fn header(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Goes to a page of the relay, from an address of its own.
    async fn get(&mut self, site: &Site, page: &str) -> Answer {
        self.send(site, Method::GET, page, &[], "").await
    }

    /// Sends a form of the relay's own page.
    async fn submit(&mut self, site: &Site, page: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("origin", URL), ("sec-fetch-site", "same-origin")];
        self.send(site, Method::POST, page, &headers, &body).await
    }

    async fn send(&mut self, site: &Site, method: Method, page: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let path = page.strip_prefix(URL).unwrap_or(page);
        let cookies = self.header();
        let headers: Vec<_> = headers.iter().copied().chain([("cookie", cookies.as_str())]).collect();
        let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
        let answer = site.ask(request(method, path, &headers, body), arrival).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                self.0.remove(name)
            } else {
                self.0.insert(name.to_owned(), value.to_owned())
            };
        }
        answer
    }

    /// Is sent to a provider.
    async fn leaves(&mut self, site: &Site, page: &str) -> Sent {
        let answer = self.get(site, page).await;
        let url: Url = answer.redirects_to(307).parse().unwrap();
        let get = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        let (state, nonce) = (get("state"), get("nonce"));
        Sent { url, state, nonce }
    }

    /// Comes back from it, where Ada has signed in.
    async fn comes_back(&mut self, site: &Site, provider: &StandIn, callback: &str, sent: &Sent) -> Answer {
        self.comes_back_as(site, provider, callback, sent, &provider.claims()).await
    }

    /// The same for whoever these claims are of.
    async fn comes_back_as(
        &mut self,
        site: &Site,
        provider: &StandIn,
        callback: &str,
        sent: &Sent,
        claims: &Value,
    ) -> Answer {
        let mut claims = claims.clone();
        claims["nonce"] = sent.nonce.as_str().into();
        provider.give("access", &signed(&claims));
        self.get(site, &format!("{callback}?code=c&state={}", sent.state)).await
    }

    async fn is_signed_in(&mut self, site: &Site) -> bool {
        self.get(site, "/auth/status").await.status == StatusCode::OK
    }

    /// The account of whoever is signed in.
    fn account(&self, site: &Site) -> String {
        let claims = site.portal.shared().verify(&self.0["lukan_token"], &[Class::Browser]).unwrap();
        claims.sub.to_string()
    }
}

impl Answer {
    fn redirects_to(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    /// That nobody has signed in: status, and the reason after the published words.
    fn failed(&self) -> (u16, &str) {
        assert_eq!(self.cookies(), "");
        let (status, text) = self.text();
        (status, text.strip_prefix("Authentication failed: ").unwrap_or_else(|| panic!("{text}")))
    }
}
