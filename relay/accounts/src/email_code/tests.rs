use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::keys::{Keys, Purpose};

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
const MS: Duration = Duration::from_millis(1);

struct Desk {
    row: EmailCode,
    hash: KeyedHash,
    rng: StdRng,
    now: UnixTime,
}

fn desk() -> Desk {
    let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes);
    Desk { row: EmailCode::new("ada@example.com".parse().unwrap()), hash, rng: StdRng::seed_from_u64(1), now: NOW }
}

impl Desk {
    fn ask(&mut self) -> Result<Code, TooManyCodes> {
        self.row.handle_request(false, &self.hash, self.now, &mut self.rng)
    }

    fn try_code(&mut self, code: &str) -> Result<(), CodeError> {
        self.row.handle_verify(&Code::parse(code).unwrap(), &self.hash, self.now)
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        self
    }

    /// The same at another clock.
    fn clone_row(&self) -> Self {
        Self { row: self.row.clone(), now: self.now, ..desk() }
    }

    /// Five wrong tries of a code that was just sent.
    fn lock(&mut self) {
        let code = self.ask().unwrap();
        for left in (1..TRIES).rev() {
            assert_eq!(self.try_code(wrong(&code)), Err(CodeError::Wrong { left }));
        }
        assert!(matches!(self.try_code(wrong(&code)), Err(CodeError::Locked(_))));
    }
}

fn wrong(code: &Code) -> &'static str {
    if code.expose() == "000000" { "000001" } else { "000000" }
}

#[test]
fn a_code_signs_in_once_within_ten_minutes() {
    let mut desk = desk();
    let code = desk.ask().unwrap();
    let last = LIFE.checked_sub(MS).unwrap();
    assert_eq!(desk.pass(last).row.clone().handle_verify(&code, &desk.hash, desk.now), Ok(()));
    assert_eq!(desk.pass(MS).try_code(code.expose()), Err(CodeError::Expired), "exactly ten minutes are over");
    let mut used = self::desk();
    let code = used.ask().unwrap();
    assert_eq!(used.try_code(code.expose()), Ok(()));
    assert_eq!(used.try_code(code.expose()), Err(CodeError::Expired));
    assert_eq!(self::desk().try_code("123456"), Err(CodeError::Expired), "never sent");
}

#[test]
fn a_code_is_of_one_address() {
    let mut ada = desk();
    let code = ada.ask().unwrap();
    let mut eve = EmailCode { email: "eve@example.com".parse().unwrap(), ..ada.row.clone() };
    assert_eq!(eve.handle_verify(&code, &ada.hash, NOW), Err(CodeError::Wrong { left: 4 }));
}

#[test]
fn only_the_newest_code_is_good() {
    let mut desk = desk();
    let first = desk.ask().unwrap();
    let second = desk.pass(PAUSE).ask().unwrap();
    assert_ne!(first.expose(), second.expose());
    assert_eq!(desk.try_code(first.expose()), Err(CodeError::Wrong { left: 4 }));
    assert_eq!(desk.try_code(second.expose()), Ok(()));
}

#[test]
fn the_fifth_wrong_try_locks_for_a_quarter_of_an_hour_and_a_new_code_does_not_unlock() {
    let mut desk = desk();
    desk.lock();
    let locked_at = desk.now;
    let code = desk.pass(PAUSE).ask().unwrap();
    assert_eq!(desk.try_code(code.expose()), Err(CodeError::Locked(Duration::from_mins(14))), "a right code either");
    desk.now = locked_at + LOCK - MS;
    assert_eq!(desk.try_code(code.expose()), Err(CodeError::Locked(MS)));
    desk.now = locked_at + LOCK;
    assert_eq!(desk.try_code(code.expose()), Err(CodeError::Expired), "it was sent fourteen minutes ago");
    let code = desk.ask().unwrap();
    assert_eq!(desk.try_code(wrong(&code)), Err(CodeError::Wrong { left: 4 }), "five tries again");
    assert_eq!(desk.try_code(code.expose()), Ok(()));
}

#[test]
fn where_the_setting_says_so_a_new_code_unlocks_but_not_the_whole_day() {
    let mut desk = desk();
    for _ in 0..3 {
        desk.lock();
        desk.pass(PAUSE);
        let Desk { row, hash, rng, now } = &mut desk;
        let code = row.handle_request(true, hash, *now, rng).unwrap();
        assert_eq!(row.clone().handle_verify(&code, hash, *now), Ok(()));
        desk.pass(HOUR);
    }
    desk.lock();
    assert_eq!(desk.row.wrong_since, Some((NOW, WRONG_A_DAY)));
    desk.pass(HOUR);
    let Desk { row, hash, rng, now } = &mut desk;
    let code = row.handle_request(true, hash, *now, rng).unwrap();
    assert_eq!(row.handle_verify(&code, hash, *now), Err(CodeError::Locked((NOW + DAY).since(*now))));
}

#[test]
fn of_all_the_guesses_of_a_day_twenty_are_judged() {
    let mut desk = desk();
    let mut judged = 0;
    while desk.now < NOW + DAY {
        if let Ok(code) = desk.ask() {
            for _ in 0..10 {
                let before = desk.row.wrong_today(desk.now);
                desk.try_code(wrong(&code)).unwrap_err();
                judged += desk.row.wrong_today(desk.now) - before;
            }
        }
        desk.pass(Duration::from_secs(30));
    }
    assert_eq!(judged, WRONG_A_DAY);
    let code = desk.pass(HOUR).ask().unwrap();
    assert_eq!(desk.try_code(code.expose()), Ok(()), "the next day begins anew");
}

#[test]
fn a_day_of_wrong_tries_is_over_after_a_day_and_the_next_begins_with_its_first() {
    let mut desk = desk();
    desk.lock();
    assert_eq!(desk.row.wrong_since, Some((NOW, TRIES)));
    let code = desk.pass(DAY).ask().unwrap();
    assert_eq!(desk.try_code(wrong(&code)), Err(CodeError::Wrong { left: 4 }));
    assert_eq!(desk.row.wrong_since, Some((NOW + DAY, 1)));
}

#[test]
fn a_code_a_minute_and_five_an_hour() {
    let mut desk = desk();
    desk.ask().unwrap();
    let error = desk.clone_row().pass(Duration::from_secs(18)).ask().unwrap_err();
    assert!(error.to_string().ends_with("try again in 42 s"), "{error}");
    assert_eq!(desk.pass(PAUSE.checked_sub(MS).unwrap()).ask().unwrap_err(), TooManyCodes(MS));
    desk.pass(MS);
    for _ in 1..CODES_AN_HOUR {
        desk.ask().unwrap();
        desk.pass(PAUSE);
    }
    let wait = Duration::from_mins(55);
    assert_eq!(desk.ask().unwrap_err(), TooManyCodes(wait));
    assert_eq!(desk.pass(wait.checked_sub(MS).unwrap()).ask().unwrap_err(), TooManyCodes(MS));
    desk.pass(MS).ask().unwrap();
    assert!(desk.row.asked_at.len() <= CODES_AN_HOUR);
}

#[test]
fn a_row_is_kept_while_it_means_something() {
    let mut desk = desk();
    desk.ask().unwrap();
    assert_eq!(desk.row.useless_at(), NOW + HOUR);
    desk.pass(HOUR).lock();
    assert_eq!(desk.row.useless_at(), NOW + HOUR + DAY);
}

#[test]
fn codes_are_six_digits_however_they_are_typed() {
    let padded = format!("012345{}", " ".repeat(26));
    for (typed, read) in
        [("012345", "012345"), (padded.as_str(), "012345"), (" 012 345\n", "012345"), ("012-345", "012345")]
    {
        assert_eq!(Code::parse(typed).unwrap().expose(), read);
    }
    for typed in ["", "12345", "1234567", "12345a", "\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}", &" ".repeat(40)] {
        assert!(Code::parse(typed).is_none(), "{typed:?}");
    }
    let mut rng = StdRng::seed_from_u64(1);
    let codes: std::collections::BTreeSet<String> =
        (0..2000).map(|_| Code::random(&mut rng).expose().to_owned()).collect();
    assert!(codes.len() > 1950 && codes.iter().all(|code| Code::parse(code).is_some()));
    assert!(codes.first().unwrap().starts_with('0') && codes.last().unwrap().starts_with("99"));
    assert_eq!(format!("{:?}", Code::random(&mut rng)), "Code");
}
