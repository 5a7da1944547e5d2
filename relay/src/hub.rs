//! Between the registry and the sockets: carries out the registry's actions (frames, closes, links), in their order, under one
//! lock.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use mykube_protocol::{Attempt, Claims, FromAgent, FromRelay, Role, SessionId, close};
use mykube_relay_core::{
    owner::Owner,
    quota::RequestQuota,
    registry::{Action, CreateError, Created, Denied, NoSuchNameplate, Now, Registry, SocketId},
    ticket::TicketKey,
};
use rand::RngExt as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::TrustedProxies,
    config::Config,
    connections::ConnectionSlots,
    directory::Directory,
    fallback::{Fallback, Transport},
    lock::lock,
    metrics::Metrics,
    outlet::{CloseWith, Outlet},
    workers::Workers,
};

/// How often the registry and the quotas are told the time.
const TICK: Duration = Duration::from_millis(500);

/// What all connections of a relay share.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) workers: Workers,
    pub(crate) proxies: TrustedProxies,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) key: TicketKey,
    pub(crate) quota: Mutex<RequestQuota>,
    pub(crate) slots: Arc<ConnectionSlots>,
    /// WebSockets and connections that are still served.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the relay ends: connections end then, and the workers.
    pub(crate) stop: CancellationToken,
    /// Who answers what the relay does not.
    pub(crate) fallback: Option<Arc<dyn Fallback>>,
    directory: Directory,
    draining: AtomicBool,
    state: Mutex<State>,
}

/// What a socket shows to be admitted.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// A ticket whose signature was checked.
    Ticket(Claims),
    /// Legacy form: the session's id.
    Legacy(SessionId, Role),
}

impl Admission {
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Ticket(claims) => claims.role,
            Self::Legacy(_, role) => *role,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        match self {
            Self::Ticket(claims) => claims.session,
            Self::Legacy(session, _) => *session,
        }
    }
}

/// The answer to a socket that asked for its slot.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It has the slot.
    In,
    /// Another socket has it: ask again after this time, and once bytes have come from this one.
    Taken(Duration),
    /// It will not get the slot.
    Away(CloseWith),
}

struct State {
    registry: Registry,
    sockets: HashMap<SocketId, Arc<Outlet>>,
}

impl Hub {
    /// # Errors
    /// See [`Workers::start`].
    pub(crate) fn new(
        config: Config,
        fallback: Option<Arc<dyn Fallback>>,
        key: TicketKey,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        Ok(Self {
            fallback,
            workers: Workers::start(config.threads, &stop)?,
            proxies: TrustedProxies::new(config.trusted_proxies.clone()),
            metrics: Arc::default(),
            key,
            quota: Mutex::new(RequestQuota::new(config.api_requests_per_minute)),
            slots: ConnectionSlots::new(config.connections, config.connections_per_address),
            tasks: TaskTracker::new(),
            stop,
            directory: Directory::Here,
            draining: AtomicBool::new(false),
            state: Mutex::new(State { registry: Registry::new(config.sessions.clone()), sockets: HashMap::new() }),
            config,
        })
    }

    #[cfg(test)]
    pub(crate) fn of_a_test() -> Self {
        let key = TicketKey::new([1; 32].into());
        Self::new(Config::new("unused"), None, key, CancellationToken::new()).expect("there are threads")
    }

    /// Calls the registry, and carries out its actions.
    pub(crate) fn with_registry<T>(&self, ask: impl FnOnce(&mut Registry, Now) -> T) -> T {
        let mut state = lock(&self.state);
        let answer = ask(&mut state.registry, now());
        self.act(&mut state);
        answer
    }

    /// Makes a session with a nameplate.
    ///
    /// # Errors
    /// A limit is reached.
    pub(crate) async fn create(&self, owner: Owner) -> Result<Created, CreateError> {
        let here = || self.with_registry(|registry, now| registry.handle_create(now, owner, &mut rand::rng()));
        self.directory.create(here).await
    }

    /// Claims a nameplate for a client.
    ///
    /// # Errors
    /// No session waits under it.
    pub(crate) async fn claim(&self, nameplate: &str) -> Result<(Attempt, Claims), NoSuchNameplate> {
        let here = || self.with_registry(|registry, now| registry.handle_claim(now, nameplate, &mut rand::rng()));
        self.directory.claim(here).await
    }

    /// Numbers a socket that has arrived.
    pub(crate) fn arrive(&self) -> SocketId {
        lock(&self.state).registry.handle_arrival()
    }

    /// A socket asks for its slot. `heard`: whether bytes came from it since its upgrade was answered.
    pub(crate) fn join(
        &self,
        arrived: SocketId,
        admission: &Admission,
        owner: Owner,
        outlet: &Arc<Outlet>,
        heard: bool,
    ) -> Joined {
        let mut state = lock(&self.state);
        if self.is_draining() {
            return Joined::Away(CloseWith { code: close::RESTART, reason: self.come_back() });
        }
        let joined = match admission {
            Admission::Ticket(claims) => state.registry.handle_join(now(), arrived, claims, owner, heard),
            Admission::Legacy(session, role) => {
                state.registry.handle_legacy_join(now(), arrived, *session, *role).map_err(Denied::Refused)
            }
        };
        if joined.is_ok() {
            state.sockets.insert(arrived, outlet.clone());
        }
        self.act(&mut state);
        match joined {
            Ok(()) => Joined::In,
            Err(Denied::Taken(wait)) => Joined::Taken(wait),
            Err(Denied::Refused((code, reason))) => Joined::Away(CloseWith { code, reason: reason.to_owned() }),
        }
    }

    /// A socket ended.
    pub(crate) fn leave(&self, socket: SocketId, clean: bool) {
        let mut state = lock(&self.state);
        state.registry.handle_leave(now(), socket, clean);
        self.act(&mut state);
        state.sockets.remove(&socket);
    }

    /// A text of an agent for the relay. Returns whether it changed anything.
    pub(crate) fn text(&self, socket: SocketId, text: FromAgent) -> bool {
        self.with_registry(|registry, now| registry.handle_text(now, socket, text))
    }

    /// What a request of this peer came over. A PROXY header says nothing of TLS.
    pub(crate) fn transport(&self, peer: IpAddr, headers: &HeaderMap) -> Transport {
        let is_proxy = !self.config.proxy_protocol && self.proxies.contains(peer);
        if is_proxy && says_plain(headers) {
            Transport::Plain
        } else if self.config.tls.is_some() {
            Transport::Tls
        } else if is_proxy {
            Transport::Proxy
        } else {
            Transport::Plain
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Admits no socket from now on, and closes all, telling each end a different moment to come back.
    pub(crate) fn drain(&self) {
        let state = lock(&self.state);
        self.draining.store(true, Ordering::Relaxed);
        for outlet in state.sockets.values() {
            outlet.close(close::RESTART, self.come_back());
        }
    }

    /// A close reason with a random delay, so that ends do not come back all at once.
    fn come_back(&self) -> String {
        close::retry_reason(rand::rng().random_range(Duration::ZERO..=self.config.drain_spread), "")
    }

    /// Tells the registry and the quotas the time, for ever.
    pub(crate) async fn keep_time(&self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            self.with_registry(|registry, now| registry.handle_tick(now));
            lock(&self.quota).handle_tick(now().mono);
        }
    }

    fn act(&self, state: &mut State) {
        let State { registry, sockets } = state;
        while let Some(action) = registry.poll_action() {
            match action {
                Action::Send(socket, text) => post(sockets, socket, text.to_string()),
                Action::SendPaired(socket) => post(sockets, socket, "paired".to_owned()),
                Action::SendTicket(socket, claims) => {
                    post(sockets, socket, FromRelay::Ticket(self.key.sign(&claims)).to_string());
                }
                Action::Close(socket, code, reason) => {
                    if let Some(outlet) = sockets.get(&socket) {
                        outlet.set_peer(None);
                        outlet.close(code, reason);
                    }
                }
                Action::Link(one, other) => {
                    if let (Some(one), Some(other)) = (sockets.get(&one), sockets.get(&other)) {
                        one.set_peer(Some(other.clone()));
                        other.set_peer(Some(one.clone()));
                    }
                }
                Action::Unlink(socket) => {
                    if let Some(outlet) = sockets.get(&socket) {
                        outlet.set_peer(None);
                    }
                }
                Action::Count(count) => self.metrics.count(count),
            }
        }
    }
}

/// Whether a proxy says that it was asked in plain HTTP: by `X-Forwarded-Proto`, or by `Forwarded` (RFC 7239 section 5.4).
fn says_plain(headers: &HeaderMap) -> bool {
    let words = |name: &str, separators: &'static [char]| {
        let lines =
            headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase());
        lines.flat_map(move |line| line.split(separators).map(|word| word.trim().to_owned()).collect::<Vec<_>>())
    };
    words("x-forwarded-proto", &[',']).any(|word| word == "http" || word == "ws")
        || words("forwarded", &[',', ';']).any(|word| word == "proto=http" || word == "proto=\"http\"")
}

fn post(sockets: &HashMap<SocketId, Arc<Outlet>>, socket: SocketId, text: String) {
    if let Some(outlet) = sockets.get(&socket) {
        outlet.post(text);
    }
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { mono: tokio::time::Instant::now().into_std(), unix }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use mykube_relay_core::registry::Counts;
    use tokio::sync::Semaphore;

    use super::*;

    fn owner() -> Owner {
        Owner::Address(std::net::IpAddr::from([192, 0, 2, 1]).into())
    }

    #[test]
    fn one_process_answers_at_once() {
        let hub = Hub::of_a_test();
        let created = hub.create(owner()).now_or_never().unwrap().unwrap();
        let (_, claims) = hub.claim(created.nameplate.as_str()).now_or_never().unwrap().unwrap();
        assert_eq!(claims.session, created.claims.session);
    }

    #[test]
    fn nobody_waits_for_an_answer_but_who_asked_and_who_goes_leaves_nothing() {
        let (mut hub, answers) = (Hub::of_a_test(), Arc::new(Semaphore::new(0)));
        hub.directory = Directory::Elsewhere(answers.clone());
        let waiting = |n| Counts { waiting: n, ..Counts::default() };
        let is_free = |hub: &Hub| hub.state.try_lock().is_ok();

        let mut asked = Box::pin(hub.create(owner()));
        assert!(asked.as_mut().now_or_never().is_none() && is_free(&hub));
        drop(asked);
        answers.add_permits(1);
        assert_eq!(hub.with_registry(|registry, _| registry.counts()), waiting(0));
        let created = hub.create(owner()).now_or_never().unwrap().unwrap();

        let mut asked = Box::pin(hub.claim(created.nameplate.as_str()));
        assert!(asked.as_mut().now_or_never().is_none() && is_free(&hub));
        // Meanwhile others go on: the code is spent before the answer comes.
        hub.with_registry(|registry, now| {
            registry.handle_tick(Now { mono: now.mono + hub.config.sessions.code_ttl, ..now })
        });
        answers.add_permits(1);
        assert_eq!(asked.now_or_never().unwrap().unwrap_err(), NoSuchNameplate);
    }
}
