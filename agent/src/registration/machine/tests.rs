//! A registration on a clock of the test's own, with a relay that the test plays.

use mykube_protocol::{
    close::{POLICY, RESTART, retry_reason},
    control::{Challenge, Error, Welcome},
};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

struct Scene {
    machine: Machine,
    now: Instant,
    rng: StdRng,
}

impl Scene {
    fn new() -> Self {
        Self { machine: Machine::new(), now: Instant::now(), rng: StdRng::seed_from_u64(7) }
    }

    fn command(&mut self) -> Option<Command> {
        self.machine.poll_command()
    }

    fn event(&mut self) -> Option<Event> {
        self.machine.poll_event()
    }

    fn say(&mut self, message: &FromRelay) {
        let text = serde_json::to_string(message).unwrap();
        self.machine.handle_text(self.now, &text, &mut self.rng);
    }

    fn challenge(&mut self, nonce: &str) {
        self.say(&FromRelay { challenge: Some(Challenge { nonce: nonce.to_owned() }), ..FromRelay::default() });
    }

    fn welcome(&mut self) {
        self.say(&FromRelay { welcome: Some(Welcome { protocol: 3 }), ..FromRelay::default() });
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.machine.handle_closed(self.now, Some(code), reason, &mut self.rng);
    }

    /// From a dial to a live channel.
    fn register(&mut self) {
        assert_eq!(self.command(), Some(Command::Dial));
        self.machine.handle_dialled(self.now);
        self.challenge(&"07".repeat(32));
        assert_eq!(self.command(), Some(Command::Hello([7; 32])));
        assert_eq!(self.event(), None, "not yet");
        self.welcome();
        assert_eq!((self.event(), self.command()), (Some(Event::Live), None));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now, &mut self.rng);
    }

    /// Waits for the next dial, and says for how long.
    fn until_dial(&mut self) -> Duration {
        let due = self.machine.poll_timeout().unwrap();
        let time = due - self.now;
        self.wait(time.saturating_sub(Duration::from_millis(1)));
        assert_eq!(self.command(), None);
        self.wait(Duration::from_millis(1));
        time
    }

    fn fail(&mut self) {
        assert_eq!(self.command(), Some(Command::Dial));
        let failure = Failure::Other("connection refused".to_owned());
        self.machine.handle_dial_failed(self.now, failure, &mut self.rng);
    }
}

fn lost(event: Option<Event>) -> String {
    match event {
        Some(Event::Lost { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relay_that_is_gone_is_dialled_ever_more_seldom_and_told_of_once() {
    let mut scene = Scene::new();
    scene.register();
    scene.machine.handle_closed(scene.now, None, "the connection was reset", &mut scene.rng);
    assert_eq!(scene.command(), Some(Command::HangUp));
    assert_eq!(lost(scene.event()), "the connection was reset");
    for most in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let waited = scene.until_dial();
        assert!(waited <= Duration::from_secs(most) && waited >= Duration::from_secs(most) / 2, "{waited:?} of {most}");
        scene.fail();
        assert_eq!(scene.event(), None);
    }
    scene.until_dial();
    scene.register();
    // It lasted: a first redial again.
    scene.wait(GOOD);
    scene.machine.handle_closed(scene.now, None, "x", &mut scene.rng);
    scene.command();
    assert!(scene.until_dial() <= RETRY);
}

#[test]
fn a_relay_that_closes_at_once_is_not_dialled_in_a_loop() {
    let mut scene = Scene::new();
    let mut waits = Vec::new();
    for _ in 0..8 {
        scene.register();
        scene.close(RESTART, "");
        scene.command();
        scene.event();
        waits.push(scene.until_dial());
    }
    assert!(waits[7] >= RETRY_MAX / 2, "{waits:?}");
}

#[test]
fn a_token_that_is_refused_or_ended_is_not_shown_again() {
    let mut scene = Scene::new();
    scene.command();
    scene.machine.handle_dial_failed(scene.now, Failure::TokenRefused, &mut scene.rng);
    assert_eq!((scene.event(), scene.command()), (Some(Event::TokenRefused), None));
    assert!(scene.machine.is_over() && scene.machine.poll_timeout().is_none());

    let mut scene = Scene::new();
    scene.register();
    scene.close(TOKEN_ENDED, "revoked");
    assert_eq!((scene.event(), scene.command()), (Some(Event::TokenRefused), Some(Command::HangUp)));
    scene.wait(Duration::from_hours(1));
    assert!(scene.machine.is_over() && scene.command().is_none());
}

#[test]
fn who_was_replaced_comes_back_seldom() {
    let mut scene = Scene::new();
    for most in [60, 120, 240, 480, 900, 900] {
        scene.register();
        scene.close(REPLACED, "");
        assert!(matches!(scene.event(), Some(Event::Replaced { .. })));
        assert_eq!(scene.command(), Some(Command::HangUp));
        let waited = scene.until_dial();
        assert!(waited <= Duration::from_secs(most) && waited >= Duration::from_secs(most) / 2, "{waited:?} of {most}");
    }
    scene.register();
    scene.now += REPLACED_RETRY_MAX;
    scene.close(REPLACED, "");
    scene.command();
    assert!(scene.until_dial() <= REPLACED_RETRY, "it was forgotten");
}

#[test]
fn what_the_relay_says_is_waited_for() {
    let mut scene = Scene::new();
    scene.register();
    scene.close(TOO_MANY, &retry_reason(Duration::from_secs(20), "another program"));
    assert_eq!(lost(scene.event()), "the relay: another program");
    scene.command();
    assert_eq!(scene.until_dial(), Duration::from_secs(20));
}

#[test]
fn an_error_before_the_close_is_why() {
    let mut scene = Scene::new();
    scene.command();
    scene.machine.handle_dialled(scene.now);
    scene.challenge(&"07".repeat(32));
    scene.command();
    let error =
        |message: &str| FromRelay { error: Some(Error { message: message.to_owned() }), ..FromRelay::default() };
    scene.say(&error("invalid signature\u{1b}[2J"));
    scene.close(1005, "");
    let why = lost(scene.event());
    assert!(why.starts_with("the relay: invalid signature") && !why.contains('\u{1b}'), "{why:?}");

    let mut scene = Scene::new();
    scene.command();
    scene.machine.handle_dialled(scene.now);
    scene.say(&error("timestamp out of range"));
    scene.close(1005, "");
    assert!(lost(scene.event()).contains("this machine's clock"));
}

#[test]
fn silence_ends_a_channel_and_pings_keep_it() {
    let mut scene = Scene::new();
    scene.register();
    for _ in 0..10 {
        scene.wait(Duration::from_secs(30));
        scene.machine.handle_heard(scene.now);
    }
    scene.wait(SILENCE.saturating_sub(Duration::from_millis(1)));
    assert_eq!(scene.event(), None);
    scene.wait(Duration::from_millis(1));
    assert_eq!(lost(scene.event()), "nothing was heard of the relay");
    assert_eq!(scene.command(), Some(Command::HangUp));
}

#[test]
fn a_relay_that_does_not_greet_or_not_welcome_is_left() {
    for greets in [false, true] {
        let mut scene = Scene::new();
        scene.command();
        scene.machine.handle_dialled(scene.now);
        if greets {
            scene.challenge(&"07".repeat(32));
            assert_eq!(scene.command(), Some(Command::Hello([7; 32])));
            // A second challenge would have another message signed.
            scene.challenge(&"08".repeat(32));
            assert_eq!(scene.command(), None);
        }
        scene.wait(GREETING);
        assert_eq!(lost(scene.event()), "the relay does not answer");
        assert_eq!(scene.command(), Some(Command::HangUp));
    }
}

#[test]
fn nothing_but_a_challenge_is_signed_and_nothing_but_its_answer_is_welcomed() {
    let mut scene = Scene::new();
    scene.command();
    scene.machine.handle_dialled(scene.now);
    scene.welcome();
    assert_eq!((scene.event(), scene.command()), (None, None), "before the hello");
    scene.challenge("0707");
    assert_eq!(lost(scene.event()), "the relay's challenge is none");
    for text in ["", "{", "7", r#"{"challenge":7}"#, r#"{"request":{"id":"x"}}"#] {
        scene.machine.handle_text(scene.now, text, &mut scene.rng);
    }
    let mut scene = Scene::new();
    scene.register();
    scene.challenge(&"09".repeat(32));
    scene.welcome();
    assert_eq!((scene.event(), scene.command()), (None, None), "it is registered");
    scene.close(POLICY, "too many messages");
    assert_eq!(lost(scene.event()), "the relay: too many messages");
}

#[test]
fn an_older_protocol_is_said() {
    let mut scene = Scene::new();
    scene.command();
    scene.machine.handle_dialled(scene.now);
    scene.challenge(&"07".repeat(32));
    scene.command();
    scene.say(&FromRelay { welcome: Some(Welcome { protocol: 2 }), ..FromRelay::default() });
    assert_eq!(lost(scene.event()), "the relay speaks protocol 2, and 3 is needed");
}
