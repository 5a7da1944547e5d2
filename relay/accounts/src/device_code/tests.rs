use std::net::Ipv4Addr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::keys::{Keys, Purpose};
use crate::sign_in::PROGRAM_MAX;

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
const ADA: AccountId = AccountId::from_bytes([1; 16]);
const EVE: AccountId = AccountId::from_bytes([2; 16]);

fn hash() -> KeyedHash {
    KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes)
}

fn begun(client: Client) -> DeviceSignIn {
    begun_as(client, "lukan/0.1", 1).0
}

fn begun_as(client: Client, program: &str, seed: u64) -> (DeviceSignIn, DeviceCode, UserCode) {
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    DeviceSignIn::begin(client, program, from, &hash(), NOW, &mut StdRng::seed_from_u64(seed))
}

fn secs(n: u64) -> UnixTime {
    NOW + Duration::from_secs(n)
}

fn key() -> MachineKey {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    MachineKey::from_bytes(pair.public_key().as_ref()).unwrap()
}

fn by(account: AccountId) -> Confirmation {
    let from = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Confirmation { account, sid: SignInId::from_bytes([3; 16]), auth_time: NOW - Duration::from_hours(1), from }
}

#[test]
fn codes_are_counted_by_site() {
    let network = |from: &str| DeviceSignIn { asked_from: from.parse().unwrap(), ..begun(Client::Daemon) }.network();
    assert_eq!((network("192.0.2.1"), network("::ffff:192.0.2.1")), ("192.0.2.1".into(), "192.0.2.1".into()));
    assert_eq!(network("2001:db8:1:2:3::4"), "2001:db8:1::");
}

#[test]
fn a_code_is_confirmed_once_by_one_account_and_fetched_once() {
    let mut code = begun(Client::Daemon);
    assert_eq!(code.handle_poll(secs(5)), Poll::Pending);
    code.handle_confirm(by(ADA), Credential::Published, secs(7)).unwrap();
    for account in [EVE, ADA] {
        assert_eq!(code.handle_confirm(by(account), Credential::Portal, secs(8)), Err(ConfirmError::Invalid));
    }
    assert_eq!(code.handle_poll(secs(10)), Poll::Authorised(by(ADA)));
    assert_eq!(code.handle_poll(secs(15)), Poll::Expired);
    assert_eq!(code.handle_confirm(by(EVE), Credential::Portal, secs(16)), Err(ConfirmError::Invalid));
    assert_eq!(ConfirmError::Invalid.to_string(), "Invalid or expired code");
}

#[test]
fn a_code_is_over_after_a_quarter_of_an_hour_confirmed_or_not() {
    let mut pending = begun(Client::Daemon);
    let last = NOW + LIFE - Duration::from_millis(1);
    assert_eq!(pending.clone().handle_poll(last), Poll::Pending);
    assert!(pending.is_pending(last) && !pending.is_pending(NOW + LIFE));
    assert_eq!(pending.handle_poll(NOW + LIFE), Poll::Expired);
    assert_eq!(pending.handle_confirm(by(ADA), Credential::Portal, NOW + LIFE), Err(ConfirmError::Invalid));
    let mut confirmed = begun(Client::Daemon);
    confirmed.handle_confirm(by(ADA), Credential::Portal, last).unwrap();
    assert_eq!(confirmed.handle_poll(NOW + LIFE), Poll::Expired);
}

#[test]
fn a_program_that_asks_too_soon_is_told_so_and_loses_nothing() {
    let mut code = begun(Client::Daemon);
    assert_eq!(code.handle_poll(NOW), Poll::Pending, "the first question may come at once");
    code.handle_confirm(by(ADA), Credential::Portal, secs(1)).unwrap();
    for millis in [0, 1000, 3999] {
        assert_eq!(code.handle_poll(NOW + Duration::from_millis(millis)), Poll::TooSoon);
    }
    // A little early is in time, and what was too soon does not count.
    assert_eq!(code.handle_poll(secs(4)), Poll::Authorised(by(ADA)));
}

#[test]
fn a_sign_in_of_our_program_is_confirmed_on_the_portals_page_only() {
    let key = key();
    let mut code = begun(Client::Mykube(key));
    assert_eq!((code.client.class(), begun(Client::Daemon).client.class()), (Class::Mykube, Class::Daemon));
    assert_eq!(code.handle_confirm(by(ADA), Credential::Published, NOW), Err(ConfirmError::Credential));
    assert!(code.is_pending(NOW));
    code.handle_confirm(by(ADA), Credential::Portal, NOW).unwrap();
    assert_eq!(code.handle_poll(NOW), Poll::Authorised(by(ADA)));
}

#[test]
fn codes_are_found_by_their_hashes_however_they_are_typed() {
    let (row, device, user) = begun_as(Client::Daemon, "", 1);
    assert_eq!(DeviceSignIn::device_candidates(device.expose(), &hash()), [row.device_code]);
    let typed = user.expose().replace('-', " ").to_lowercase();
    for typed in [user.expose(), &typed, &format!(" {typed}\n"), &typed.replace(' ', "")] {
        let parsed = UserCode::parse(typed).unwrap();
        assert_eq!(DeviceSignIn::user_candidates(&parsed, &hash()), [row.user_code], "{typed}");
    }
    for typed in ["", "ABCD-EFG", "ABCD-EFGHI", "ÄBCD-EFGH", &"A-".repeat(40)] {
        assert_eq!(UserCode::parse(typed), None, "{typed}");
    }
    // A user code is no device code, though both are hashed with one key.
    assert_ne!(DeviceSignIn::device_candidates(user.expose(), &hash()), [row.user_code]);
}

#[test]
fn codes_have_the_published_forms() {
    for seed in 0..200 {
        let (_, device, user) = begun_as(Client::Daemon, "", seed);
        let bytes = device.expose().as_bytes();
        assert!(bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-'), "{}", device.expose());
        assert!(bytes[14] == b'4' && b"89ab".contains(&bytes[19]), "version 4: {}", device.expose());
        let (first, last) = user.expose().split_once('-').unwrap();
        assert!([first, last].iter().all(|half| half.len() == 4 && half.bytes().all(|b| ALPHABET.contains(&b))));
        assert_eq!(UserCode::parse(user.expose()).as_ref(), Some(&user));
    }
    let (_, device, user) = begun_as(Client::Daemon, "", 1);
    assert_eq!(format!("{device:?} {user:?}"), "DeviceCode UserCode");
}

#[test]
fn what_a_program_calls_itself_is_plain_and_short() {
    let name = |program: &str| begun_as(Client::Daemon, program, 1).0.program;
    assert_eq!(name("lukan/0.1 (x)"), "lukan/0.1 (x)");
    assert_eq!(name("a\r\nb\u{202e}c\0d"), "abcd");
    assert_eq!(name(&"x".repeat(1000)).len(), PROGRAM_MAX);
}
