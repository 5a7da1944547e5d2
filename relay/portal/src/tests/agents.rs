//! `/v1/agents`: who may do what with an organisation's agents, and what their tokens are worth.

use std::{sync::atomic::Ordering, time::Duration};

use mykube_relay_accounts::token::{Token, TokenRow};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// A site with somebody who owns an organisation, and their token.
pub(super) struct Owned {
    pub(super) site: Site,
    pub(super) owner: String,
}

impl Owned {
    pub(super) async fn new() -> Self {
        let site = Site::new(settings()).await;
        let (_, daemon) = site.daemon("alice@example.com").await;
        let owner = site.token(Class::Mykube, &daemon);
        Self { site, owner }
    }

    async fn ask_as(&self, who: &str, method: Method, path: &str, body: &str) -> Answer {
        let bearer = bearer(who);
        let json = ("content-type", "application/json");
        let headers = [("authorization", bearer.as_str()), json];
        self.site.call(method, path, if body.is_empty() { &headers[..1] } else { &headers }, body).await
    }

    pub(super) async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        self.ask_as(&self.owner, method, path, body).await
    }

    /// A new agent's token.
    pub(super) async fn make(&self, name: &str) -> String {
        let answer = self.ask(Method::POST, "/v1/agents", &json!({"name": name}).to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        token(&answer)
    }

    pub(super) async fn rotate(&self, name: &str, how: &str) -> String {
        let answer = self.ask(Method::POST, &format!("/v1/agents/{name}/token"), how).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        token(&answer)
    }

    /// What opening a channel with this token comes to.
    pub(super) async fn opens(&self, token: &str) -> Result<crate::Serve, u16> {
        let authorization = bearer(token);
        self.opens_with(&[("authorization", &authorization)]).await
    }

    pub(super) async fn opens_with(&self, headers: &[(&str, &str)]) -> Result<crate::Serve, u16> {
        let arrival = Arrival { address: [192, 0, 2, 1].into(), is_private: true };
        let request = request(Method::GET, "/ws/control", headers, "").map(drop);
        self.site.portal.accept(&request, arrival).await.map_err(|answer| answer.status().as_u16())
    }

    pub(super) async fn list(&self) -> Value {
        self.ask(Method::GET, "/v1/agents", "").await.json()["agents"].clone()
    }

    async fn audit(&self) -> Vec<(String, String)> {
        let who = self.ask(Method::GET, "/v1/whoami", "").await.json();
        let organisation = who["organisation"].as_str().unwrap().parse().unwrap();
        let lines = self.site.portal.shared().store.organisation(organisation).audit(100).await.unwrap();
        lines.into_iter().rev().map(|line| (line.action, line.detail)).collect()
    }

    async fn row(&self, token: &str) -> TokenRow {
        let shared = self.site.portal.shared();
        shared.tokens.find(&shared.store, &Token::parse(token).unwrap()).await.unwrap().unwrap().1
    }

    /// Changes the row of a token as nobody but the database's own can.
    async fn change(&self, token: &str, change: impl FnOnce(&mut TokenRow)) {
        let mut row = self.row(token).await;
        change(&mut row);
        let mut transaction = self.site.portal.shared().store.begin().await.unwrap();
        transaction.forget_agent_token(&row).await.unwrap();
        transaction.add_agent_token(&row).await.unwrap();
        transaction.commit().await.unwrap();
    }

    fn slow_hashes(&self) -> usize {
        self.site.portal.shared().tokens.computed.load(Ordering::Relaxed)
    }
}

fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_is_made_listed_and_removed_by_its_owner() {
    let owned = Owned::new().await;
    let made = owned.make("prod").await;
    assert!(made.starts_with("rla_prod_"), "{made}");
    let again = owned.ask(Method::POST, "/v1/agents", r#"{"name":"prod"}"#).await;
    assert_eq!(again.error().0, 409);
    for (body, status) in [
        (r#"{"name":"123"}"#, 422),
        (r#"{"name":"Prod"}"#, 422),
        ("{}", 422),
        (r#"{"name":"a","x":1}"#, 422),
        ("x", 400),
    ] {
        assert_eq!(owned.ask(Method::POST, "/v1/agents", body).await.error().0, status, "{body}");
    }
    let listed = owned.list().await;
    let now = "2027-01-15T08:00:00Z";
    assert_eq!(listed, json!([{"name": "prod", "state": "away", "since": now, "created_at": now}]));
    assert!(!listed.to_string().contains(&made));
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/staging", "").await.error().0, 404);
    assert!(owned.opens(&made).await.is_ok());
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod", "").await.status, StatusCode::OK);
    assert_eq!(owned.opens(&made).await.err(), Some(401));
    assert_eq!(owned.list().await, json!([]));
    let anew = owned.make("prod").await;
    assert!(owned.opens(&made).await.is_err() && owned.opens(&anew).await.is_ok(), "another agent of that name");
    let acts: Vec<_> = owned.audit().await.into_iter().skip(1).collect();
    let line = |action: &str| (action.to_owned(), "prod".to_owned());
    assert_eq!(acts, [line("agent.add"), line("agent.remove"), line("agent.add")]);
}

#[tokio::test]
async fn agents_of_others_are_neither_seen_nor_touched() {
    let owned = Owned::new().await;
    let made = owned.make("prod").await;
    let (_, daemon) = owned.site.daemon("bob@example.com").await;
    let bob = owned.site.token(Class::Mykube, &daemon);
    assert_eq!(owned.ask_as(&bob, Method::GET, "/v1/agents", "").await.json()["agents"], json!([]));
    for (method, path) in [
        (Method::DELETE, "/v1/agents/prod"),
        (Method::POST, "/v1/agents/prod/token"),
        (Method::DELETE, "/v1/agents/prod/token"),
    ] {
        assert_eq!(owned.ask_as(&bob, method, path, "").await.error().0, 404, "{path}");
    }
    assert_eq!(owned.ask_as(&bob, Method::POST, "/v1/agents", r#"{"name":"prod"}"#).await.status, 201, "his own");
    assert!(owned.opens(&made).await.is_ok());
    // Every other class of token, and none.
    for class in Class::ALL.into_iter().filter(|class| *class != Class::Mykube) {
        let other = owned.site.token(class, &daemon);
        assert_eq!(owned.ask_as(&other, Method::GET, "/v1/agents", "").await.error().0, 401, "{class:?}");
    }
    assert_eq!(owned.site.get("/v1/agents", &[]).await.error().0, 401);
    assert_eq!(owned.ask_as(&made, Method::GET, "/v1/agents", "").await.error().0, 401, "an agent is no person");
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let owned = Owned::new().await;
    let shared = owned.site.portal.shared();
    let who = owned.ask(Method::GET, "/v1/whoami", "").await.json();
    let organisation = who["organisation"].as_str().unwrap().parse().unwrap();
    let mut transaction = shared.store.begin().await.unwrap();
    for n in 0..250_u32 {
        let agent = mykube_relay_store::Agent {
            organisation,
            name: format!("agent-{n:03}").parse().unwrap(),
            id: mykube_relay_accounts::id::AgentId::random(&mut rand::rng()),
            created_at: clock(),
            generation: 1,
            relay_key: None,
        };
        assert!(transaction.add_agent(&agent).await.unwrap());
    }
    transaction.commit().await.unwrap();
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = owned.ask(Method::GET, &format!("/v1/agents?after={after}"), "").await.json();
        let page_names = page["agents"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
        names.extend(page_names);
        after = names.last().unwrap().clone();
        if page["more"] == false {
            break;
        }
        assert_eq!(names.len() % 100, 0);
    }
    assert_eq!(names, (0..250).map(|n| format!("agent-{n:03}")).collect::<Vec<_>>());
    // As after a start: of these nobody knows anything.
    let state = owned.list().await[0]["state"].clone();
    assert_eq!(state, "unknown");
}

#[tokio::test]
async fn a_replaced_token_works_for_an_hour_and_two_at_most_are_alive() {
    let owned = Owned::new().await;
    let first = owned.make("prod").await;
    let second = owned.rotate("prod", "").await;
    for token in [&first, &second] {
        assert!(owned.opens(token).await.is_ok());
    }
    wait(HOUR - Duration::from_millis(1));
    assert!(owned.opens(&first).await.is_ok());
    wait(Duration::from_millis(1));
    assert_eq!(owned.opens(&first).await.err(), Some(401));
    let owner = {
        let (_, daemon) = owned.site.daemon("alice@example.com").await;
        owned.site.token(Class::Mykube, &daemon)
    };
    let owned = Owned { owner, ..owned };
    let third = owned.rotate("prod", r#"{"strict":false}"#).await;
    let fourth = owned.rotate("prod", "").await;
    assert_eq!(owned.opens(&second).await.err(), Some(401), "the oldest of three");
    assert!(owned.opens(&third).await.is_ok() && owned.opens(&fourth).await.is_ok());
    let fifth = owned.rotate("prod", r#"{"strict":true}"#).await;
    assert_eq!(owned.opens(&fourth).await.err(), Some(401), "strict: it opens nothing");
    let sixth = owned.rotate("prod", r#"{"now":true}"#).await;
    assert_eq!(owned.opens(&fifth).await.err(), Some(401));
    assert!(owned.opens(&sixth).await.is_ok());
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod/token", "").await.status, StatusCode::OK);
    assert_eq!(owned.opens(&sixth).await.err(), Some(401));
    assert!(owned.opens(&owned.rotate("prod", "").await).await.is_ok(), "an agent without a token may have one");
    assert_eq!(owned.ask(Method::POST, "/v1/agents/prod/token", r#"{"strickt":true}"#).await.error().0, 400);
}

#[tokio::test]
async fn what_nobody_has_costs_no_slow_hash() {
    let owned = Owned::new().await;
    let made = owned.make("prod").await;
    let before = owned.slow_hashes();
    let last = if made.ends_with('a') { "b" } else { "a" };
    let almost = format!("{}{last}", &made[..made.len() - 1]);
    let app = made.replace("rla_", "rlk_");
    let wrong = [almost.as_str(), &app, "rla_prod_x", "", "x", &made[..40]];
    for (n, token) in wrong.iter().cycle().take(30).enumerate() {
        assert_eq!(owned.opens(token).await.err(), Some(401), "{n} {token}");
    }
    assert_eq!(owned.opens(&almost).await.err(), Some(429), "and only so often");
    assert!(owned.opens(&made).await.is_ok(), "which keeps no good one out");
    assert_eq!(owned.slow_hashes(), before);
    wait(Duration::from_mins(1));
    assert!(owned.opens(&made).await.is_ok());
    assert_eq!(owned.slow_hashes(), before, "the relay has vouched for it when it was made");
    owned.change(&made, |row| row.vouched = None).await;
    for _ in 0..3 {
        assert!(owned.opens(&made).await.is_ok());
    }
    assert_eq!(owned.slow_hashes(), before + 1, "and does again once it is computed");
}

#[tokio::test]
async fn the_slow_hash_of_a_row_counts() {
    let owned = Owned::new().await;
    let (one, other) = (owned.make("one").await, owned.make("other").await);
    let (of_one, of_other) = (owned.row(&one).await.slow, owned.row(&other).await.slow);
    // What vouches for a row does so for both its hashes.
    let slow = of_other.clone();
    owned.change(&one, |row| row.slow = slow).await;
    assert_eq!(owned.opens(&one).await.err(), Some(401));
    owned.change(&one, |row| row.slow = of_one).await;
    assert!(owned.opens(&one).await.is_ok());
}

#[tokio::test]
async fn only_so_many_wait_for_the_slow_hash() {
    let owned = Owned::new().await;
    let made = owned.make("prod").await;
    owned.change(&made, |row| row.vouched = None).await;
    let held = owned.site.portal.shared().tokens.hold_all();
    assert_eq!(owned.opens(&made).await.err(), Some(503));
    assert_eq!(owned.ask(Method::POST, "/v1/agents/prod/token", "").await.error().0, 503);
    drop(held);
    assert!(owned.opens(&made).await.is_ok());
}

#[tokio::test]
async fn a_token_is_shown_in_its_header_alone_and_never_by_a_page() {
    let owned = Owned::new().await;
    let made = owned.make("prod").await;
    let authorization = bearer(&made);
    let shown = ("authorization", authorization.as_str());
    assert_eq!(owned.opens_with(&[shown, ("origin", URL)]).await.err(), Some(403));
    assert_eq!(owned.opens_with(&[("cookie", &format!("token={made}"))]).await.err(), Some(401));
    assert_eq!(owned.opens_with(&[]).await.err(), Some(401));
    let arrival = Arrival { address: [192, 0, 2, 1].into(), is_private: true };
    let query = request(Method::GET, &format!("/ws/control?token={made}"), &[], "").map(drop);
    assert_eq!(owned.site.portal.accept(&query, arrival).await.err().unwrap().status(), 401);
    let plain = Arrival { is_private: false, ..arrival };
    let request = request(Method::GET, "/ws/control", &[shown], "").map(drop);
    assert_eq!(owned.site.portal.accept(&request, plain).await.err().unwrap().status(), 403);
    let refused =
        owned.site.portal.accept(&request.clone(), Arrival { address: [192, 0, 2, 9].into(), ..arrival }).await;
    assert!(refused.is_ok());
}

#[tokio::test]
async fn a_token_outlives_the_retirement_of_the_secret_that_hashed_it() {
    let mut owned = Owned::new().await;
    let made = owned.make("prod").await;
    let old = owned.site.keys.accepted().next().unwrap().kid();
    owned.site.keys.rotate(clock(), &mut rand::rng()).unwrap();
    owned.site = owned.site.restart().await;
    assert!(owned.opens(&made).await.is_ok(), "found by the old secret, and kept under the new one");
    owned.site.keys.retire(old, clock(), true).unwrap();
    owned.site = owned.site.restart().await;
    assert!(owned.opens(&made).await.is_ok());
}
