use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::keys::{Keys, Purpose};

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn token(kind: Kind, name: &str) -> Token {
    Token::random(kind, name.parse().unwrap(), &mut StdRng::seed_from_u64(1))
}

fn hash() -> KeyedHash {
    KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Tokens)
}

#[test]
fn a_token_has_the_documented_form_whatever_the_name() {
    let longest = "a".repeat(63);
    for (kind, prefix) in [(Kind::App, "rlk_"), (Kind::Agent, "rla_")] {
        for name in ["ci", "athena_k9p2m3", "a_", "a-_-b", &longest] {
            let token = token(kind, name);
            let text = token.expose();
            let random = text.strip_prefix(&format!("{prefix}{name}_")).unwrap();
            assert!(
                random.len() >= 40 && random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{text}"
            );
            let parsed = Token::parse(text).unwrap();
            assert_eq!((parsed.kind(), parsed.name().as_str(), parsed.expose()), (kind, name, text));
        }
    }
    assert_eq!(format!("{:?}", token(Kind::Agent, "prod")), "Token(Agent prod)");
}

#[test]
fn what_has_not_the_form_is_refused_before_anything_is_hashed() {
    let good = token(Kind::Agent, "prod");
    let text = good.expose();
    let random = &text["rla_prod_".len()..];
    let all = [
        String::new(),
        text[..text.len() - 1].to_owned(),
        format!("{text}a"),
        format!(" {text}"),
        format!("{text}="),
        text.to_uppercase(),
        text.replacen("rla", "rlx", 1),
        text.replacen("prod", "Prod", 1),
        text.replacen("prod", "483", 1),
        format!("rla__{random}"),
        format!("rla_{random}"),
        format!("rla_prod_{}", "1".repeat(52)),
        format!("rla_{}_{random}", "a".repeat(64)),
    ];
    for other in all {
        assert!(Token::parse(&other).is_none(), "{other}");
    }
}

#[test]
fn a_token_is_found_by_its_digest_and_kept_anew_after_a_rotation() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut keys = Keys::generate(&mut rng);
    let token = token(Kind::App, "ci");
    let kept = token.digest(&KeyedHash::new(&keys, Purpose::Tokens), NOW);
    let kid = keys.rotate(NOW, &mut rng).unwrap();
    let hash = KeyedHash::new(&keys, Purpose::Tokens);
    let candidates = token.candidates(&hash);
    assert_eq!(candidates, [token.digest(&hash, NOW), kept]);
    assert_eq!((candidates[0].0, candidates[0].1 != kept.1), (kid, true));
    let other = Token::random(Kind::App, "ci".parse().unwrap(), &mut StdRng::seed_from_u64(2));
    assert!(other.candidates(&hash).iter().all(|candidate| !candidates.contains(candidate)));
}

/// Computed by another program (libxcrypt).
#[test]
fn the_bcrypt_hash_is_this() {
    let text = format!("rla_prod_{}", "a".repeat(52));
    let token = Token::parse(&text).unwrap();
    assert_eq!(token.slow_hash([7; 16]), "$2b$12$/uaF/uaF/uaF/uaF/uaF/uOElMljXLJB2u5RcJjyheUj7PM5gabcO");
    assert!(token.verify_slow("$2b$12$/uaF/uaF/uaF/uaF/uaF/uOElMljXLJB2u5RcJjyheUj7PM5gabcO"));
    let other = Token::parse(&format!("rla_prod_{}b{}", "a".repeat(50), "a")).unwrap();
    assert!(!other.verify_slow("$2b$12$/uaF/uaF/uaF/uaF/uaF/uOElMljXLJB2u5RcJjyheUj7PM5gabcO"));
    for wrong in [
        "",
        "x",
        "$2b$04$/uaF/uaF/uaF/uaF/uaF/ukBM2g5ytIFosGxLvBXZBwhDWbGLIumG",
        "$2b$31$/uaF/uaF/uaF/uaF/uaF/uOElMljXLJB2u5RcJjyheUj7PM5gabcO",
    ] {
        assert!(!token.verify_slow(wrong), "{wrong}");
    }
}

/// The random part is the last: bcrypt by itself would not read it.
#[test]
fn the_end_of_a_long_token_counts() {
    let name = "a".repeat(63);
    let text = |last: &str| format!("rla_{name}_{}{last}", "a".repeat(51));
    let inputs = ["a", "q"].map(|last| Token::parse(&text(last)).unwrap().slow_input().to_string());
    assert!(inputs[0] != inputs[1] && inputs.iter().all(|input| input.len() == 44));
}

fn row() -> TokenRow {
    let token = token(Kind::Agent, "prod");
    let (kid, digest) = token.digest(&hash(), NOW);
    TokenRow {
        organisation: OrganisationId::from_bytes([1; 16]),
        kind: Kind::Agent,
        name: "prod".parse().unwrap(),
        generation: 1,
        kid,
        digest,
        slow: String::new(),
        vouched: None,
        created_at: NOW,
        expires_at: None,
        replaced_until: None,
        strict: false,
        revoked_at: None,
    }
}

#[test]
fn a_token_works_where_its_kind_belongs_until_it_ends() {
    let ms = Duration::from_millis(1);
    assert_eq!((row().judge(Kind::Agent, NOW), row().ends_at()), (Ok(()), None));
    assert_eq!(row().judge(Kind::App, NOW), Err(TokenError::Kind));
    let expiring = TokenRow { expires_at: Some(NOW + ROTATION), ..row() };
    assert_eq!(expiring.judge(Kind::Agent, NOW + ROTATION - ms), Ok(()));
    assert_eq!(expiring.judge(Kind::Agent, NOW + ROTATION), Err(TokenError::Expired));
    let mut revoked = row();
    revoked.handle_revoke(NOW);
    revoked.handle_revoke(NOW + ms);
    assert_eq!((revoked.judge(Kind::Agent, NOW), revoked.ends_at()), (Err(TokenError::Revoked), Some(NOW)));
}

#[test]
fn a_replaced_token_works_for_an_hour_and_one_replaced_twice_no_more() {
    let mut old = row();
    old.handle_replaced(false, NOW);
    let end = NOW + ROTATION;
    assert_eq!(old.judge(Kind::Agent, end - Duration::from_millis(1)), Ok(()));
    assert_eq!((old.judge(Kind::Agent, end), old.ends_at()), (Err(TokenError::Replaced), Some(end)));
    let mut oldest = old.clone();
    oldest.handle_replaced(false, NOW + Duration::from_mins(30));
    assert_eq!(oldest.ends_at(), Some(NOW + Duration::from_mins(30)), "two are alive at most");
    old.handle_replaced(false, end + ROTATION);
    assert_eq!(old.ends_at(), Some(end), "and none comes back");
}

#[test]
fn a_token_that_was_replaced_strictly_opens_nothing_and_what_it_opened_lives_for_the_hour() {
    let mut old = row();
    old.handle_replaced(true, NOW);
    assert_eq!((old.judge(Kind::Agent, NOW), old.ends_at()), (Err(TokenError::Replaced), Some(NOW + ROTATION)));
    old.handle_replaced(false, NOW);
    assert_eq!(old.judge(Kind::Agent, NOW), Err(TokenError::Replaced), "and never again");
}

#[test]
fn what_vouches_for_a_row_is_of_both_its_hashes_and_of_this_relay() {
    let mut keys = Keys::generate(&mut StdRng::seed_from_u64(1));
    let hash = KeyedHash::new(&keys, Purpose::Tokens);
    assert!(!row().is_vouched(&hash));
    let vouched = TokenRow { vouched: Some(row().vouch(&hash, NOW)), ..row() };
    assert!(vouched.is_vouched(&hash));
    assert!(!TokenRow { slow: "another".to_owned(), ..vouched.clone() }.is_vouched(&hash));
    let digest = Digest::from_bytes([7; 32]);
    assert!(!TokenRow { digest, ..vouched.clone() }.is_vouched(&hash));
    let other = KeyedHash::new(&Keys::generate(&mut StdRng::seed_from_u64(2)), Purpose::Tokens);
    assert!(!vouched.is_vouched(&other), "of another relay");
    keys.rotate(NOW, &mut StdRng::seed_from_u64(3)).unwrap();
    assert!(vouched.is_vouched(&KeyedHash::new(&keys, Purpose::Tokens)), "of a secret that was rotated");
}
