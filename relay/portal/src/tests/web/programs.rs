//! A program of the person's machine: the click, the code, and what it is exchanged for.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::BASE64URL_NOPAD;
use mykube_relay_accounts::{
    pkce::Challenge,
    statement::{Act, Statement},
};

use super::*;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const USED: &str = "Invalid or expired auth code";

/// A program of ours, as it calls `/auth/exchange`.
struct Program(EcdsaKeyPair);

impl Program {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn body(&self, code: &str, verifier: &str, signed: &str, url: &str) -> Value {
        let statement = Statement { act: Act::SignIn, shown: signed, time: 5 };
        let signature = self.0.sign(&SystemRandom::new(), &statement.bytes(url)).unwrap();
        json!({
            "code": code,
            "verifier": verifier,
            "key": BASE64URL_NOPAD.encode(self.0.public_key().as_ref()),
            "time": 5,
            "sig": BASE64URL_NOPAD.encode(signature.as_ref()),
        })
    }

    async fn exchange(&self, site: &Site, code: &str) -> Answer {
        exchange(site, &self.body(code, VERIFIER, code, URL)).await
    }
}

async fn exchange(site: &Site, body: &Value) -> Answer {
    let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
    let headers = [("content-type", "application/json")];
    site.ask(request(Method::POST, "/auth/exchange", &headers, &body.to_string()), arrival).await
}

fn query() -> String {
    format!("cli_port=4711&state=s-1&code_challenge={}", Challenge::of(VERIFIER).encode())
}

/// What a form sends.
type Fields = Vec<(String, String)>;

/// The fields of the page's form.
fn fields(page: &Answer) -> Fields {
    let inputs = page.body.split_once("<form method=\"post\" action=\"/portal/confirm\">").unwrap().1;
    let inputs = inputs.split_once("</form>").unwrap().0.split("<input").skip(1);
    let value = |input: &str, name: &str| {
        let from = input.split_once(&format!("{name}=\"")).unwrap().1;
        from.split_once('"').unwrap().0.to_owned()
    };
    inputs.map(|input| (value(input, "name"), value(input, "value"))).collect()
}

/// Clicks; where the browser is sent then.
async fn click(browser: &mut Browser, site: &Site, page: &Answer) -> Url {
    let fields = fields(page);
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    browser.submit(site, "/portal/confirm", &fields).await.redirects_to(303).parse().unwrap()
}

fn get(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// A code of somebody who has just clicked, and their browser.
async fn code(world: &World, query: &str) -> (Browser, Url) {
    let (mut browser, answer) = world.signed_in(query).await;
    let page = browser.get(&world.site, &answer.redirects_to(307)).await;
    let url = click(&mut browser, &world.site, &page).await;
    (browser, url)
}

#[tokio::test]
async fn a_program_gets_its_sign_in_by_a_click() {
    let world = World::new(|_| {}).await;
    let site = &world.site;
    let (mut browser, answer) = world.signed_in(&query()).await;
    let to = answer.redirects_to(307);
    assert_eq!(to, format!("{URL}/portal/confirm?{}", query()));
    let page = browser.get(site, &to).await;
    assert!(page.status == StatusCode::OK && page.body.contains("one:ada@example.com"), "{}", page.body);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4711;"), "{policy}");
    let url = click(&mut browser, site, &page).await;
    assert!(url.as_str().starts_with("http://127.0.0.1:4711/callback?code="), "{url}");
    assert_eq!((get(&url, "state"), get(&url, "email")), (Some("s-1".into()), Some("ada@example.com".into())));
    assert_eq!(get(&url, "user_id"), Some(browser.account(site)));

    let (program, code) = (Program::new(), get(&url, "code").unwrap());
    let given = program.exchange(site, &code).await;
    let body = given.json();
    assert_eq!((given.status, &body["expiresIn"], &body["relay"]), (StatusCode::OK, &json!(3600), &json!([URL])));
    let me = site.get("/v1/whoami", &[("authorization", &bearer(body["token"].as_str().unwrap()))]).await.json();
    assert_eq!((&me["user_id"], &me["account"]), (&json!("one:ada@example.com"), &json!(browser.account(site))));
    // It goes on without the browser, and a second program gets nothing for the code.
    let token = body["refresh_token"].as_str().unwrap();
    let statement = Statement { act: Act::Refresh, shown: token, time: clock().millis().try_into().unwrap() };
    let sig = program.0.sign(&SystemRandom::new(), &statement.bytes(URL)).unwrap();
    let body = json!({"refresh_token": token, "time": statement.time, "sig": BASE64URL_NOPAD.encode(sig.as_ref())});
    assert_eq!(site.post("/auth/refresh", &body).await.status, StatusCode::OK);
    assert_eq!(program.exchange(site, &code).await.error(), (400, USED.to_owned()));
}

#[tokio::test]
async fn nobody_clicks_in_a_persons_name() {
    let world = World::new(|_| {}).await;
    let site = &world.site;
    let (mut alice, answer) = world.signed_in(&query()).await;
    let page = alice.get(site, &answer.redirects_to(307)).await;
    let good = fields(&page);
    let send = async |browser: &Browser, change: &dyn Fn(&mut Fields), origin: &str| {
        let mut fields = good.clone();
        change(&mut fields);
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", origin)];
        browser.clone().send(site, Method::POST, "/portal/confirm", &headers, &body).await.status.as_u16()
    };
    let nothing = |_: &mut Fields| {};
    let without = |fields: &mut Fields| fields.retain(|(name, _)| name != "csrf");
    assert_eq!(send(&alice, &without, URL).await, 403, "no CSRF token");
    assert_eq!(send(&alice, &nothing, "https://evil.example").await, 403, "another site's page");
    assert_eq!(send(&alice, &nothing, "https://console.example").await, 403, "one that may use published calls");
    assert_eq!(send(&alice, &nothing, "null").await, 403);
    assert_eq!(send(&Browser::default(), &nothing, URL).await, 401, "nobody is signed in");
    // Mallory's token is for Mallory's cookie.
    let (mut mallory, answer) = world.signed_in(&query()).await;
    let hers = fields(&mallory.get(site, &answer.redirects_to(307)).await);
    let swapped = |fields: &mut Fields| fields.clone_from(&hers);
    assert_eq!(send(&alice, &swapped, URL).await, 403);
    // A form that leads nowhere.
    let elsewhere = |fields: &mut Fields| {
        for (name, value) in fields {
            if name == "cli_port" {
                *value = "80@evil.test".to_owned();
            }
        }
    };
    assert_eq!(send(&alice, &elsewhere, URL).await, 400);
    assert_eq!(send(&alice, &nothing, URL).await, 303);
    // The page shows nothing to nobody, and leads to the sign-in and back.
    let stranger = Browser::default().get(site, &format!("/portal/confirm?{}", query())).await;
    let to = stranger.redirects_to(303);
    assert!(to.starts_with("/portal/sign-in?redirect=%2Fportal%2Fconfirm%3Fcli_port"), "{to}");
    for bad in ["", "redirect=/x", "cli_port=80", "cli_port=0&code_challenge=x"] {
        let page = alice.get(site, &format!("/portal/confirm?{bad}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn a_code_is_worth_nothing_to_anybody_else_nor_later() {
    let world = World::new(|settings| settings.published_exchange = true).await;
    let (site, program) = (&world.site, Program::new());
    let fresh = async || get(&code(&world, &query()).await.1, "code").unwrap();
    let other = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXX";
    for (what, body) in [
        ("alone", &(|code: &str| json!({"code": code})) as &dyn Fn(&str) -> Value),
        ("with another verifier", &|code| program.body(code, other, code, URL)),
        ("with a statement over another code", &|code| program.body(code, VERIFIER, other, URL)),
        ("with a statement for another relay", &|code| program.body(code, VERIFIER, code, "https://evil.example")),
        ("with a verifier and no key", &|code| json!({"code": code, "verifier": VERIFIER})),
    ] {
        let code = fresh().await;
        assert_eq!(exchange(site, &body(&code)).await.error(), (400, USED.to_owned()), "{what}");
        assert_eq!(program.exchange(site, &code).await.error(), (400, USED.to_owned()), "shown before {what}");
    }
    let code_of_now = fresh().await;
    wait(Duration::from_secs(60));
    assert_eq!(program.exchange(site, &code_of_now).await.error(), (400, USED.to_owned()), "a minute later");
    assert_eq!(program.exchange(site, &"A".repeat(43)).await.error(), (400, USED.to_owned()));
    for (body, status) in [
        (json!({"code": "x", "key": "y"}), 422),
        (json!({}), 422),
        (json!({"code": "x", "key": "!", "time": 1, "sig": ""}), 422),
    ] {
        assert_eq!(exchange(site, &body).await.status.as_u16(), status, "{body}");
    }
}

#[tokio::test]
async fn who_signs_out_before_the_program_has_it_meant_that_too() {
    let world = World::new(|_| {}).await;
    let (mut browser, url) = code(&world, &query()).await;
    browser.send(&world.site, Method::POST, "/auth/logout", &[("origin", URL)], "").await;
    let late = Program::new().exchange(&world.site, &get(&url, "code").unwrap()).await;
    assert_eq!(late.error(), (400, USED.to_owned()));
}

#[tokio::test]
async fn a_published_program_gets_a_daemons_token_where_that_is_set() {
    let off = World::new(|_| {}).await;
    let refused = Browser::default().get(&off.site, "/auth/one?cli_port=4711").await;
    assert!(refused.text().0 == 400 && refused.body.contains("published_exchange"), "{}", refused.body);

    let on = World::new(|settings| settings.published_exchange = true).await;
    let (browser, url) = code(&on, "cli_port=4711").await;
    assert!(url.as_str().starts_with("http://localhost:4711/callback?code="), "{url}");
    assert_eq!(get(&url, "state"), None);
    let code = get(&url, "code").unwrap();
    let given = exchange(&on.site, &json!({"code": code})).await.json();
    assert_eq!((&given["userId"], &given["email"]), (&json!(browser.account(&on.site)), &json!("ada@example.com")));
    assert!(on.site.portal.shared().verify(given["token"].as_str().unwrap(), &[Class::Daemon]).is_ok());
    assert_eq!(exchange(&on.site, &json!({"code": code})).await.error(), (400, USED.to_owned()));
}

#[tokio::test]
async fn codes_are_not_tried_out() {
    let world = World::new(|_| {}).await;
    for _ in 0..10 {
        assert_eq!(world.site.post("/auth/exchange", &json!({"code": "x"})).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(world.site.post("/auth/exchange", &json!({"code": "x"})).await.status, StatusCode::TOO_MANY_REQUESTS);
    let (headers, url) = ([("origin", URL)], "/portal/confirm");
    for _ in 0..30 {
        assert_ne!(world.site.call(Method::POST, url, &headers, "").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(world.site.call(Method::POST, url, &headers, "").await.status, StatusCode::TOO_MANY_REQUESTS);
}
