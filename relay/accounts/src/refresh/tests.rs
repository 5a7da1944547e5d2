use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::keys::{Keys, Purpose};

mod schedules;

const URL: &str = "https://relay.example.com";
const START: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn hash() -> KeyedHash {
    KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Refresh)
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn millis(time: UnixTime) -> u64 {
    u64::try_from(time.millis()).unwrap()
}

fn pair() -> (EcdsaKeyPair, MachineKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = MachineKey::from_bytes(pair.public_key().as_ref()).unwrap();
    (pair, public)
}

/// A family on a clock of its own: each request comes a second after the last.
struct Desk {
    family: Family,
    hash: KeyedHash,
    now: UnixTime,
    rng: StdRng,
}

fn desk() -> (Desk, RefreshToken) {
    let (sid, account) = (SignInId::from_bytes([2; 16]), AccountId::from_bytes([1; 16]));
    let (family, token) = Family::new(sid, account, pair().1, &hash(), START, &mut rng());
    (Desk { family, hash: hash(), now: START, rng: StdRng::seed_from_u64(2) }, token)
}

impl Desk {
    fn refresh(&mut self, token: &RefreshToken) -> Result<Refreshed, Refusal> {
        self.now = self.now + Duration::from_secs(1);
        self.family.refresh(token, millis(self.now), &self.hash, self.now, &mut self.rng)
    }

    fn received(&mut self, token: &RefreshToken) -> Result<(), Refusal> {
        self.now = self.now + Duration::from_secs(1);
        self.family.received(token, millis(self.now), &self.hash, self.now)
    }
}

#[test]
fn each_token_is_good_for_one_successor() {
    let (mut desk, first) = desk();
    let second = desk.refresh(&first).unwrap();
    assert_eq!(second.denied, None);
    let third = desk.refresh(&second.token).unwrap();
    assert_eq!(third.denied, None, "what has arrived is not void");
    assert!(desk.family.is_live(desk.now));
    assert_eq!(desk.refresh(&first).unwrap_err(), Refusal::Theft, "spent");
    assert_eq!(desk.refresh(&third.token).unwrap_err(), Refusal::Ended, "for the owner too");
    assert_eq!(desk.family.ended.map(|(_, why)| why), Some(End::Theft));
}

#[test]
fn a_lost_answer_is_asked_for_again_and_voids_what_was_lost() {
    let (mut desk, first) = desk();
    let lost = desk.refresh(&first).unwrap();
    desk.now = desk.now + Duration::from_hours(29 * 24);
    let again = desk.refresh(&first).unwrap();
    assert_eq!(again.denied, Some(lost.access), "the access token too");
    let third = desk.refresh(&again.token).unwrap();
    assert_eq!(desk.refresh(&lost.token).unwrap_err(), Refusal::Theft, "void");
    assert_eq!(desk.refresh(&third.token).unwrap_err(), Refusal::Ended);
}

#[test]
fn what_has_been_received_spends_what_was_before_it() {
    let (mut desk, first) = desk();
    let second = desk.refresh(&first).unwrap();
    desk.received(&second.token).unwrap();
    desk.received(&second.token).unwrap();
    let mut thief = Desk { family: desk.family.clone(), hash: hash(), now: desk.now, rng: StdRng::seed_from_u64(3) };
    assert_eq!(thief.refresh(&first).unwrap_err(), Refusal::Theft);
    let third = desk.refresh(&second.token).unwrap();
    // That it has the second it may say again while the third is on its way.
    desk.received(&second.token).unwrap();
    desk.refresh(&third.token).unwrap();
    assert_eq!(desk.received(&first).unwrap_err(), Refusal::Theft);
}

#[test]
fn a_request_that_was_held_up_does_nothing() {
    let (mut desk, first) = desk();
    let held_up = millis(desk.now) + 500;
    let second = desk.refresh(&first).unwrap();
    desk.received(&second.token).unwrap();
    let before = desk.family.clone();
    let now = desk.now;
    for time in [held_up, before.signed_at] {
        let verdict = desk.family.refresh(&first, time, &desk.hash, now, &mut desk.rng).unwrap_err();
        assert_eq!(verdict, Refusal::Time { now: millis(now), after: before.signed_at });
        desk.family.received(&first, time, &desk.hash, now).unwrap_err();
    }
    assert_eq!(desk.family, before);
    desk.refresh(&second.token).unwrap();
}

#[test]
fn a_statement_of_another_time_is_refused_with_the_relays() {
    let (mut desk, first) = desk();
    let now = START + Duration::from_hours(1);
    let take = |desk: &mut Desk, time| desk.family.refresh(&first, time, &desk.hash, now, &mut rng()).map(|_| ());
    let refused = Err(Refusal::Time { now: millis(now), after: 0 });
    for time in [0, u64::MAX, millis(now + CLOCK) + 1, millis(now - CLOCK) - 1] {
        assert_eq!(take(&mut desk, time), refused, "{time}");
    }
    for time in [millis(now - CLOCK), millis(now + CLOCK)] {
        assert_eq!(take(&mut desk, time), Ok(()), "{time}");
    }
    let last = millis(now + CLOCK);
    assert_eq!(take(&mut desk, last), Err(Refusal::Time { now: millis(now), after: last }), "the last time, again");
}

#[test]
fn a_family_ends_when_it_is_idle_and_when_it_is_old() {
    let (mut idle, first) = desk();
    idle.now = START + IDLE - Duration::from_millis(1001);
    let second = idle.refresh(&first).unwrap();
    let since = idle.now;
    assert_eq!(idle.family.ends_at(), since + IDLE);
    assert!(idle.family.is_live(since + IDLE - Duration::from_millis(1)));
    idle.now = since + IDLE - Duration::from_secs(1);
    assert_eq!(idle.refresh(&second.token).unwrap_err(), Refusal::Ended);
    assert_eq!(idle.family.ended, None, "nobody ended it");

    let (mut old, mut token) = desk();
    for day in 1..90 {
        old.now = START + Duration::from_hours(24 * day);
        token = old.refresh(&token).unwrap().token;
    }
    assert_eq!((old.family.ends_at(), old.family.denied_until()), (START + LIFE, START + LIFE));
    old.now = START + LIFE - Duration::from_secs(1);
    assert_eq!(old.refresh(&token).unwrap_err(), Refusal::Ended);
}

#[test]
fn a_family_that_was_ended_stays_so() {
    let (mut desk, first) = desk();
    let second = desk.refresh(&first).unwrap();
    let now = desk.now;
    desk.family.end(now, End::Revoked);
    desk.family.end(now + Duration::from_secs(1), End::Theft);
    assert_eq!(desk.family.ended, Some((now, End::Revoked)));
    for token in [&first, &second.token] {
        assert_eq!(desk.refresh(token).unwrap_err(), Refusal::Ended);
        assert_eq!(desk.received(token).unwrap_err(), Refusal::Ended);
    }
}

#[test]
fn nobody_without_the_machines_key_changes_anything() {
    let ((machine, key), (stranger, _)) = (pair(), pair());
    let (sid, account) = (SignInId::from_bytes([2; 16]), AccountId::from_bytes([1; 16]));
    let mut rng = rng();
    let (mut family, token) = Family::new(sid, account, key, &hash(), START, &mut rng);
    let urls = [URL.to_owned()];
    let signed = |pair: &EcdsaKeyPair, act, shown: &RefreshToken, url: &str| {
        let statement = Statement { act, shown: shown.expose(), time: millis(START) };
        pair.sign(&SystemRandom::new(), &statement.bytes(url)).unwrap().as_ref().to_vec()
    };
    let invented = RefreshToken::random(sid, &mut rng);
    let foreign = RefreshToken::random(SignInId::from_bytes([3; 16]), &mut rng);
    let before = family.clone();
    for (shown, signature) in [
        (&token, vec![]),
        (&token, signed(&stranger, Act::Refresh, &token, URL)),
        (&token, signed(&machine, Act::Received, &token, URL)),
        (&token, signed(&machine, Act::Refresh, &token, "https://other.example")),
        (&token, signed(&machine, Act::Refresh, &invented, URL)),
        (&invented, signed(&stranger, Act::Refresh, &invented, URL)),
        (&foreign, signed(&machine, Act::Refresh, &foreign, URL)),
    ] {
        let request = Request { token: shown, time: millis(START), signature: &signature };
        let verdict = family.handle_refresh(request, &urls, &hash(), START, &mut rng).unwrap_err();
        assert_eq!((verdict, &family), (Refusal::Signature, &before));
    }
    let refresh = signed(&machine, Act::Refresh, &token, URL);
    let request = Request { token: &token, time: millis(START), signature: &refresh };
    assert_eq!(family.handle_received(request, &urls, &hash(), START), Err(Refusal::Signature));
    let given = family.handle_refresh(request, &urls, &hash(), START, &mut rng).unwrap();
    let again = family.handle_refresh(request, &urls, &hash(), START, &mut rng).unwrap_err();
    assert!(matches!(again, Refusal::Time { .. }), "a recorded request is worth nothing");

    let time = millis(START) + 1;
    let statement = Statement { act: Act::Received, shown: given.token.expose(), time };
    let signature = machine.sign(&SystemRandom::new(), &statement.bytes(URL)).unwrap();
    let request = Request { token: &given.token, time, signature: signature.as_ref() };
    assert_eq!(family.handle_received(request, &urls, &hash(), START), Ok(()));
    assert_eq!(family.successor, None);
}

#[test]
fn a_relay_whose_clock_was_ahead_goes_on_when_it_is_set_back() {
    let (mut desk, first) = desk();
    let start = desk.now;
    desk.now = desk.now + Duration::from_hours(24);
    let second = desk.refresh(&first).unwrap();
    desk.now = start;
    let Refusal::Time { now, after } = desk.refresh(&second.token).unwrap_err() else { panic!("it is not taken") };
    assert!(after < now + 300_000, "there is a time that is later");
    let time = now.max(after + 1);
    let third = desk.family.refresh(&second.token, time, &desk.hash, desk.now, &mut desk.rng).unwrap();
    desk.now = desk.now + Duration::from_mins(6);
    desk.refresh(&third.token).unwrap();
}
