//! `/device`: a code is typed, shown, and answered once.

use super::*;
use crate::tests::family::Machine;
use mykube_relay_store::Identity;

const INVALID: &str = "There is no such code";

/// A code of a program that calls itself so: what it asks with, and what a person types.
async fn code(site: &Site, program: &str, body: Value) -> (String, String) {
    let address = rand::random::<[u8; 4]>();
    let arrival = Arrival { address: address.into(), is_private: true };
    let headers = [("user-agent", program), ("content-type", "application/json")];
    let answer = site.ask(request(Method::POST, "/auth/device", &headers, &body.to_string()), arrival).await.json();
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    (text("deviceCode"), text("userCode"))
}

/// The published cookie's token.
fn published(cookies: &str) -> &str {
    cookies.split("; ").next().unwrap().split_once('=').unwrap().1
}

async fn csrf(site: &Site, cookies: &str) -> String {
    page(site, cookies, "/device").await.field("csrf").to_owned()
}

async fn answer(site: &Site, cookies: &str, code: &str, said: &str) -> Answer {
    let csrf = csrf(site, cookies).await;
    submit(site, cookies, "/device/answer", &[("csrf", &csrf), ("code", code), ("answer", said)]).await
}

async fn poll(site: &Site, body: &Value) -> Answer {
    wait(Duration::from_secs(5));
    site.post("/auth/device/poll", body).await
}

#[tokio::test]
async fn whoever_types_a_code_sees_who_asks_and_a_click_signs_our_program_in() {
    let site = Site::new(settings()).await;
    assert_eq!(page(&site, "", "/device").await.location(), "/portal/sign-in?redirect=%2Fdevice");
    let cookies = signed_in(&site, "alice@example.com").await;
    let signed_in_at = clock();
    wait(Duration::from_hours(1));
    let mut machine = Machine::out();
    let (device, user) = code(&site, "mykube/0.1 (laptop)", json!({"client": "mykube", "key": machine.public()})).await;
    assert_eq!(poll(&site, &machine.poll(&device)).await.json(), json!({"status": "pending"}));

    let form = page(&site, &cookies, &format!("/device?code={user}")).await;
    assert!(!form.body.contains(&user), "no link fills it in");
    let csrf = form.field("csrf").to_owned();
    let typed = user.to_lowercase().replace('-', " ");
    let shown = submit(&site, &cookies, "/device", &[("csrf", &csrf), ("code", &typed)]).await;
    let (status, html) = shown.html();
    let names = ["alice@example.com", "dev:alice@example.com", "mykube/0.1 (laptop)", "2027-01-15 09:00 UTC"];
    assert!(status == 200 && names.iter().all(|name| html.contains(name)), "{html}");
    assert!(html.contains("this browser is at 192.0.2.1"), "{html}");
    assert_eq!(
        poll(&site, &machine.poll(&device)).await.json(),
        json!({"status": "pending"}),
        "to look is not to click"
    );

    let typed = shown.field("code").to_owned();
    let done = answer(&site, &cookies, &typed, "confirm").await;
    assert!(done.html().0 == 200 && done.body.contains("Confirmed"), "{}", done.body);
    let site = site.restart().await;
    let given = poll(&site, &machine.poll(&device)).await;
    assert_eq!(given.json()["status"], "authorized");
    machine.keep(&given);
    let claims = site.portal.shared().verify(&machine.token, &[Class::Mykube]).unwrap();
    assert_eq!(claims.auth_time, signed_in_at.secs(), "to confirm proves nothing anew");
    let renewed = machine.refresh(&site, &machine.refresh_token.clone()).await;
    machine.keep(&renewed);
    let claims = site.portal.shared().verify(&machine.token, &[Class::Mykube]).unwrap();
    assert_eq!(claims.auth_time, signed_in_at.secs(), "nor does renewing");
    assert_eq!(poll(&site, &machine.poll(&device)).await.json(), json!({"status": "expired"}));
}

#[tokio::test]
async fn only_the_machine_that_asked_for_a_code_gets_what_it_brings() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    let (machine, thief) = (Machine::out(), Machine::out());
    let (device, user) = code(&site, "mykube", json!({"client": "mykube", "key": machine.public()})).await;
    answer(&site, &cookies, &user, "confirm").await;
    let signed = machine.poll(&device);
    let mut late = signed.clone();
    late["time"] = json!(signed["time"].as_u64().unwrap() + 1);
    for wrong in [json!({"deviceCode": device}), thief.poll(&device), late, machine.poll("another")].iter_mut() {
        wrong["deviceCode"] = json!(device);
        let refused = poll(&site, wrong).await;
        assert!(refused.error().0 == 401 && refused.error().1.contains("not signed with the key"), "{wrong}");
    }
    assert_eq!(poll(&site, &signed).await.json()["status"], "authorized", "nobody has taken it away");
    for wrong in [
        json!({"client": "mykube"}),
        json!({"client": "mykube", "key": "x"}),
        json!({"client": "mykube", "key": 7}),
        json!({"client": "other", "key": machine.public()}),
        json!({"key": machine.public()}),
    ] {
        assert_eq!(site.post("/auth/device", &wrong).await.text().0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_code_is_answered_once_by_one_account() {
    let site = Site::new(settings()).await;
    let [alice, mallory] = [signed_in(&site, "alice@example.com").await, signed_in(&site, "mallory@example.com").await];
    let (device, user) = code(&site, "lukan/0.1", json!({})).await;
    assert_eq!(answer(&site, &alice, &user, "confirm").await.status, 200);
    for said in ["confirm", "refuse"] {
        for who in [&mallory, &alice] {
            let again = answer(&site, who, &user, said).await;
            assert!(again.html().0 == 400 && again.body.contains(INVALID), "{}", again.body);
        }
        wait(Duration::from_mins(1));
    }
    let given = poll(&site, &json!({"deviceCode": device})).await.json();
    assert_eq!((&given["status"], &given["email"]), (&json!("authorized"), &json!("alice@example.com")));
}

#[tokio::test]
async fn who_says_no_is_heard() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    let machine = Machine::out();
    let (ours, user) = code(&site, "mykube", json!({"client": "mykube", "key": machine.public()})).await;
    let refused = answer(&site, &cookies, &user, "refuse").await;
    assert!(refused.html().0 == 200 && refused.body.contains("<h1>Refused</h1>"), "{}", refused.body);
    let (published, user) = code(&site, "lukan/0.1", json!({})).await;
    answer(&site, &cookies, &user, "refuse").await;
    assert_eq!(answer(&site, &cookies, &user, "confirm").await.status, 400, "for good");
    let site = site.restart().await;
    assert_eq!(poll(&site, &machine.poll(&ours)).await.json(), json!({"status": "denied"}));
    let answer = poll(&site, &json!({"deviceCode": published})).await.json();
    assert_eq!(answer, json!({"status": "expired"}), "a published daemon knows no other");
}

#[tokio::test]
async fn a_code_of_ours_is_confirmed_by_the_page_alone() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    let machine = Machine::out();
    let (device, user) = code(&site, "mykube", json!({"client": "mykube", "key": machine.public()})).await;
    let json = ("content-type", "application/json");
    let body = json!({"userCode": user, "secret": SECRET}).to_string();
    for headers in [vec![json], vec![json, ("cookie", &cookies), ("origin", URL)]] {
        let refused = site.call(Method::POST, "/auth/device/verify", &headers, &body).await;
        assert!(refused.error().0 == 400 && refused.error().1.contains("open /device"), "{}", refused.body);
    }
    let fields = [("csrf", "x"), ("code", &user), ("answer", "confirm")];
    assert_eq!(submit(&site, &cookies, "/device/answer", &fields).await.html().0, 403);
    assert_eq!(poll(&site, &machine.poll(&device)).await.json(), json!({"status": "pending"}));
    let out = signed_in(&site, "alice@example.com").await;
    assert_eq!(answer(&site, &out, &user, "confirm").await.status, 200);
    let csrf = page(&site, &out, "/portal/").await.field("csrf").to_owned();
    submit(&site, &out, "/portal/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(
        poll(&site, &machine.poll(&device)).await.json(),
        json!({"status": "expired"}),
        "who signed out meant this"
    );
}

#[tokio::test]
async fn what_is_typed_wrong_is_said_beside_the_field() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    let csrf = csrf(&site, &cookies).await;
    let (_, user) = code(&site, "lukan", json!({})).await;
    wait(Duration::from_mins(15));
    for wrong in [&*user, "AAAA-AAAA", "", "<script>alert(1)</script>"] {
        let seen = submit(&site, &cookies, "/device", &[("csrf", &csrf), ("code", wrong)]).await;
        let (status, html) = seen.html();
        assert!(
            status == 400 && html.contains("aria-invalid=\"true\"") && html.contains("id=\"code-error\""),
            "{html}"
        );
        assert!(!html.contains("script") && !html.contains("AAAA"), "{html}");
    }
    assert_eq!(
        submit(&site, &cookies, "/device/answer", &[("csrf", &csrf), ("code", "x"), ("answer", "maybe")])
            .await
            .html()
            .0,
        400
    );
    assert_eq!(submit(&site, &cookies, "/device/answer", &[("csrf", &csrf)]).await.html().0, 400);
}

#[tokio::test]
async fn codes_are_not_guessed_on_the_page() {
    let site = Site::new(settings()).await;
    let guess = async |path: &str, address: u8, cookies: &str, csrf: &str, code: &str| {
        let arrival = Arrival { address: [198, 51, 100, address].into(), is_private: true };
        let headers = [("cookie", cookies), ("content-type", "application/x-www-form-urlencoded"), ("origin", URL)];
        let body = format!("csrf={csrf}&code={code}&answer=refuse");
        site.ask(request(Method::POST, path, &headers, &body), arrival).await.html().0
    };
    let (_, user) = code(&site, "lukan", json!({})).await;
    // One account from many addresses, by either form.
    for path in ["/device", "/device/answer"] {
        let cookies = signed_in(&site, &format!("mallory-{}@example.com", path.len())).await;
        let csrf = csrf(&site, &cookies).await;
        let statuses: Vec<_> = {
            let mut all = Vec::new();
            for address in 0..7 {
                all.push(guess(path, address, &cookies, &csrf, "AAAA-AAAA").await);
            }
            all
        };
        assert_eq!(statuses, [400, 400, 400, 400, 400, 429, 429], "{path}");
        assert_eq!(guess(path, 8, &cookies, &csrf, &user).await, 429, "not even a right one: {path}");
    }
    // Many accounts at one address.
    wait(Duration::from_mins(1));
    let mut statuses = Vec::new();
    for n in 0..6 {
        let cookies = signed_in(&site, &format!("m{n}@example.com")).await;
        let csrf = csrf(&site, &cookies).await;
        statuses.push(guess("/device/answer", 1, &cookies, &csrf, "AAAA-AAAA").await);
    }
    assert_eq!(statuses, [400, 400, 400, 400, 400, 429]);
    // All together.
    wait(Duration::from_mins(1));
    for n in 0..50 {
        let cookies = signed_in(&site, &format!("n{n}@example.com")).await;
        let csrf = csrf(&site, &cookies).await;
        assert_eq!(guess("/device/answer", 10 + n, &cookies, &csrf, "AAAA-AAAA").await, 400, "{n}");
    }
    let alice = signed_in(&site, "alice@example.com").await;
    let csrf = csrf(&site, &alice).await;
    assert_eq!(guess("/device/answer", 100, &alice, &csrf, &user).await, 429);
    wait(Duration::from_mins(1));
    assert_eq!(guess("/device/answer", 100, &alice, &csrf, &user).await, 200);
}

#[tokio::test]
async fn what_a_program_calls_itself_is_text_and_no_more() {
    let site = Site::new(settings()).await;
    let evil = r#"<img src=x onerror="alert(1)">'&<b>"#;
    let cookies = signed_in(&site, "alice@example.com").await;
    // A provider's word, whatever this relay takes for an address.
    let visitor = site.portal.shared().verify(published(&cookies), &[Class::Browser]).unwrap();
    let store = &site.portal.shared().store;
    let account = store.account(visitor.sub).await.unwrap().unwrap();
    let hostile = Identity { email: "<i>@x".to_owned(), user_id: "\"><b>".to_owned(), ..account.identity };
    let mut transaction = store.begin().await.unwrap();
    transaction.account_of(&hostile, clock()).await.unwrap();
    transaction.commit().await.unwrap();
    let (device, user) = code(&site, evil, json!({})).await;
    let csrf = csrf(&site, &cookies).await;
    let shown = submit(&site, &cookies, "/device", &[("csrf", &csrf), ("code", &user)]).await;
    answer(&site, &cookies, &user, "confirm").await;
    poll(&site, &json!({"deviceCode": device})).await;
    let list = page(&site, &cookies, "/portal/sessions").await;
    let home = page(&site, &cookies, "/portal/").await;
    assert!(home.body.contains("&#60;i&#62;@x") && home.body.contains("&#34;&#62;&#60;b&#62;"), "{}", home.body);
    for html in [shown.html().1, list.html().1, home.html().1] {
        assert!(
            !html.contains("<img") && !html.contains("<i>") && !html.contains("<b>") && !html.contains("onerror=\""),
            "{html}"
        );
    }
    assert!(list.body.contains("&#60;img src=x onerror=&#34;alert(1)&#34;&#62;&#39;&#38;&#60;b&#62;"), "{}", list.body);
}
