//! The desk: who is here, whose code waits, and what the operator wants.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use mykube_agent_gateway::{ClientEvent, HeadRoom, Policy, Visitor};
use mykube_agent_upstream::Upstream;
use mykube_dial::Dialer;
use mykube_link::clock::{self, Time};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, Invitation, Listed, State},
    config::Config,
    dismiss::{Dismiss, Unaware, Why},
    error::{Ended, ServeError},
    front::{Front, Notice, Post, Questions},
    offer::{Access, Offer},
    pairing::{Guesses, Pairing},
    places::{Full, Places, Wanted},
    ui::{Absent, Event, Ui},
    visit::Visit,
};

struct Entry {
    listed: Listed,

    dismiss: Dismiss,
    /// Ends the wait for it to come back and hear that it was replaced.
    forget: CancellationToken,
    /// Whoever asked for this code.
    invited: Option<oneshot::Sender<Result<(u64, String), String>>>,
    /// The desk's own: kept waiting while there is a place.
    standing: bool,
    /// Its code was on the screen.
    shown: bool,
}

/// See the module.
pub(super) struct Desk {
    dialer: Dialer,
    upstream: Arc<Upstream>,
    access: Access,
    standing: Invitation,
    config: Config,
    guesses: Guesses,
    entries: BTreeMap<u64, Entry>,
    places: Places,
    /// Clients that were replaced and do not know it yet.
    unaware: Unaware,
    tasks: JoinSet<(u64, Result<Ended, ServeError>)>,
    post: mpsc::UnboundedSender<Post>,
    posts: mpsc::UnboundedReceiver<Post>,
    questions: Questions,
    /// Lines on their way into the audit log.
    lines: JoinSet<()>,
    next: u64,
    stop: CancellationToken,
    /// Why no further codes are made.
    closed: Option<ServeError>,
}

impl Desk {
    pub(super) fn new(dialer: Dialer, offer: Offer, config: Config) -> Self {
        let Offer { upstream, access, standing } = offer;
        let (post, posts) = mpsc::unbounded_channel();
        let places = Places::new(config.max_clients, config.stay, config.replace_after);
        Self {
            dialer,
            upstream,
            access,
            standing,
            config,
            guesses: Guesses::default(),
            entries: BTreeMap::new(),
            places,
            unaware: Unaware::default(),
            tasks: JoinSet::new(),
            post,
            posts,
            questions: Questions::default(),
            lines: JoinSet::new(),
            next: 1,
            stop: CancellationToken::new(),
            closed: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        ui: &mut impl Ui,
        stop: impl Future<Output = ()>,
    ) -> Result<Ended, ServeError> {
        tokio::pin!(stop);
        let policy = self.standing.policy.clone();
        let expired = policy.expired();
        tokio::pin!(expired);
        let mut ended = Ended::Stopped;
        self.admit(self.standing.clone(), None, Wanted::Free);
        loop {
            let due = self.places.poll_timeout();
            tokio::select! {
                Some(post) = self.posts.recv() => self.handle(post, ui),
                () = self.questions.put(ui) => {}
                Some(_) = self.lines.join_next() => {}
                Some(ended) = self.tasks.join_next() => {
                    while let Ok(post) = self.posts.try_recv() {
                        self.handle(post, ui);
                    }
                    let Ok((client, ended)) = ended else { continue };
                    if let Some(end) = self.left(client, ended, ui) {
                        self.lines.join_all().await;
                        return end;
                    }
                }
                Some(command) = commands.recv() => self.obey(command, ui),
                () = until(due) => self.keep_waiting(),
                () = &mut expired => {
                    // Whoever is in has expired with it, and is told so by its own task.
                    for entry in self.entries.values().filter(|entry| entry.listed.state == State::Waiting) {
                        entry.dismiss.dismiss(Why::Killed);
                    }
                    ended = Ended::Dismissed("the access has expired".into());
                    break;
                }
                () = &mut stop => break,
            }
        }
        if ended == Ended::Stopped {
            self.stop.cancel();
        }
        self.places.close();
        // Nobody is asked anything any more, and no code is shown.
        self.questions = Questions::default();
        while let Some(ended) = self.tasks.join_next().await {
            while let Ok(post) = self.posts.try_recv() {
                if matches!(post.notice, Notice::Event(Event::Paired | Event::Refused { .. })) {
                    self.handle(post, ui);
                }
            }
            if let Ok((client, ended)) = ended {
                self.gone(client, &ended, ui);
            }
        }
        self.lines.join_all().await;
        Ok(ended)
    }

    /// A task for one more client.
    fn admit(
        &mut self,
        invitation: Invitation,
        invited: Option<oneshot::Sender<Result<(u64, String), String>>>,
        wanted: Wanted,
    ) {
        let id = self.next;
        self.next += 1;
        let name = invitation.name.unwrap_or_else(|| format!("client-{id}"));
        let visitor = Arc::new(Visitor {
            name: name.clone(),
            id: Some(id),
            policy: invitation.policy.clone(),
            heads: HeadRoom::default(),
        });
        let ((dismiss, dismissed), forget) = (Dismiss::new(), CancellationToken::new());
        let front = Front { client: id, name: name.clone(), post: self.post.clone() };
        let (dialer, config, guesses) = (self.dialer.clone(), self.config, self.guesses.clone());
        let (upstream, access, stop) = (self.upstream.clone(), self.access.clone(), self.stop.clone());
        let (first, standing, forgotten) = (id == 1, invited.is_none(), forget.clone());
        self.tasks.spawn(async move {
            let mut pairing = Pairing { dialer: &dialer, config, guesses, front: &front, first, standing, open: None };
            let paired = tokio::select! {
                paired = pairing.run() => Ok(paired),
                () = stop.cancelled() => return (id, Ok(Ended::Stopped)),
                why = dismissed.wait() => Err(why),
            };
            let (established, socket, reconnect) = match paired {
                Ok(Ok(paired)) => paired,
                Ok(Err(error)) => return (id, Err(error)),
                Err(why) => {
                    pairing.withdraw().await;
                    return (id, Ok(Ended::Dismissed(why.reason().into())));
                }
            };
            let attended = config.attended;
            let visit = Visit { upstream, access, visitor, attended, front: &front, stop, dismissed, forgotten };
            (id, visit.run(*established, socket, reconnect).await)
        });
        let listed = Listed { id, name, state: State::Waiting, since: SystemTime::now(), policy: invitation.policy };
        self.places.handle_code(id, standing, wanted);
        self.entries.insert(id, Entry { listed, dismiss, forget, invited, standing, shown: false });
    }

    /// Keeps one code waiting while there is a place for whoever types it, or could be one.
    fn keep_waiting(&mut self) {
        if let Some(wanted) = self.places.poll_code(clock::now()) {
            self.admit(self.standing.clone(), None, wanted);
        }
    }

    /// Another client has its place from here on. It is told when it comes back; until then its task says nothing more.
    fn replace(&mut self, client: u64, by: &str, ui: &mut impl Ui) {
        let Some(entry) = self.entries.remove(&client) else { return };
        entry.dismiss.dismiss(Why::Replaced);
        self.unaware.remember(entry.forget, self.config.max_clients);
        ui.event(&entry.listed.name, Event::ClientGone(format!("replaced by {by}")));
    }

    /// The client in whose stead this code waits is back.
    fn withdraw(&mut self, code: u64, ui: &mut impl Ui) {
        let Some(entry) = self.entries.remove(&code) else { return };
        entry.dismiss.dismiss(Why::Withdrawn);
        if entry.shown {
            ui.event(&entry.listed.name, Event::Withdrawn);
        }
    }

    fn handle(&mut self, Post { client, name, notice }: Post, ui: &mut impl Ui) {
        if let Notice::Event(Event::Refused { why, .. }) = &notice {
            // Also of a code that is not there any more.
            self.log(&name, client, why.to_string());
        }
        let absent = self.places.instead_of(client).and_then(|other| self.absent(other));
        let Some(entry) = self.entries.get_mut(&client) else { return };
        let mut event = match notice {
            Notice::Event(event) => event,
            Notice::Ask(question, reply) => return self.questions.ask(name, question, reply),
        };
        let (mut lost_its_place, mut withdrawn) = (None, None);
        match &mut event {
            Event::Code { code, instead_of, .. } => {
                // Whoever asked for this code gets it, and nobody else.
                if let Some(invited) = entry.invited.take() {
                    if invited.send(Ok((client, code.to_string()))).is_err() {
                        // Nobody waits for it any more, and nobody would ever see it.
                        entry.dismiss.dismiss(Why::Killed);
                    }
                    return;
                }
                entry.shown = true;
                *instead_of = absent;
            }
            Event::Paired => {
                entry.listed.state = State::Connected;
                entry.listed.since = SystemTime::now();
                lost_its_place = self.places.handle_paired(client);
            }
            Event::Lost(_) => {
                entry.listed.state = State::Lost;
                entry.listed.since = SystemTime::now();
                self.places.handle_lost(client, clock::now());
            }
            Event::Back(_) => {
                entry.listed.state = State::Connected;
                entry.listed.since = SystemTime::now();
                withdrawn = self.places.handle_back(client);
            }
            _ => {}
        }
        ui.event(&name, event);
        if let Some(other) = lost_its_place {
            self.replace(other, &name, ui);
        }
        if let Some(code) = withdrawn {
            self.withdraw(code, ui);
        }
        self.keep_waiting();
    }

    /// Writes that somebody was refused, beside everything else: the disk may be slow.
    fn log(&mut self, name: &str, client: u64, why: String) {
        let Access::Guarded(gateway) = &self.access else { return };
        let (audit, name) = (gateway.audit().clone(), name.to_owned());
        self.lines.spawn(async move {
            // A full log is reported when a client is let in, or makes a request.
            let _ = audit.client(&name, Some(client), ClientEvent::Refused(&why)).await;
        });
    }

    fn absent(&self, client: u64) -> Option<Absent> {
        let lasting = clock::now().since(self.places.away_since(client)?);
        Some(Absent { client: self.entries.get(&client)?.listed.name.clone(), lasting })
    }

    /// A client's task has ended. Gives the server's own end, if this is it.
    fn left(
        &mut self,
        client: u64,
        ended: Result<Ended, ServeError>,
        ui: &mut impl Ui,
    ) -> Option<Result<Ended, ServeError>> {
        // While it waits to take another's place, there is another.
        let spare = self.places.instead_of(client).is_some();
        let entry = self.gone(client, &ended, ui)?;
        let was_in = entry.listed.state != State::Waiting;
        if !self.config.stay && !spare {
            return Some(ended);
        }
        match ended {
            // Of a client that was in, only its own session is over.
            Err(error) if !was_in && entry.standing => {
                self.closed = Some(error);
                self.places.close();
            }
            _ => {}
        }
        self.keep_waiting();
        match self.closed.take_if(|_| self.entries.is_empty()) {
            Some(error) => Some(Err(error)),
            None if self.entries.is_empty() => Some(Ok(Ended::Stopped)),
            None => None,
        }
    }

    /// Takes a client off the list; whoever was in is reported as gone.
    fn gone(&mut self, client: u64, ended: &Result<Ended, ServeError>, ui: &mut impl Ui) -> Option<Entry> {
        let entry = self.entries.remove(&client)?;
        self.places.handle_gone(client);
        if entry.listed.state != State::Waiting {
            let reason = match ended {
                Ok(Ended::Client(reason) | Ended::Dismissed(reason)) => reason.clone(),
                Ok(Ended::Stopped) => "the server stopped".to_owned(),
                Err(error) => error.to_string(),
            };
            ui.event(&entry.listed.name, Event::ClientGone(reason));
        } else if entry.shown && matches!(ended, Ok(Ended::Dismissed(_))) {
            ui.event(&entry.listed.name, Event::Withdrawn);
        }
        Some(entry)
    }

    fn obey(&mut self, command: Command, ui: &mut impl Ui) {
        match command {
            Command::List(reply) => {
                let _ = reply.send(self.entries.values().map(|entry| entry.listed.clone()).collect());
            }
            Command::Kill(id, reply) => {
                let entry = self.entries.get(&id);
                if let Some(entry) = entry {
                    entry.dismiss.dismiss(Why::Killed);
                }
                let _ = reply.send(entry.is_some());
            }
            Command::Invite(invitation, reply) => match self.invite(&invitation.policy, ui) {
                Ok(policy) => {
                    let invitation = Invitation { name: invitation.name, policy: Arc::new(policy) };
                    self.admit(invitation, Some(reply), Wanted::Free);
                }
                Err(why) => drop(reply.send(Err(why))),
            },
        }
    }

    /// What an invited client may do, if there is a place for it. A standing code that nobody has typed makes room.
    fn invite(&mut self, asked: &Policy, ui: &mut impl Ui) -> Result<Policy, String> {
        if matches!(self.access, Access::Shared) && asked.restricts() {
            return Err("this server shares its credentials: nothing can be restricted for whoever has them".into());
        }
        let policy = self.standing.policy.narrowed(asked).map_err(|error| error.to_string())?;
        let most = self.config.max_clients;
        let gives_way = self.places.make_room().map_err(|Full| {
            format!(
                "all {most} places are taken: end one with `mykube sessions kill`, or start the server with a larger \
                 --max-clients"
            )
        })?;
        if let Some(entry) = gives_way.and_then(|code| self.entries.remove(&code)) {
            entry.dismiss.dismiss(Why::Killed);
            if entry.shown {
                ui.event(&entry.listed.name, Event::Withdrawn);
            }
        }
        Ok(policy)
    }
}

/// Waits for a moment, or for ever.
async fn until(deadline: Option<Time>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use mykube_dial::{DialOptions, Trust};
    use tokio::{sync::watch, time::timeout};

    use super::*;
    use crate::serve::Answer;
    use mykube_agent_upstream::{Environment, KubeconfigSource};

    /// Within that it is answered, or the test has failed.
    const BOUND: Duration = Duration::from_secs(60);

    /// Nobody at the terminal answers.
    struct Silent(watch::Sender<u32>);

    impl Ui for Silent {
        fn event(&mut self, _: &str, _: Event) {}

        fn confirm_words(&mut self, _: &str, _: &str) -> Answer {
            unreachable!("nobody pairs")
        }

        fn another_code(&mut self) -> Answer {
            self.0.send_modify(|asked| *asked += 1);
            Box::pin(std::future::pending())
        }
    }

    async fn desk(config: Config) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let (kubeconfig, ca) = (dir.path().join("config"), dir.path().join("ca.pem"));
        fs::write(
            &kubeconfig,
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
             users: [{name: u, user: {token: t}}]\n\
             contexts: [{name: c, context: {cluster: c, user: u}}]\n",
        )
        .unwrap();
        fs::write(&ca, rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem()).unwrap();
        let source = KubeconfigSource { kubeconfig: Some(kubeconfig), ..Default::default() };
        let environment = Environment {
            vars: Default::default(),
            home: None,
            service_account: dir.path().join("none"),
            attended: true,
            terminal: false,
        };
        let upstream = Upstream::load(&source, &environment, Trust::new(Some(&ca)).unwrap()).await.unwrap();
        let options = DialOptions { ca_file: Some(ca), ..DialOptions::default() };
        let dialer = Dialer::new("http://127.0.0.1:1".parse().unwrap(), options).unwrap();
        let offer = Offer { upstream: Arc::new(upstream), access: Access::Shared, standing: Invitation::default() };
        Desk::new(dialer, offer, config)
    }

    #[tokio::test]
    async fn an_unanswered_question_holds_nobody_up() {
        let config = Config {
            code_ttl: BOUND,
            verify: false,
            attended: true,
            burned_backoff: BOUND,
            max_clients: 1,
            stay: true,
            resume_window: BOUND,
            replace_after: None,
        };
        let desk = desk(config).await;
        desk.guesses.burn(BOUND);
        let (say, commands) = mpsc::channel(1);
        let (asked, mut questions) = watch::channel(0);
        let (stop, stopped) = oneshot::channel::<()>();
        let operator = async {
            for number in 1..=2 {
                // Whoever is ended while its question is open makes place for the next, with a question of its own.
                questions.wait_for(|asked| *asked == number).await.unwrap();
                let (reply, listed) = oneshot::channel();
                say.send(Command::List(reply)).await.ok().unwrap();
                let listed: Vec<_> = listed.await.unwrap().iter().map(|one| one.id).collect();
                assert_eq!(listed, [u64::from(number)]);
                let (reply, killed) = oneshot::channel();
                if number == 1 {
                    say.send(Command::Kill(1, reply)).await.ok().unwrap();
                    assert!(killed.await.unwrap());
                }
            }
            stop.send(()).unwrap();
        };
        let mut ui = Silent(asked);
        let serve = desk.run(commands, &mut ui, async { drop(stopped.await) });
        let (ended, ()) = timeout(BOUND, async { tokio::join!(serve, operator) }).await.expect("it hangs");
        assert_eq!(ended.unwrap(), Ended::Stopped);
    }
}
