use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const NOW: u64 = 1_800_000_000;
const JTI: TokenId = TokenId::from_bytes([3; 16]);

fn now() -> UnixTime {
    UnixTime::from_secs(NOW)
}

fn at(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs)
}

fn policy() -> Policy {
    Policy {
        issuers: vec!["https://relay.example.com".into(), "https://old.example.com".into()],
        boot: BootId::from_bytes([0xb0; 16]),
        boot_ends_daemons: false,
        devices_life: Class::Devices.life(),
        devices_session: Policy::DEVICES_SESSION,
    }
}

fn keys() -> Keys {
    Keys::from_configured(&[7; 32]).unwrap()
}

fn jwts() -> Jwts {
    Jwts::new(&keys(), policy())
}

fn subject() -> Subject {
    Subject {
        account: AccountId::from_bytes([1; 16]),
        email: "ada@example.com".into(),
        user_id: "ada@example.com".into(),
        sign_in: SignInId::from_bytes([2; 16]),
        auth_time: at(NOW - 60),
    }
}

fn issue(class: Class) -> Issued {
    jwts().issue(class, &subject(), JTI, now())
}

/// Signs any header and claims with the relay's own key.
fn forge(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = keys().signing(now()).derive(Purpose::Jwt);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn header() -> Value {
    json!({"typ": "JWT", "alg": "HS256", "kid": keys().signing(now()).kid().to_string()})
}

fn claims(class: Class) -> Value {
    serde_json::to_value(issue(class).claims).unwrap()
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    if new.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = new;
    }
    value
}

fn refused(token: &str) -> JwtError {
    jwts().verify(token, &Class::ALL, now(), &DenyList::default()).unwrap_err()
}

#[test]
fn a_token_is_taken_where_its_class_is_and_nowhere_else() {
    let (jwts, none) = (jwts(), DenyList::default());
    for class in Class::ALL {
        let issued = issue(class);
        for expected in Class::ALL {
            let verdict = jwts.verify(issued.token.expose(), &[expected], now(), &none);
            let right = if class == expected { Ok(issued.claims.clone()) } else { Err(JwtError::Class) };
            assert_eq!(verdict, right, "{class:?} for {expected:?}");
        }
        let either = jwts.verify(issued.token.expose(), &[Class::Daemon, Class::Browser], now(), &none);
        assert_eq!(either.is_ok(), matches!(class, Class::Daemon | Class::Browser));
        assert_eq!(Class::from_name(class.name()), Some(class));
    }
    let other = forge(&header(), &with(claims(Class::Mykube), "aud", json!("Mykube")));
    assert_eq!(refused(&other), JwtError::Class);
}

#[test]
fn each_class_has_its_life_and_its_leeway() {
    let (jwts, none) = (jwts(), DenyList::default());
    for (class, life, leeway) in [
        (Class::Mykube, HOUR, 0),
        (Class::Devices, DAY, 0),
        (Class::Daemon, 30 * DAY, 60),
        (Class::Browser, 30 * DAY, 60),
    ] {
        let issued = issue(class);
        assert_eq!((issued.claims.iat, issued.claims.exp, issued.claims.expires_in()), (NOW, NOW + life, life));
        let at_end = |time| jwts.verify(issued.token.expose(), &[class], time, &none).map(|_| ());
        let end = at(NOW + life + leeway);
        assert_eq!(at_end(end - Duration::from_millis(1)), Ok(()), "{class:?}");
        assert_eq!(at_end(end), Err(JwtError::Expired), "{class:?}");
        // A clock that is set back does not make it a token of another time.
        assert_eq!(at_end(at(0)), Ok(()));
    }
}

#[test]
fn what_a_token_says_is_what_the_contract_has() {
    let claims = claims(Class::Browser);
    let names: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = ["sub", "email", "userId", "iat", "exp", "iss", "aud", "jti", "sid", "auth_time", "boot"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(claims["sub"], "user_01010101010101010101010101010101");
    assert_eq!(claims["auth_time"], NOW - 60);
    assert_eq!(claims["iss"], "https://relay.example.com");
}

/// Computed by another program.
#[test]
fn the_token_is_this() {
    let Issued { token, claims } = issue(Class::Mykube);
    assert_eq!(token.expose(), VECTOR);
    assert_eq!(jwts().verify(VECTOR, &[Class::Mykube], now(), &DenyList::default()), Ok(claims));
    assert_eq!(
        HEXLOWER.encode(&BASE64_URL_SAFE_NO_PAD.decode(VECTOR.rsplit_once('.').unwrap().1).unwrap()),
        "ac06669fbfec822dd96e71013f8456c14671859b144263caf5c7a80a14a3de23"
    );
}

const VECTOR: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiIsImtpZCI6IjE3MGE3MWY4OWM5ZjAyMDUifQ.eyJzdWIiOiJ1c2VyXzAxMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxIiwiZW1haWwiOiJhZGFAZXhhbXBsZS5jb20iLCJ1c2VySWQiOiJhZGFAZXhhbXBsZS5jb20iLCJpYXQiOjE4MDAwMDAwMDAsImV4cCI6MTgwMDAwMzYwMCwiaXNzIjoiaHR0cHM6Ly9yZWxheS5leGFtcGxlLmNvbSIsImF1ZCI6Im15a3ViZSIsImp0aSI6IjAzMDMwMzAzMDMwMzAzMDMwMzAzMDMwMzAzMDMwMzAzIiwic2lkIjoiMDIwMjAyMDIwMjAyMDIwMjAyMDIwMjAyMDIwMjAyMDIiLCJhdXRoX3RpbWUiOjE3OTk5OTk5NDB9.rAZmn7_sgi3ZbnEBP4RWwUZxhZsUQmPK9ceoChSj3iM";

#[test]
fn who_changes_a_token_has_none() {
    let issued = issue(Class::Mykube);
    let token = issued.token.expose();
    for at in 0..token.len() {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let error = jwts().verify(&changed, &[Class::Mykube], now(), &DenyList::default()).unwrap_err();
        assert!(!matches!(error, JwtError::Expired | JwtError::Class), "byte {at}: {error}");
    }
    let other = Keys::from_configured(&[8; 32]).unwrap();
    let theirs = Jwts::new(&other, policy()).issue(Class::Mykube, &subject(), JTI, now());
    assert_eq!(refused(theirs.token.expose()), JwtError::Signature);
}

#[test]
fn what_is_no_token_of_ours_is_refused_for_what_it_is() {
    let good = claims(Class::Mykube);
    let signed = |name: &str, new: Value| forge(&with(header(), name, new), &good);
    let unsigned = |alg: &str| {
        let token = signed("alg", json!(alg));
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let cases = [
        (String::new(), JwtError::Malformed),
        ("a.b".into(), JwtError::Malformed),
        ("a.b.c.d".into(), JwtError::Malformed),
        ("a.b.c".into(), JwtError::Malformed),
        (format!("{}.{}", "x".repeat(5000), ".y"), JwtError::Malformed),
        (unsigned("none"), JwtError::Unsigned),
        (unsigned("HS256"), JwtError::Unsigned),
        (signed("alg", json!("none")), JwtError::Unsigned),
        (signed("alg", json!("nOnE")), JwtError::Unsigned),
        (signed("alg", json!("HS512")), JwtError::Algorithm),
        (signed("alg", json!("RS256")), JwtError::Algorithm),
        (signed("alg", json!("ES256")), JwtError::Algorithm),
        (signed("alg", Value::Null), JwtError::Malformed),
        (signed("alg", json!(["HS256"])), JwtError::Malformed),
        (signed("typ", Value::Null), JwtError::Malformed),
        (signed("typ", json!("at+jwt")), JwtError::Malformed),
        (signed("kid", Value::Null), JwtError::Signature),
        (signed("kid", json!("0000000000000000")), JwtError::Signature),
        (signed("kid", json!("../../dev/null")), JwtError::Signature),
        (signed("jwk", json!({"kty": "oct", "k": "AAAA"})), JwtError::Malformed),
        (signed("crit", json!(["b64"])), JwtError::Malformed),
        (signed("zip", json!("DEF")), JwtError::Malformed),
    ];
    for (token, expected) in cases {
        assert_eq!(refused(&token), expected, "{token}");
    }
    // The control: the same way of forging makes a good one.
    jwts().verify(&forge(&header(), &good), &[Class::Mykube], now(), &DenyList::default()).unwrap();
}

#[test]
fn a_token_without_a_claim_or_with_one_of_another_type_is_refused() {
    let good = claims(Class::Mykube);
    for name in ["sub", "email", "userId", "iat", "exp", "iss", "aud", "jti", "sid", "auth_time"] {
        for new in [Value::Null, json!([]), json!(true), json!(-1), json!(1.5)] {
            assert_eq!(
                refused(&forge(&header(), &with(good.clone(), name, new.clone()))),
                JwtError::Claims,
                "{name} {new}"
            );
        }
    }
    assert_eq!(refused(&forge(&header(), &json!([]))), JwtError::Claims);
    assert_eq!(refused(&forge(&header(), &with(good, "sub", json!("user_x")))), JwtError::Claims);
}

#[test]
fn another_relays_token_is_refused_and_one_of_a_former_address_taken() {
    let signed = |iss: &str| forge(&header(), &with(claims(Class::Mykube), "iss", json!(iss)));
    let verify = |iss: &str| jwts().verify(&signed(iss), &[Class::Mykube], now(), &DenyList::default()).map(|_| ());
    assert_eq!(verify("https://old.example.com"), Ok(()));
    for other in ["https://relay.example.com/", "http://relay.example.com", ""] {
        assert_eq!(verify(other), Err(JwtError::Issuer), "{other}");
    }
}

#[test]
fn a_browsers_token_ends_with_the_relays_start_and_a_daemons_where_that_is_wanted() {
    let next = |boot_ends_daemons| {
        Jwts::new(&keys(), Policy { boot: BootId::from_bytes([0xb1; 16]), boot_ends_daemons, ..policy() })
    };
    let verdict = |jwts: &Jwts, class| {
        jwts.verify(issue(class).token.expose(), &[class], now(), &DenyList::default()).map(|_| ())
    };
    for (class, browser_scope, all) in [
        (Class::Browser, Err(JwtError::Boot), Err(JwtError::Boot)),
        (Class::Daemon, Ok(()), Err(JwtError::Boot)),
        (Class::Mykube, Ok(()), Ok(())),
        (Class::Devices, Ok(()), Ok(())),
    ] {
        assert_eq!((verdict(&next(false), class), verdict(&next(true), class)), (browser_scope, all), "{class:?}");
    }
    // Within one start both are taken, and a daemon's of before the setting is not.
    let strict = Jwts::new(&keys(), Policy { boot_ends_daemons: true, ..policy() });
    let issued = strict.issue(Class::Daemon, &subject(), JTI, now());
    strict.verify(issued.token.expose(), &[Class::Daemon], now(), &DenyList::default()).unwrap();
    assert_eq!(verdict(&strict, Class::Daemon), Err(JwtError::Boot));
}

#[test]
fn tokens_outlive_a_rotation_until_their_secret_is_retired() {
    let mut file = keys();
    let old = issue(Class::Daemon);
    let first = file.signing(now()).kid();
    let second = file.rotate(at(NOW + 10), &mut StdRng::seed_from_u64(1)).unwrap();
    let (jwts, none) = (Jwts::new(&file, policy()), DenyList::default());
    jwts.verify(old.token.expose(), &[Class::Daemon], at(NOW + 20), &none).unwrap();
    let kid_at = |time| {
        let issued = jwts.issue(Class::Daemon, &subject(), JTI, time);
        jwts.verify(issued.token.expose(), &[Class::Daemon], time, &none).unwrap();
        jsonwebtoken::decode_header(issued.token.expose()).unwrap().kid.unwrap()
    };
    assert_eq!((kid_at(at(NOW + 9)), kid_at(at(NOW + 10))), (first.to_string(), second.to_string()));
    file.retire(first, at(NOW + 20), true).unwrap();
    let verdict = Jwts::new(&file, policy()).verify(old.token.expose(), &[Class::Daemon], at(NOW + 20), &none);
    assert_eq!(verdict, Err(JwtError::Signature));
}

#[test]
fn a_denied_token_or_sign_in_is_refused_for_as_long_as_it_could_be_taken() {
    for class in Class::ALL {
        let issued = issue(class);
        let (mut by_token, mut by_sign_in) = (DenyList::default(), DenyList::default());
        by_token.deny_token(&issued.claims);
        by_sign_in.deny_sign_in(issued.claims.sid, now(), issued.claims.expires_at());
        let end = NOW + issued.claims.expires_in();
        for denied in [&mut by_token, &mut by_sign_in] {
            let times: BTreeSet<u64> = (NOW..end + 2 * DAY).step_by(3601).chain(end + DAY - 2..end + DAY + 2).collect();
            for time in times {
                denied.handle_tick(at(time));
                let verdict = jwts().verify(issued.token.expose(), &[class], at(time), denied);
                assert!(matches!(verdict, Err(JwtError::Revoked | JwtError::Expired)), "{class:?} at {time}");
                assert!(jwts().verify_to_renew(issued.token.expose(), at(time), denied).is_err());
            }
            denied.handle_tick(at(end + 3 * DAY));
            assert!(!denied.denies(&issued.claims), "and forgotten");
        }
    }
    let mut denied = DenyList::default();
    let until = denied.deny_sign_in(SignInId::from_bytes([9; 16]), now(), now());
    assert_eq!(until, at(NOW) + DENIED_MIN, "tickets last as long");
    denied.restore_sign_in(SignInId::from_bytes([9; 16]), now());
    denied.handle_tick(at(NOW + 1));
    assert!(denied.denies_sign_in(SignInId::from_bytes([9; 16])), "the later end counts");
    let mut denied_to = DenyList::default();
    let claims = issue(Class::Mykube).claims;
    denied_to.restore_token(claims.jti, at(NOW));
    denied_to.handle_tick(UnixTime::from_millis(now().millis() - 1));
    assert!(denied_to.denies(&claims));
    denied_to.handle_tick(now());
    assert!(!denied_to.denies(&claims), "forgotten at its end");
    denied_to.restore_sign_in(claims.sid, at(NOW));
    denied_to.handle_tick(UnixTime::from_millis(now().millis() - 1));
    assert!(denied_to.denies_sign_in(claims.sid));
    denied_to.handle_tick(now());
    assert!(!denied_to.denies_sign_in(claims.sid), "forgotten at its end");
    let other = Subject { sign_in: SignInId::from_bytes([8; 16]), ..subject() };
    let other = jwts().issue(Class::Mykube, &other, JTI, now());
    jwts().verify(other.token.expose(), &[Class::Mykube], now(), &denied).unwrap();
}

#[test]
fn a_devices_token_is_renewed_up_to_a_day_after_its_end() {
    let (jwts, none) = (jwts(), DenyList::default());
    let issued = issue(Class::Devices);
    let end = issued.claims.exp;
    let renew = |token: &str, time| jwts.verify_to_renew(token, at(time), &none);
    assert_eq!(renew(issued.token.expose(), NOW), Ok(issued.claims.clone()));
    assert_eq!(renew(issued.token.expose(), end + DAY), Ok(issued.claims.clone()), "exactly a day");
    let error = renew(issued.token.expose(), end + DAY + 1).unwrap_err();
    assert_eq!(error, RenewError::TooLate);
    assert_eq!(error.to_string(), "JWT expired more than 24 hours ago. Please re-authenticate.");
    for class in [Class::Mykube, Class::Daemon, Class::Browser] {
        assert_eq!(renew(issue(class).token.expose(), NOW), Err(RenewError::Invalid(JwtError::Class)));
    }
    let garbage = renew("x.y.z", NOW).unwrap_err();
    assert_eq!(garbage.to_string(), "Invalid JWT: cannot decode payload");
    let no_end = forge(&header(), &with(claims(Class::Devices), "exp", Value::Null));
    assert_eq!(renew(&no_end, NOW), Err(RenewError::Undecodable));
    let forged = format!("{}AAAA", &issued.token.expose()[..issued.token.expose().len() - 4]);
    assert_eq!(renew(&forged, NOW).unwrap_err().to_string(), "Invalid JWT: invalid signature");
}

#[test]
fn no_chain_of_renewals_outlives_the_session() {
    let (jwts, none) = (jwts(), DenyList::default());
    let proved = NOW - 60;
    let mut token = issue(Class::Devices);
    let last = loop {
        let time = token.claims.exp + DAY;
        match jwts.verify_to_renew(token.token.expose(), at(time), &none) {
            Ok(claims) => {
                let subject = Subject { auth_time: at(claims.auth_time), ..subject() };
                token = jwts.issue(Class::Devices, &subject, JTI, at(time));
                assert!(token.claims.exp <= proved + 7 * DAY);
            }
            Err(error) => break (error, time),
        }
    };
    assert!(matches!(last.0, RenewError::TooOld | RenewError::TooLate) && last.1 >= proved + 6 * DAY, "{last:?}");
    let fresh = forge(&header(), &with(claims(Class::Devices), "auth_time", json!(NOW - 7 * DAY)));
    assert_eq!(jwts.verify_to_renew(&fresh, now(), &none), Err(RenewError::TooOld));
}

#[test]
fn a_token_can_be_ended_whatever_it_is_if_it_is_ours() {
    for class in Class::ALL {
        let issued = issue(class);
        assert_eq!(jwts().verify_to_revoke(issued.token.expose()), Ok(issued.claims));
    }
    let foreign = forge(&header(), &with(claims(Class::Mykube), "iss", json!("https://evil.example")));
    assert_eq!(jwts().verify_to_revoke(&foreign), Err(JwtError::Issuer));
    assert_eq!(jwts().verify_to_revoke(&format!("{}A", issue(Class::Mykube).token.expose())), Err(JwtError::Signature));
}

#[test]
fn the_published_texts_are_these() {
    let texts = [
        (JwtError::Malformed, "Invalid JWT: jwt malformed"),
        (JwtError::Signature, "Invalid JWT: invalid signature"),
        (JwtError::Unsigned, "Invalid JWT: jwt signature is required"),
        (JwtError::Algorithm, "Invalid JWT: invalid algorithm"),
        (JwtError::Expired, "JWT expired. Please obtain a new token."),
        (JwtError::Revoked, "Invalid JWT: token revoked"),
    ];
    for (error, text) in texts {
        assert_eq!(error.devices_text(), text);
        assert_eq!(error.socket_text(), "Invalid token: Invalid or expired JWT");
    }
}

#[test]
fn debug_shows_no_token_and_no_key() {
    let issued = issue(Class::Mykube);
    let shown = format!("{issued:?} {:?}", jwts());
    assert!(!shown.contains(&issued.token.expose()[..40]) && shown.contains("token: Token"), "{shown}");
    assert!(shown.ends_with(" Jwts"), "{shown}");
}
