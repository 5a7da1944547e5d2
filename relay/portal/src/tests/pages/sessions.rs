//! Where one is signed in.

use super::*;

/// The sign-ins that a page shows: of which program, and their ids.
fn shown(list: &Answer) -> Vec<(String, String)> {
    let cards = list.html().1.split("<h2>").skip(1);
    cards
        .map(|card| {
            let name = card.split_once("</h2>").unwrap().0;
            let sid = card.split_once("name=\"sid\" value=\"").unwrap().1.split_once('"').unwrap().0;
            (name.to_owned(), sid.to_owned())
        })
        .collect()
}

async fn daemon(site: &Site, email: &str, program: &str) -> String {
    let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
    let headers = [("content-type", "application/json"), ("user-agent", program)];
    let body = json!({"email": email, "secret": SECRET}).to_string();
    let answer = site.ask(request(Method::POST, "/auth/dev/token", &headers, &body), arrival).await;
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_sign_in_is_shown_and_ended_by_its_person_alone() {
    let site = Site::new(settings()).await;
    let [alice, bob] = [signed_in(&site, "alice@example.com").await, signed_in(&site, "bob@example.com").await];
    wait(Duration::from_mins(1));
    let token = daemon(&site, "alice@example.com", "lukan/0.1").await;
    let list = page(&site, &alice, "/portal/sessions").await;
    let all = shown(&list);
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["lukan/0.1", "A program that does not say its name <span class=\"mark\">(this one)</span>"]);
    for text in ["a program, by dev mode", "in a browser, by dev mode", "2027-01-15 08:00 UTC", "not noted"] {
        assert!(list.body.contains(text), "{text} in {}", list.body);
    }
    let end = async |cookies: &str, sid: &str| {
        let csrf = page(&site, cookies, "/portal/sessions").await.field("csrf").to_owned();
        submit(&site, cookies, "/portal/sessions/end", &[("csrf", &csrf), ("sid", sid)]).await
    };
    let is_good = |token: &str| site.portal.shared().verify(token, &[Class::Daemon]).is_ok();
    for unknown in [&*all[0].1, "", "x", "00000000000000000000000000000000"] {
        assert_eq!(end(&bob, unknown).await.html().0, 404, "{unknown}");
    }
    assert!(is_good(&token), "it is nobody else's to end");
    assert_eq!(end(&alice, &all[0].1).await.location(), "/portal/sessions");
    assert!(!is_good(&token));
    assert_eq!(end(&alice, &all[0].1).await.html().0, 404, "it has ended");
    assert_eq!(shown(&page(&site, &alice, "/portal/sessions").await).len(), 1);
    let out = end(&alice, &all[1].1).await;
    assert_eq!(out.location(), "/portal/sign-in?signed_out=1");
    assert!(out.headers.contains_key(header::SET_COOKIE));
    assert_eq!(
        page(&site, &alice, "/portal/sessions").await.location(),
        "/portal/sign-in?redirect=%2Fportal%2Fsessions"
    );
    assert_eq!(page(&site, &bob, "/portal/sessions").await.status, 200);
}

#[tokio::test]
async fn all_others_end_however_many_there_are() {
    let site = Site::new(settings()).await;
    let alice = signed_in(&site, "alice@example.com").await;
    let bob = daemon(&site, "bob@example.com", "x").await;
    let mut tokens = Vec::new();
    for _ in 0..205 {
        wait(Duration::from_secs(1));
        tokens.push(daemon(&site, "alice@example.com", "x").await);
    }
    let list = page(&site, &alice, "/portal/sessions").await;
    assert!(list.body.contains("Only the newest 200 are shown"), "{}", list.body);
    let csrf = list.field("csrf").to_owned();
    let ended = submit(&site, &alice, "/portal/sessions/end-others", &[("csrf", &csrf)]).await;
    assert_eq!(ended.location(), "/portal/sessions");
    let is_good = |token: &String| site.portal.shared().verify(token, &[Class::Daemon]).is_ok();
    assert!(!tokens.iter().any(is_good) && is_good(&bob));
    assert_eq!(shown(&page(&site, &alice, "/portal/sessions").await).len(), 1, "this one");
}

#[tokio::test]
async fn what_is_over_is_not_shown() {
    let site = Site::new(settings()).await;
    daemon(&site, "alice@example.com", "lukan/0.1").await;
    wait(Duration::from_hours(29 * 24));
    let alice = signed_in(&site, "alice@example.com").await;
    assert_eq!(shown(&page(&site, &alice, "/portal/sessions").await).len(), 2);
    wait(Duration::from_hours(24));
    assert_eq!(shown(&page(&site, &alice, "/portal/sessions").await).len(), 1);
}
