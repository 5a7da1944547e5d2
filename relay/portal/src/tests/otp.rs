//! Signing in by email, up to the letter: what is sent is what waits for the mail server.

use std::time::Duration;

use mykube_relay_accounts::{
    email_code::{CODES_AN_HOUR, LIFE, LOCK, PAUSE, TRIES, WRONG_A_DAY},
    identity::Person,
    sign_in::Method as How,
    sign_up::Invitation,
};

use super::*;
use crate::{Mail, auth::begin::begin};

const ADA: &str = "ada@example.com";

fn with_mail() -> Settings {
    let mail = Mail::new("smtp://127.0.0.1:9", "relay@example.com", None, None).unwrap();
    Settings { mail: Some(mail), sign_up: SignUp::Open, ..settings() }
}

/// Who calls, so that limits of an address are another's.
type From = [u8; 4];

async fn post(site: &Site, from: From, path: &str, body: Value) -> Answer {
    let json = [("content-type", "application/json")];
    let arrival = Arrival { address: from.into(), is_private: true };
    site.ask(request(Method::POST, path, &json, &body.to_string()), arrival).await
}

/// Two bytes that are others in each such time, so that the limits of networks are not met where those of addresses are.
fn since(time: i64) -> [u8; 2] {
    u16::try_from(NOW.with(|now| now.load(Relaxed)) / time % 65_536).unwrap().to_be_bytes()
}

async fn ask(site: &Site, email: &str) -> Answer {
    let sum = email.bytes().fold(0_u8, u8::wrapping_add);
    let [high, low] = since(3_600_000);
    post(site, [sum, high, low, 1], "/auth/otp/request", json!({"email": email})).await
}

async fn show(site: &Site, email: &str, code: &str) -> Answer {
    let [high, low] = since(60_000);
    post(site, [11, high, low, 1], "/auth/otp/verify", json!({"email": email, "code": code})).await
}

/// The code in the one letter that waits, if there is a letter.
fn code(site: &mut Site) -> Option<String> {
    let job = site.letters.as_mut().unwrap().try_recv().expect("whoever asks has a place");
    let letter = job.letter?;
    let code = letter.body[..6].to_owned();
    assert!(code.bytes().all(|byte| byte.is_ascii_digit()) && letter.body[6..].starts_with(" is your code"));
    assert!(!letter.subject.contains(&code) && letter.body.contains(URL));
    assert!(letter.body.is_ascii() && letter.body.lines().all(|line| line.len() <= 76));
    Some(code)
}

/// Has a code sent, and reads it.
async fn sent(site: &mut Site, email: &str) -> String {
    let answer = ask(site, email).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    code(site).expect("a letter")
}

fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

fn retry_after(answer: &Answer) -> u64 {
    answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_code_signs_in_in_a_browser_once() {
    let mut site = Site::new(with_mail()).await;
    let right = sent(&mut site, " Ada@Example.com ").await;
    let typed = format!("{} {}", &right[..3], &right[3..]);
    let signed_in = show(&site, "ADA@example.com", &typed).await;
    assert_eq!((signed_in.status, signed_in.json()), (StatusCode::OK, json!({"ok": true, "email": ADA})));
    let cookies = signed_in.cookies();
    assert!(cookies.contains("lukan_token=") && cookies.contains("__Host-mykube="), "{cookies}");
    assert_eq!(site.get("/auth/status", &[("cookie", &cookies)]).await.status, StatusCode::OK);
    let again = show(&site, ADA, &right).await;
    assert_eq!(again.error(), (410, "the code is no longer good: ask for a new one".to_owned()));
    wait(PAUSE);
    let second = sent(&mut site, ADA).await;
    assert_eq!(show(&site, ADA, &second).await.status, StatusCode::OK, "and the account is the same");
    let mut transaction = site.portal.shared().store.begin().await.unwrap();
    assert!(transaction.is_known(&(&Person::of_email(ADA.parse().unwrap())).into()).await.unwrap());
}

#[tokio::test]
async fn a_restart_loses_no_code_and_a_code_is_over_after_ten_minutes() {
    let mut site = Site::new(with_mail()).await;
    let kept = sent(&mut site, ADA).await;
    let mut site = site.restart().await;
    wait(LIFE - Duration::from_millis(1));
    assert_eq!(show(&site, ADA, &kept).await.status, StatusCode::OK);
    let late = sent(&mut site, ADA).await;
    wait(LIFE);
    assert_eq!(show(&site, ADA, &late).await.status, StatusCode::GONE);
}

#[tokio::test]
async fn no_answer_says_who_is_known_and_a_closed_relay_writes_to_no_stranger() {
    let mut site = Site::new(Settings { sign_up: SignUp::Closed, ..with_mail() }).await;
    let (known, invited, stranger) = (ADA, "bob@example.com", "eve@example.com");
    let shared = site.portal.shared();
    let mut transaction = shared.store.begin().await.unwrap();
    for email in [known, invited] {
        transaction.invite(&Invitation::new(email.parse().unwrap(), false, clock())).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let ada = Person::of_email(known.parse().unwrap());
    let begun = begin(shared, &ada, [192, 0, 2, 1].into(), How::Browser, "a test").await.unwrap();
    begun.transaction.commit().await.unwrap();
    let mut answers = Vec::new();
    for (email, letter) in [(known, true), (invited, true), (stranger, false)] {
        let asked = ask(&site, email).await;
        let right = code(&mut site);
        assert_eq!(right.is_some(), letter, "{email}");
        let again = ask(&site, email).await;
        let guess = right.as_deref().map_or("000000", wrong);
        let mut told = vec![asked, again];
        for _ in 0..=TRIES {
            told.push(show(&site, email, guess).await);
        }
        wait(Duration::from_mins(2));
        let told = told.into_iter().map(|answer| (answer.status, answer.headers, answer.body));
        answers.push(told.collect::<Vec<_>>());
    }
    assert!(answers[0] == answers[1] && answers[1] == answers[2], "{answers:#?}");
    assert_eq!(
        answers[0].iter().map(|(status, ..)| status.as_u16()).collect::<Vec<_>>(),
        [202, 429, 401, 401, 401, 401, 429, 429]
    );
}

#[tokio::test]
async fn five_wrong_tries_lock_for_a_quarter_of_an_hour_and_a_new_code_does_not_unlock_unless_it_is_set_so() {
    for unlocks in [false, true] {
        let mail = with_mail().mail.map(|mail| mail.with_otp_reset_unlocks(unlocks));
        let mut site = Site::new(Settings { mail, ..with_mail() }).await;
        let right = sent(&mut site, ADA).await;
        for left in (1..TRIES).rev() {
            let answer = show(&site, ADA, wrong(&right)).await;
            assert_eq!((answer.status.as_u16(), answer.json()["attempts_left"].as_u64()), (401, Some(left.into())));
        }
        let locked = show(&site, ADA, wrong(&right)).await;
        assert_eq!((locked.status.as_u16(), retry_after(&locked)), (429, LOCK.as_secs() + 1));
        assert_eq!(show(&site, ADA, &right).await.status.as_u16(), 429, "a right one either");
        let site_of_day = site.restart().await;
        site = site_of_day;
        wait(PAUSE);
        let new = sent(&mut site, ADA).await;
        let answer = show(&site, ADA, &new).await;
        assert_eq!(answer.status.as_u16(), if unlocks { 200 } else { 429 }, "{unlocks}");
        wait(LOCK - PAUSE - Duration::from_millis(1));
        let late = sent(&mut site, ADA).await;
        assert_eq!(show(&site, ADA, &late).await.status.as_u16(), if unlocks { 200 } else { 429 });
        wait(PAUSE);
        let late = sent(&mut site, ADA).await;
        assert_eq!(show(&site, ADA, &late).await.status.as_u16(), 200, "the lock is over");
    }
}

#[tokio::test]
async fn codes_for_an_address_are_few_and_wrong_tries_of_a_day_too() {
    let mut site = Site::new(with_mail()).await;
    sent(&mut site, ADA).await;
    wait(PAUSE - Duration::from_millis(1));
    assert_eq!(ask(&site, ADA).await.status.as_u16(), 429);
    wait(Duration::from_millis(1));
    for _ in 1..CODES_AN_HOUR {
        sent(&mut site, ADA).await;
        wait(PAUSE);
    }
    let sixth = ask(&site, ADA).await;
    assert_eq!((sixth.status.as_u16(), retry_after(&sixth)), (429, 55 * 60 + 1));
    // A whole day of guesses, in locks and out of them.
    wait(Duration::from_hours(1));
    let mut judged = 0;
    for _ in 0..24 * 6 {
        if ask(&site, ADA).await.status == StatusCode::ACCEPTED {
            let right = code(&mut site).unwrap();
            for _ in 0..TRIES {
                let answer = show(&site, ADA, wrong(&right)).await;
                judged += u8::from(answer.status == StatusCode::UNAUTHORIZED);
                if answer.status == StatusCode::TOO_MANY_REQUESTS && retry_after(&answer) == LOCK.as_secs() + 1 {
                    judged += 1;
                }
            }
        }
        wait(Duration::from_mins(10));
    }
    // The last one locks for the rest of the day.
    assert_eq!(judged + 1, WRONG_A_DAY);
}

#[tokio::test]
async fn one_network_asks_for_twenty_codes_an_hour_and_tries_ten_a_minute() {
    let site = Site::new(with_mail()).await;
    let one = async |path: &str, n: u32| {
        let body = json!({"email": format!("a{n}@example.com"), "code": "000000"});
        post(&site, [198, 51, 100, 7], path, body).await.status.as_u16()
    };
    for n in 0..20 {
        assert_eq!(one("/auth/otp/request", n).await, 202);
    }
    assert_eq!(one("/auth/otp/request", 20).await, 429);
    for n in 0..10 {
        assert_eq!(one("/auth/otp/verify", n).await, 401);
    }
    assert_eq!(one("/auth/otp/verify", 10).await, 429);
    wait(Duration::from_hours(1));
    assert_eq!(one("/auth/otp/request", 20).await, 202);
}

#[tokio::test]
async fn where_no_mail_can_be_sent_everybody_is_told_the_same_and_nothing_counts() {
    let mut site = Site::new(Settings { sign_up: SignUp::Domains(vec!["example.com".into()]), ..with_mail() }).await;
    let away = "no mail can be sent at the moment: try again in a minute, or sign in in another way";
    let people = [ADA, "eve@elsewhere.example"];
    let mailer = site.portal.shared().mailer.as_ref().unwrap();
    mailer.set_away(true);
    for email in people {
        let answer = ask(&site, email).await;
        assert_eq!((answer.error(), retry_after(&answer)), ((503, away.to_owned()), 31), "{email}");
    }
    mailer.set_away(false);
    let places: Vec<_> = (0..256).map(|_| mailer.place().unwrap_or_else(|_| panic!("256 wait"))).collect();
    for email in people {
        assert_eq!(ask(&site, email).await.error(), (503, away.to_owned()), "{email}");
    }
    drop(places);
    sent(&mut site, ADA).await;
}

#[tokio::test]
async fn an_address_that_a_mail_server_could_read_otherwise_is_none() {
    let mut site = Site::new(with_mail()).await;
    for (n, email) in [
        "",
        "ada",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\nRCPT TO:<eve@example.com>",
        "ada@example.com,eve@example.com",
        "\"ada\r\n\"@example.com",
        "<ada@example.com>",
        "ada@[127.0.0.1]",
        "ada@example.com\0",
        "ada%eve@example.com@elsewhere.example",
    ]
    .into_iter()
    .enumerate()
    {
        let from = [12, u8::try_from(n).unwrap(), 0, 1];
        for path in ["/auth/otp/request", "/auth/otp/verify"] {
            let answer = post(&site, from, path, json!({"email": email, "code": "000000"})).await;
            assert_eq!(answer.error(), (400, "this is no address like ada@example.com".to_owned()), "{email:?}");
        }
    }
    for (n, code) in ["", "12345", "1234567", "abcdef"].into_iter().enumerate() {
        let answer =
            post(&site, [13, u8::try_from(n).unwrap(), 0, 1], "/auth/otp/verify", json!({"email": ADA, "code": code}));
        assert_eq!(answer.await.error(), (400, "a code is six digits".to_owned()));
    }
    assert!(site.letters.as_mut().unwrap().try_recv().is_err());
}

#[tokio::test]
async fn a_relay_without_mail_says_so() {
    let site = Site::new(settings()).await;
    for path in ["/auth/otp/request", "/auth/otp/verify"] {
        let answer = site.post(path, &json!({"email": ADA, "code": "000000"})).await;
        assert_eq!(answer.error(), (404, "this relay sends no codes by email: sign in in another way".to_owned()));
    }
}
