//! Who may have an account, whatever the way in.

use std::time::Duration;

use mykube_relay_accounts::{
    identity::{Kind, Person, Profile, Provider},
    sign_in::Method,
    sign_up::{Invitation, LIFE, NotAdmitted},
};

use super::*;
use crate::auth::begin::{BeginError, Begun, begin};

const REFUSED: &str =
    "this relay takes no new accounts by itself: ask its operator for an invitation (`mykube relay invite`)";

/// A person of each way in, all with the same address.
fn people() -> [(&'static str, Method, Person); 6] {
    let by = |name: &str, kind, email_domains: &[&str]| {
        let email_domains = email_domains.iter().map(ToString::to_string).collect();
        let issuer = format!("https://{name}.example");
        let provider = Provider { name: name.parse().unwrap(), kind, issuer, email_domains };
        let email = Some("ada@example.com".to_owned());
        let hosted_domain =
            email.as_deref().and_then(|email: &str| email.split_once('@')).map(|(_, domain)| domain.to_owned());
        let profile = Profile { subject: "42".into(), email, email_verified: true, login: None, hosted_domain };
        provider.person(&profile).unwrap()
    };
    [
        ("email", Method::Browser, Person::of_email("ada@example.com".parse().unwrap())),
        ("proving", Method::Browser, by("proving", Kind::Oidc, &["example.com"])),
        ("of other domains", Method::Program, by("elsewhere", Kind::Oidc, &["example.org"])),
        ("microsoft", Method::Browser, by("microsoft", Kind::Microsoft, &["example.com"])),
        ("an id token", Method::IdToken, by("google", Kind::Google, &["example.com"])),
        ("dev", Method::Dev, Person::of_dev("ada@example.com".parse().unwrap())),
    ]
}

async fn enter(site: &Site, person: &Person, method: Method) -> Result<Begun, BeginError> {
    begin(site.portal.shared(), person, [192, 0, 2, 1].into(), method, "a test").await
}

async fn enters(site: &Site, person: &Person, method: Method) -> bool {
    match enter(site, person, method).await {
        Ok(begun) => {
            begun.transaction.commit().await.unwrap();
            true
        }
        Err(BeginError::NotAdmitted(error)) => {
            assert_eq!(error.to_string(), REFUSED);
            false
        }
        Err(BeginError::Store(error)) => panic!("{error}"),
    }
}

async fn invite(site: &Site, operator: bool) {
    let mut transaction = site.portal.shared().store.begin().await.unwrap();
    let invitation = Invitation::new("ada@example.com".parse().unwrap(), operator, clock());
    transaction.invite(&invitation).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn every_way_in_obeys_sign_up_and_invitations() {
    let domains = |domain: &str| SignUp::Domains(vec![domain.to_owned()]);
    let (none, proving, all) = (&["dev"][..], &["email", "proving", "an id token", "dev"][..], &[][..]);
    for (sign_up, invited, let_in) in [
        (SignUp::Closed, false, none),
        (SignUp::Closed, true, proving),
        (SignUp::Open, false, all),
        (domains("example.com"), false, proving),
        (domains("example.org"), false, none),
        (domains("example.org"), true, proving),
    ] {
        for (name, method, person) in people() {
            let site = Site::new(Settings { sign_up: sign_up.clone(), ..settings() }).await;
            if invited {
                invite(&site, false).await;
            }
            let expected = let_in.is_empty() || let_in.contains(&name);
            assert_eq!(enters(&site, &person, method).await, expected, "{name}, {sign_up:?}, invited: {invited}");
            if expected {
                // What lets in somebody new is not asked of somebody known.
                let closed = Settings { sign_up: SignUp::Closed, ..site.settings.clone() };
                let site = Site { settings: closed, ..site }.restart().await;
                assert!(enters(&site, &person, method).await, "{name} is known");
            }
        }
    }
}

#[tokio::test]
async fn an_invitation_is_taken_once_in_time_and_by_its_address() {
    let site = Site::new(settings()).await;
    let [(_, _, email), (_, _, proving), ..] = people();
    let browser = Method::Browser;
    invite(&site, false).await;
    let eve = Person::of_email("eve@example.com".parse().unwrap());
    assert!(!enters(&site, &eve, browser).await, "another address");
    assert!(enters(&site, &email, browser).await);
    assert!(!enters(&site, &proving, browser).await, "the address of another identity: it is taken");
    invite(&site, false).await;
    wait(LIFE);
    assert!(!enters(&site, &proving, browser).await, "late");
    invite(&site, false).await;
    wait(LIFE - Duration::from_millis(1));
    assert!(enters(&site, &proving, browser).await, "a new one is as good as the first");
}

#[tokio::test]
async fn of_two_who_take_one_invitation_at_once_one_has_it() {
    let site = Site::new(settings()).await;
    invite(&site, true).await;
    let [(_, _, email), (_, _, proving), ..] = people();
    // Read by one before the other has kept it.
    let store = &site.portal.shared().store;
    let mut transaction = store.begin().await.unwrap();
    let read = transaction.invitation(email.email.as_ref().unwrap()).await.unwrap().unwrap();
    drop(transaction);
    assert!(enters(&site, &email, Method::Browser).await);
    let mut transaction = store.begin().await.unwrap();
    let account = transaction.account_of(&(&proving).into(), clock()).await.unwrap();
    let late = transaction.take_invitation(&read, account.id, clock()).await;
    assert!(matches!(late, Err(mykube_relay_store::StoreError::Changed)), "{late:?}");
}

#[tokio::test]
async fn an_operator_is_whom_an_invitation_made_one_and_the_audit_log_says_so() {
    let site = Site::new(Settings { sign_up: SignUp::Open, ..settings() }).await;
    let [(_, _, email), (_, _, proving), ..] = people();
    for (person, invited) in [(&email, false), (&email, true), (&proving, false)] {
        if invited {
            invite(&site, true).await;
        }
        let mut begun = enter(&site, person, Method::Browser).await.unwrap();
        let account = begun.account.clone();
        assert_eq!(begun.transaction.is_operator(account.id).await.unwrap(), invited);
        begun.transaction.commit().await.unwrap();
        let log = site.portal.shared().store.organisation(account.organisation).audit(10).await.unwrap();
        let taken = log.iter().find(|line| line.action == "invitation.take");
        assert_eq!(taken.map(|line| line.detail.as_str()), invited.then_some("operator"));
    }
}

#[tokio::test]
async fn whoever_is_refused_leaves_nothing() {
    let site = Site::new(settings()).await;
    let [(_, _, email), ..] = people();
    assert!(matches!(enter(&site, &email, Method::Browser).await, Err(BeginError::NotAdmitted(NotAdmitted))));
    let mut transaction = site.portal.shared().store.begin().await.unwrap();
    assert!(!transaction.is_known(&(&email).into()).await.unwrap());
}
