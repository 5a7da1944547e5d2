//! Connections that come, go and replace each other, on a clock of the test's own.

use super::*;

struct Scene {
    bus: Bus<u32>,
    now: Instant,
}

const AGENT: AgentId = AgentId::from_bytes([1; 16]);
const OTHER: AgentId = AgentId::from_bytes([2; 16]);

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        Self { bus: Bus::new(now), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// The connection's handle is a number; with the token of the same.
    fn register(&mut self, handle: u32) -> Result<(Generation, Option<u32>), HeldOff> {
        self.bus.register(self.now, AGENT, handle, handle)
    }

    fn leave(&mut self, generation: Generation) -> bool {
        self.bus.leave(self.now, AGENT, generation)
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_agent_is_live_then_away_and_unknown_before() {
    let mut scene = Scene::new();
    let start = scene.now;
    scene.wait(SECOND);
    assert_eq!(scene.bus.presence(AGENT), Presence::Unknown(start));
    let (generation, replaced) = scene.register(1).unwrap();
    assert_eq!((replaced, scene.bus.presence(AGENT)), (None, Presence::Live(scene.now)));
    let live_since = scene.now;
    scene.wait(SECOND);
    assert_eq!((scene.bus.presence(AGENT), scene.bus.live()), (Presence::Live(live_since), 1));
    assert!(scene.leave(generation));
    let away_since = scene.now;
    scene.wait(SECOND);
    assert_eq!((scene.bus.presence(AGENT), scene.bus.live()), (Presence::Away(away_since), 0));
    assert!(!scene.leave(generation), "once");
    assert_eq!(scene.bus.presence(AGENT), Presence::Away(away_since));
    assert_eq!(scene.bus.presence(OTHER), Presence::Unknown(start));
    scene.bus.add(scene.now, OTHER);
    assert_eq!(scene.bus.presence(OTHER), Presence::Away(scene.now), "it was made, and never came");
    scene.bus.add(scene.now, AGENT);
    assert_eq!(scene.bus.presence(AGENT), Presence::Away(away_since));
}

#[test]
fn the_newest_wins_and_the_older_takes_nothing_from_it() {
    let mut scene = Scene::new();
    let (old, _) = scene.register(1).unwrap();
    let (new, replaced) = scene.register(2).unwrap();
    assert_eq!((replaced, scene.bus.live()), (Some(1), 1));
    let since = scene.now;
    scene.wait(SECOND);
    assert!(!scene.leave(old), "it is not its place any more");
    assert_eq!((scene.bus.presence(AGENT), scene.bus.live()), (Presence::Live(since), 1));
    assert_eq!(scene.bus.revoke(scene.now, AGENT, 1), None, "nor is its token the one that opened it");
    assert!(scene.leave(new));
}

#[test]
fn two_that_evict_each_other_do_it_less_and_less_often() {
    let mut scene = Scene::new();
    scene.register(1).unwrap();
    let mut waits = Vec::new();
    for n in 2..12 {
        scene.register(n).unwrap();
        let HeldOff(wait) = scene.register(n + 100).unwrap_err();
        scene.wait(wait.saturating_sub(Duration::from_millis(1)));
        assert_eq!(scene.register(n + 100), Err(HeldOff(Duration::from_millis(1))));
        scene.wait(Duration::from_millis(1));
        waits.push(wait.as_secs());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    scene.wait(HOLD_FORGOTTEN + SECOND);
    scene.register(50).unwrap();
    assert_eq!(scene.register(51), Err(HeldOff(HOLD_MIN)), "it is forgotten after a while");
}

#[test]
fn who_comes_back_after_it_left_is_not_held_off() {
    let mut scene = Scene::new();
    for n in 0..10 {
        let (generation, replaced) = scene.register(n).unwrap();
        assert_eq!(replaced, None);
        scene.leave(generation);
    }
}

#[test]
fn a_token_that_ends_takes_its_connection_along_and_no_other() {
    let mut scene = Scene::new();
    assert_eq!(scene.bus.poll_timeout(), None);
    scene.register(1).unwrap();
    let end = scene.now + SECOND;
    scene.bus.set_end(AGENT, 2, end);
    assert_eq!(scene.bus.poll_timeout(), None, "of a token that opened nothing");
    scene.bus.set_end(AGENT, 1, end + SECOND);
    scene.bus.set_end(AGENT, 1, end);
    let over = end + Duration::from_millis(1);
    assert_eq!(scene.bus.poll_timeout(), Some(over), "what was said last counts");
    assert!(scene.bus.handle_tick(end).is_empty());
    scene.now = over;
    assert_eq!(scene.bus.handle_tick(over), [1]);
    assert_eq!((scene.bus.presence(AGENT), scene.bus.live()), (Presence::Away(over), 0));
    // An end goes with its connection: the next one is not of it, and nothing is left behind.
    for _ in 0..3 {
        let (generation, _) = scene.register(1).unwrap();
        scene.bus.set_end(AGENT, 1, over + SECOND);
        scene.leave(generation);
    }
    assert_eq!(scene.bus.poll_timeout(), None);
    scene.register(1).unwrap();
    scene.wait(SECOND + SECOND);
    assert!(scene.bus.handle_tick(scene.now).is_empty() && scene.bus.live() == 1);
}

#[test]
fn what_is_revoked_or_forgotten_is_handed_back_once() {
    let mut scene = Scene::new();
    scene.register(1).unwrap();
    scene.bus.register(scene.now, OTHER, 7, 70).unwrap();
    assert_eq!(scene.bus.revoke(scene.now, AGENT, 2), None);
    assert_eq!(scene.bus.revoke(scene.now, AGENT, 1), Some(1));
    assert_eq!(scene.bus.revoke(scene.now, AGENT, 1), None);
    assert_eq!(scene.bus.presence(AGENT), Presence::Away(scene.now));
    let started = scene.now;
    assert_eq!((scene.bus.forget(OTHER), scene.bus.forget(OTHER)), (Some(70), None));
    assert_eq!(scene.bus.presence(OTHER), Presence::Unknown(started));
    scene.register(3).unwrap();
    assert_eq!((scene.bus.drain(scene.now), scene.bus.live()), (vec![3], 0));
    assert_eq!(scene.bus.presence(AGENT), Presence::Away(scene.now));
}

#[test]
fn an_idle_agent_costs_less_than_a_cache_line_or_two() {
    assert!(size_of::<(AgentId, Agent<Box<u8>>)>() <= 80, "{}", size_of::<(AgentId, Agent<Box<u8>>)>());
}
