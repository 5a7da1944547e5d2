//! All clients of a server: which are connected, whose codes wait, and what the operator asks for.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use mykube_agent_gateway::{Caller, ClientEvent, HeadRoom, Policy};
use mykube_agent_upstream::Upstream;
use mykube_dial::Dialer;
use mykube_link::clock::{self, Time};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    client::ClientTask,
    command::{Command, Invitation, Listed, State},
    config::Config,
    error::{Ended, ServeError},
    eviction::{EvictionSender, Unaware, Why},
    offer::{Access, Offer},
    operator::{ClientNotice, Notice, OperatorHandle, Questions},
    pairing::{Guesses, Pairing},
    slots::{Full, Slots, Wanted},
    ui::{Absent, Event, Ui},
};

/// One client, or a code that waits for one.
struct Entry {
    listed: Listed,
    eviction: EvictionSender,
    /// Ends its task's wait for a replaced client to come back and hear so.
    forget: CancellationToken,
    /// Gives the code to the operator's command that asked for it.
    invited: Option<oneshot::Sender<Result<(u64, String), String>>>,
    /// Nobody asked for this code: the server keeps one on offer while a slot is free.
    standing: bool,
    /// Its code was on the screen.
    shown: bool,
}

/// See the module.
pub(super) struct Clients {
    dialer: Dialer,
    upstream: Arc<Upstream>,
    access: Access,
    standing: Invitation,
    config: Config,
    guesses: Guesses,
    entries: BTreeMap<u64, Entry>,
    slots: Slots,
    /// Clients that were replaced and have not been told yet.
    unaware: Unaware,
    tasks: JoinSet<(u64, Result<Ended, ServeError>)>,
    sender: mpsc::UnboundedSender<ClientNotice>,
    notices: mpsc::UnboundedReceiver<ClientNotice>,
    questions: Questions,
    /// Lines on their way into the audit log.
    lines: JoinSet<()>,
    next: u64,
    stop: CancellationToken,
    /// Why no further codes are made.
    closed: Option<ServeError>,
}

impl Clients {
    pub(super) fn new(dialer: Dialer, offer: Offer, config: Config) -> Self {
        let Offer { upstream, access, standing } = offer;
        let (sender, notices) = mpsc::unbounded_channel();
        let slots = Slots::new(config.max_clients, config.stay, config.replace_after);
        Self {
            dialer,
            upstream,
            access,
            standing,
            config,
            guesses: Guesses::default(),
            entries: BTreeMap::new(),
            slots,
            unaware: Unaware::default(),
            tasks: JoinSet::new(),
            sender,
            notices,
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
            let due = self.slots.poll_timeout();
            tokio::select! {
                Some(notice) = self.notices.recv() => self.handle(notice, ui),
                () = self.questions.put(ui) => {}
                Some(_) = self.lines.join_next() => {}
                Some(ended) = self.tasks.join_next() => {
                    while let Ok(notice) = self.notices.try_recv() {
                        self.handle(notice, ui);
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
                    // The access of connected clients has expired too; their own tasks tell them.
                    for entry in self.entries.values().filter(|entry| entry.listed.state == State::Waiting) {
                        entry.eviction.evict(Why::Killed);
                    }
                    ended = Ended::ByServer("the access has expired".into());
                    break;
                }
                () = &mut stop => break,
            }
        }
        if ended == Ended::Stopped {
            self.stop.cancel();
        }
        self.slots.close();
        // The operator is asked nothing any more, and no code is shown.
        self.questions = Questions::default();
        while let Some(ended) = self.tasks.join_next().await {
            while let Ok(notice) = self.notices.try_recv() {
                if matches!(notice.notice, Notice::Event(Event::Paired | Event::Refused { .. })) {
                    self.handle(notice, ui);
                }
            }
            if let Ok((client, ended)) = ended {
                self.gone(client, &ended, ui);
            }
        }
        self.lines.join_all().await;
        Ok(ended)
    }

    /// Starts the task of one more client.
    fn admit(
        &mut self,
        invitation: Invitation,
        invited: Option<oneshot::Sender<Result<(u64, String), String>>>,
        wanted: Wanted,
    ) {
        let id = self.next;
        self.next += 1;
        let name = invitation.name.unwrap_or_else(|| format!("client-{id}"));
        let caller = Arc::new(Caller {
            name: name.clone(),
            id: Some(id),
            policy: invitation.policy.clone(),
            heads: HeadRoom::default(),
        });
        let ((eviction, evicted), forget) = (EvictionSender::new(), CancellationToken::new());
        let operator = OperatorHandle { client: id, name: name.clone(), sender: self.sender.clone() };
        let (dialer, config, guesses) = (self.dialer.clone(), self.config, self.guesses.clone());
        let (upstream, access, stop) = (self.upstream.clone(), self.access.clone(), self.stop.clone());
        let (first, standing, forgotten) = (id == 1, invited.is_none(), forget.clone());
        self.tasks.spawn(async move {
            let mut pairing =
                Pairing { dialer: &dialer, config, guesses, operator: &operator, first, standing, open: None };
            let paired = tokio::select! {
                paired = pairing.run() => Ok(paired),
                () = stop.cancelled() => return (id, Ok(Ended::Stopped)),
                why = evicted.wait() => Err(why),
            };
            let (established, socket, reconnect) = match paired {
                Ok(Ok(paired)) => paired,
                Ok(Err(error)) => return (id, Err(error)),
                Err(why) => {
                    pairing.withdraw().await;
                    return (id, Ok(Ended::ByServer(why.reason().into())));
                }
            };
            let attended = config.attended;
            let client =
                ClientTask { upstream, access, caller, attended, operator: &operator, stop, evicted, forgotten };
            (id, client.run(*established, socket, reconnect).await)
        });
        let listed = Listed { id, name, state: State::Waiting, since: SystemTime::now(), policy: invitation.policy };
        self.slots.handle_code(id, standing, wanted);
        self.entries.insert(id, Entry { listed, eviction, forget, invited, standing, shown: false });
    }

    /// Offers a code if none waits and a slot is free, or a client has been away for long enough to lose its own.
    fn keep_waiting(&mut self) {
        if let Some(wanted) = self.slots.poll_code(clock::now()) {
            self.admit(self.standing.clone(), None, wanted);
        }
    }

    /// Client `by` has this one's slot from here on. The replaced client is told when it comes back; until then its task
    /// reports nothing more.
    fn replace(&mut self, client: u64, by: &str, ui: &mut impl Ui) {
        let Some(entry) = self.entries.remove(&client) else { return };
        entry.eviction.evict(Why::Replaced);
        self.unaware.remember(entry.forget, self.config.max_clients);
        ui.event(&entry.listed.name, Event::ClientGone(format!("replaced by {by}")));
    }

    /// Ends the wait with a code that was to replace a client: that client is back.
    fn withdraw(&mut self, code: u64, ui: &mut impl Ui) {
        let Some(entry) = self.entries.remove(&code) else { return };
        entry.eviction.evict(Why::Withdrawn);
        if entry.shown {
            ui.event(&entry.listed.name, Event::Withdrawn);
        }
    }

    fn handle(&mut self, ClientNotice { client, name, notice }: ClientNotice, ui: &mut impl Ui) {
        if let Notice::Event(Event::Refused { why, .. }) = &notice {
            // Logged for a code that has been withdrawn meanwhile, too.
            self.log(&name, client, why.to_string());
        }
        let absent = self.slots.instead_of(client).and_then(|other| self.absent(other));
        let Some(entry) = self.entries.get_mut(&client) else { return };
        let mut event = match notice {
            Notice::Event(event) => event,
            Notice::Ask(question, reply) => return self.questions.ask(name, question, reply),
        };
        let (mut lost_its_slot, mut withdrawn) = (None, None);
        match &mut event {
            Event::Code { code, instead_of, .. } => {
                // A code that was asked for goes to the command that asked, and is not shown here.
                if let Some(invited) = entry.invited.take() {
                    if invited.send(Ok((client, code.to_string()))).is_err() {
                        // The command has gone without its answer: nobody would ever see this code.
                        entry.eviction.evict(Why::Killed);
                    }
                    return;
                }
                entry.shown = true;
                *instead_of = absent;
            }
            Event::Paired => {
                entry.listed.state = State::Connected;
                entry.listed.since = SystemTime::now();
                lost_its_slot = self.slots.handle_paired(client);
            }
            Event::Lost(_) => {
                entry.listed.state = State::Lost;
                entry.listed.since = SystemTime::now();
                self.slots.handle_lost(client, clock::now());
            }
            Event::Back(_) => {
                entry.listed.state = State::Connected;
                entry.listed.since = SystemTime::now();
                withdrawn = self.slots.handle_back(client);
            }
            _ => {}
        }
        ui.event(&name, event);
        if let Some(other) = lost_its_slot {
            self.replace(other, &name, ui);
        }
        if let Some(code) = withdrawn {
            self.withdraw(code, ui);
        }
        self.keep_waiting();
    }

    /// Writes a refused attempt to the audit log, in a task of its own as the disk may be slow.
    fn log(&mut self, name: &str, client: u64, why: String) {
        let Access::Guarded(gateway) = &self.access else { return };
        let (audit, name) = (gateway.audit().clone(), name.to_owned());
        self.lines.spawn(async move {
            // A full log is reported when a client is let in, or makes a request.
            let _ = audit.client(&name, Some(client), ClientEvent::Refused(&why)).await;
        });
    }

    fn absent(&self, client: u64) -> Option<Absent> {
        let lasting = clock::now().since(self.slots.away_since(client)?);
        Some(Absent { client: self.entries.get(&client)?.listed.name.clone(), lasting })
    }

    /// A client's task has ended. Returns how the server itself ends, if it ends with this client.
    fn left(
        &mut self,
        client: u64,
        ended: Result<Ended, ServeError>,
        ui: &mut impl Ui,
    ) -> Option<Result<Ended, ServeError>> {
        // A code that would replace a client: the server still has that one.
        let spare = self.slots.instead_of(client).is_some();
        let entry = self.gone(client, &ended, ui)?;
        let was_in = entry.listed.state != State::Waiting;
        if !self.config.stay && !spare {
            return Some(ended);
        }
        match ended {
            // Where a connected client's task failed, only that client's session is over.
            Err(error) if !was_in && entry.standing => {
                self.closed = Some(error);
                self.slots.close();
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

    /// Takes a client off the list, and reports it as gone if it was connected.
    fn gone(&mut self, client: u64, ended: &Result<Ended, ServeError>, ui: &mut impl Ui) -> Option<Entry> {
        let entry = self.entries.remove(&client)?;
        self.slots.handle_gone(client);
        if entry.listed.state != State::Waiting {
            let reason = match ended {
                Ok(Ended::Client(reason) | Ended::ByServer(reason)) => reason.clone(),
                Ok(Ended::Stopped) => "the server stopped".to_owned(),
                Err(error) => error.to_string(),
            };
            ui.event(&entry.listed.name, Event::ClientGone(reason));
        } else if entry.shown && matches!(ended, Ok(Ended::ByServer(_))) {
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
                    entry.eviction.evict(Why::Killed);
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

    /// Makes room for an invited client and returns what it may do. A standing code that nobody has typed gives way.
    fn invite(&mut self, asked: &Policy, ui: &mut impl Ui) -> Result<Policy, String> {
        if matches!(self.access, Access::Shared) && asked.restricts() {
            return Err("this server shares its credentials: nothing can be restricted for whoever has them".into());
        }
        let policy = self.standing.policy.narrowed(asked).map_err(|error| error.to_string())?;
        let most = self.config.max_clients;
        let gives_way = self.slots.make_room().map_err(|Full| {
            format!(
                "all {most} places are taken: end one with `mykube sessions kill`, or start the server with a larger \
                 --max-clients"
            )
        })?;
        if let Some(entry) = gives_way.and_then(|code| self.entries.remove(&code)) {
            entry.eviction.evict(Why::Killed);
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
mod tests;
