//! Random schedules of an owner with several processes, a network that loses and holds up, and thieves who copied all that
//! the machine has, its key included. Who has signed what is left out: it is the same key.

use std::collections::VecDeque;

use rand::RngExt as _;

use super::*;

const SCHEDULES: u64 = 100_000;
const STEPS: u32 = 14;

/// What a machine has stored, and a copy of it.
struct Stored {
    token: String,
    /// That it has the token, the relay has been told.
    told: bool,
}

/// A request that the network may bring later, or twice.
struct Sent {
    received: bool,
    token: String,
    time: u64,
}

struct World {
    desk: Desk,
    owner: Stored,
    /// On its way for too long: the owner has stopped waiting for the answers.
    held_up: VecDeque<Sent>,
    thieves: Vec<Thief>,
    rng: StdRng,
    /// By how many milliseconds the owner's clock is ahead of the relay's. What it was at the sign-in the machine corrects;
    /// later it may have lost any time, and has not gained more than [`CLOCK`].
    skew: i64,
    /// The relay's own clock is an hour ahead.
    ahead: bool,
}

/// By how much the relay's own clock jumps, ahead and back.
const JUMP: Duration = Duration::from_hours(1);

/// What happens besides refreshes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Odds {
    thieves: bool,
    jumps: bool,
}

/// Has copied the machine at one moment.
struct Thief {
    token: String,
    /// All it was ever given or copied.
    had: Vec<String>,
    /// The owner has finished a refresh since the copy: nothing of this is worth anything.
    past: bool,
    /// It got an answer since the copy.
    got: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Finished {
    Yes,
    No,
    SignedOut,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut desk, token) = desk();
        desk.rng = StdRng::seed_from_u64(seed);
        let mut rng = StdRng::seed_from_u64(!seed);
        let skew = if rng.random_bool(0.2) { rng.random_range(-3_600_000..300_000) } else { 0 };
        let owner = Stored { token: token.expose().to_owned(), told: true };
        Self { desk, owner, held_up: VecDeque::new(), thieves: Vec::new(), rng, skew, ahead: false }
    }

    fn relay(&mut self, sent: &Sent) -> Result<Option<String>, Refusal> {
        let token = RefreshToken::parse(&sent.token).unwrap();
        let desk = &mut self.desk;
        if sent.received {
            desk.family.received(&token, sent.time, &desk.hash, desk.now).map(|()| None)
        } else {
            let refreshed = desk.family.refresh(&token, sent.time, &desk.hash, desk.now, &mut desk.rng)?;
            Ok(Some(refreshed.token.expose().to_owned()))
        }
    }

    fn pass(&mut self, millis: u64) {
        self.desk.now = self.desk.now + Duration::from_millis(millis);
    }

    /// The relay's clock is set, and the owner's is not.
    fn jump(&mut self, thieves: bool) {
        let by = i64::try_from(JUMP.as_millis()).unwrap();
        self.ahead = !self.ahead;
        if self.ahead {
            self.desk.now = self.desk.now + JUMP;
            self.skew -= by;
        } else {
            self.desk.now = self.desk.now - JUMP;
            self.skew += by;
            // What was signed for the hour that comes again may end a sign-in when it is shown then: see below.
            if !thieves {
                self.held_up.clear();
            }
        }
    }

    /// One request of the owner's, signed again where the relay says that the time is wrong. None: no answer came.
    fn ask(&mut self, received: bool) -> Option<Result<Option<String>, Refusal>> {
        let mut time = millis(self.desk.now).saturating_add_signed(self.skew);
        loop {
            let sent = Sent { received, token: self.owner.token.clone(), time };
            match self.rng.random_range(0..10) {
                // The request is lost.
                0 => return None,
                // It comes late, when nobody waits for its answer.
                1 => {
                    self.held_up.push_back(sent);
                    return None;
                }
                fate => {
                    let answer = self.relay(&sent);
                    if fate == 2 {
                        // Something on the way repeats it later.
                        self.held_up.push_back(sent);
                    }
                    if fate == 3 {
                        return None;
                    }
                    match answer {
                        Err(Refusal::Time { now, after }) => time = now.max(after + 1),
                        answer => return Some(answer),
                    }
                }
            }
        }
    }

    /// A process of the owner's refreshes: one at a time has the lock, and any may be killed at any point.
    fn owner_refreshes(&mut self) -> Finished {
        match self.ask(false) {
            None => return Finished::No,
            Some(Err(Refusal::Theft | Refusal::Ended)) => return Finished::SignedOut,
            Some(Err(refusal)) => panic!("an owner is never refused for {refusal:?}"),
            Some(Ok(next)) => {
                if self.rng.random_bool(0.1) {
                    // Killed before it stored the answer.
                    return Finished::No;
                }
                self.owner = Stored { token: next.unwrap(), told: false };
            }
        }
        if self.rng.random_bool(0.1) {
            return Finished::No;
        }
        self.owner_tells()
    }

    fn owner_tells(&mut self) -> Finished {
        match self.ask(true) {
            None => Finished::No,
            Some(Err(Refusal::Theft | Refusal::Ended)) => Finished::SignedOut,
            Some(Err(refusal)) => panic!("an owner is never refused for {refusal:?}"),
            Some(Ok(_)) => {
                self.owner.told = true;
                Finished::Yes
            }
        }
    }

    fn steal(&mut self) {
        let token = self.owner.token.clone();
        self.thieves.push(Thief { had: vec![token.clone()], token, past: false, got: false });
    }

    /// A thief shows what it got last or anything it ever had, with the time that suits it best.
    fn thief_refreshes(&mut self, which: usize) {
        let token = if self.rng.random_bool(0.6) {
            self.thieves[which].token.clone()
        } else {
            let had = &self.thieves[which].had;
            had[self.rng.random_range(0..had.len())].clone()
        };
        let ahead = millis(self.desk.now + CLOCK);
        let time = match self.rng.random_range(0..5) {
            0 => u64::MAX - 1,
            1 | 2 => (self.desk.family.signed_at + 1).min(ahead),
            _ => ahead,
        };
        let received = self.rng.random_bool(0.3);
        let answer = self.relay(&Sent { received, token: token.clone(), time });
        let thief = &mut self.thieves[which];
        assert!(!(thief.past && answer.is_ok()), "a thief outlived the owner's refresh");
        if let Ok(next) = answer {
            thief.got = true;
            if let Some(next) = next {
                thief.had.push(next.clone());
                thief.token = next;
            }
        }
    }

    /// One schedule. Says whether the owner was signed out, and whether a thief ever got an answer.
    fn run(mut self, Odds { thieves, jumps }: Odds) -> (bool, bool) {
        let mut stolen = false;
        for _ in 0..STEPS {
            if jumps && self.rng.random_bool(0.3) {
                self.jump(thieves);
            }
            let pause = [10, 60_000, 3_300_000, 86_400_000][self.rng.random_range(0..4)];
            self.pass(pause);
            match self.rng.random_range(0..10) {
                0 | 1 if thieves && self.thieves.len() < 3 => self.steal(),
                2..5 if !self.thieves.is_empty() => {
                    let which = self.rng.random_range(0..self.thieves.len());
                    self.thief_refreshes(which);
                    stolen |= self.thieves[which].got;
                }
                5 => {
                    if let Some(sent) = self.held_up.pop_front() {
                        let _ = self.relay(&sent);
                    }
                }
                step => {
                    let tells = step == 6 && !self.owner.told;
                    match if tells { self.owner_tells() } else { self.owner_refreshes() } {
                        // From here on no copy of before is worth anything.
                        Finished::Yes => {
                            let token = &self.owner.token;
                            let before = self.thieves.iter_mut().filter(|thief| !thief.had.contains(token));
                            before.for_each(|thief| thief.past = true);
                        }
                        Finished::No => {}
                        Finished::SignedOut => return (true, stolen),
                    }
                }
            }
        }
        (false, stolen)
    }
}

#[test]
fn no_thief_lives_past_the_owners_next_refresh() {
    thieves(false);
}

#[test]
fn no_thief_gains_by_a_relay_whose_clock_jumps_an_hour() {
    thieves(true);
}

fn thieves(jumps: bool) {
    let (mut signed_out, mut stolen) = (0, 0);
    for seed in 0..SCHEDULES {
        let (out, got) = World::new(seed).run(Odds { thieves: true, jumps });
        signed_out += u32::from(out);
        stolen += u32::from(got);
    }
    // The schedules are worth something only if both happen often.
    assert!(signed_out > 10_000 && stolen > 30_000, "{signed_out} {stolen}");
}

#[test]
fn no_honest_person_is_signed_out() {
    honest(false);
}

#[test]
fn no_honest_person_is_signed_out_by_a_relay_whose_clock_jumps_an_hour() {
    honest(true);
}

fn honest(jumps: bool) {
    let mut refreshed = 0;
    for seed in 0..SCHEDULES {
        let mut world = World::new(seed);
        let first = world.owner.token.clone();
        world.pass(1000);
        if jumps && seed % 2 == 0 {
            world.jump(false);
        }
        world.owner_refreshes();
        refreshed += u32::from(world.owner.token != first);
        let (out, _) = world.run(Odds { thieves: false, jumps });
        assert!(!out, "seed {seed}");
    }
    assert!(refreshed > 50_000, "{refreshed}");
}

/// What a relay whose clock is an hour ahead is sent, and somebody records, is good for nothing when it is right again, but
/// for ending the sign-in when that hour comes: to end one too many is better than to keep a thief.
#[test]
fn a_request_of_an_hour_that_comes_twice_signs_nobody_else_in() {
    let (mut desk, first) = desk();
    desk.now = desk.now + JUMP;
    let recorded = millis(desk.now) + 1000;
    let second = desk.refresh(&first).unwrap();
    desk.received(&second.token).unwrap();
    desk.now = desk.now - JUMP;
    let soon = desk.family.refresh(&first, recorded, &desk.hash, desk.now, &mut desk.rng).unwrap_err();
    assert!(matches!(soon, Refusal::Time { .. }), "it is not of now");
    // The machine is told a time that is taken.
    let Refusal::Time { now, after } = desk.refresh(&second.token).unwrap_err() else { panic!("a time") };
    let third = desk.family.refresh(&second.token, now.max(after + 1), &desk.hash, desk.now, &mut desk.rng).unwrap();
    desk.now = desk.now + JUMP - CLOCK / 2;
    let late = desk.family.refresh(&first, recorded, &desk.hash, desk.now, &mut desk.rng).unwrap_err();
    assert_eq!(late, Refusal::Theft);
    assert_eq!(desk.refresh(&third.token).unwrap_err(), Refusal::Ended);
}
