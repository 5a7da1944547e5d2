//! `mykube agents`: an organisation's agents, as the relay knows them; and the name of `mykube server --name`.

use std::path::PathBuf;

use mykube_agent::registration::{self, Event};
use mykube_dial::{Dialer, RelayUrl};
use mykube_protocol::agent::{AgentToken, ListedAgent, Presence, Rotate};
use mykube_sign_in::{
    AgentState, Home, Session, SignInError, State,
    agent::{RelayKeys, token_from},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::{
    cli::{AgentsArgs, AgentsCommand, NameArgs, RelayUrlArgs},
    events::JsonEvent,
    exit::Failure,
    output::Output,
    sessions::span,
    sign_in::{failure, session},
    status,
};

/// `mykube agents [list | add NAME | rotate NAME | remove NAME]`.
pub(crate) async fn run(args: AgentsArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(RelayUrlArgs { relay_url: args.relay_url }, ca_file)?;
    match args.command.unwrap_or(AgentsCommand::List) {
        AgentsCommand::List => {
            let agents = session.agents().await.map_err(|error| failure(&error))?;
            if agents.is_empty() {
                output.say("There is no agent yet: `mykube server --name NAME` makes one, and so does `mykube agents add NAME`.");
            }
            agents.iter().for_each(|agent| show(agent, output));
        }
        AgentsCommand::Add { name } => {
            let made = session.add_agent(&name.0).await.map_err(|error| failure(&error))?;
            output.say(&format!(
                "{} is made. Its token is shown this once; `mykube server --name {0} --token-file FILE` takes it:",
                made.name
            ));
            hand_over(&made, output);
        }
        AgentsCommand::Rotate { name, now } => {
            let how = Rotate { now, strict: false };
            let made = session.rotate_agent(&name.0, how).await.map_err(|error| failure(&error))?;
            let before = if now { "is worth nothing from now on" } else { "works for an hour more" };
            output.say(&format!("{} has another token, which is shown this once. The one before {before}:", made.name));
            hand_over(&made, output);
        }
        AgentsCommand::Remove { name } => {
            session.remove_agent(&name.0).await.map_err(|error| failure(&error))?;
            output.say(&format!("{} is removed, and its tokens are worth nothing.", name.0));
            output.event(&JsonEvent::AgentRemoved { name: &name.0 });
        }
    }
    Ok(())
}

fn show(agent: &ListedAgent, output: Output) {
    let ListedAgent { name, state, since, created_at, relay_key, new_key_since } = agent;
    let state = match state {
        Presence::Live => "live",
        Presence::Away => "away",
        Presence::Unknown => "unknown",
    };
    let (key, new_key) = (relay_key.as_deref(), new_key_since.as_deref());
    output.event(&JsonEvent::Agent { name, state, since, created_at, relay_key: key, new_key_since: new_key });
    let key = key.map_or("-", |key| key.get(..16).unwrap_or(key));
    let new_key = new_key.map(|since| format!("  another key than before, for {}", ago(since))).unwrap_or_default();
    output.result(&format!("{name:<20} {state:<8} {:>9}  {key:<16}{new_key}", ago(since)));
}

/// How long ago that was by this machine's clock.
fn ago(time: &str) -> String {
    let Ok(time) = OffsetDateTime::parse(time, &Rfc3339) else { return time.to_owned() };
    span(u64::try_from((OffsetDateTime::now_utc() - time).whole_seconds()).unwrap_or(0))
}

fn hand_over(made: &AgentToken, output: Output) {
    let AgentToken { name, token, generation } = made;
    output.event(&JsonEvent::AgentToken { name, token, generation: *generation });
    output.result(token);
}

/// The name that a server holds at the relay, until this is dropped.
pub(crate) struct Name(JoinHandle<()>);

impl Drop for Name {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Name {
    /// Takes the token and the keys, and holds the name beside whatever else is done. Nothing for a server without one.
    ///
    /// # Errors
    /// There is no token and none can be made, or another program has the name's state.
    pub(crate) async fn hold(args: NameArgs, dialer: &Dialer, output: Output) -> Result<Option<Self>, Failure> {
        let NameArgs { name: Some(name), token_file, state_dir } = args else { return Ok(None) };
        let state = match state_dir {
            Some(directory) => State::at(&directory),
            None => State::of_user().ok_or_else(|| {
                Failure::usage("there is neither $XDG_STATE_HOME nor $HOME: name a directory for this agent's keys with --state-dir DIR")
            })?,
        };
        let wrong = |error: SignInError| failure(&error);
        let state = AgentState::open(&state, dialer.url(), &name.0).await.map_err(wrong)?;
        let keys = state.keys().map_err(wrong)?;
        let is_own = token_file.is_none();
        let token = match token_file {
            Some(file) => {
                let token = token_from(&file).map_err(wrong)?;
                let rest = token.strip_prefix("rla_").and_then(|rest| rest.strip_prefix(&name.0)?.strip_prefix('_'));
                if rest.is_none_or(|random| random.contains('_')) {
                    let text = format!("{} holds the token of another agent than {}", file.display(), name.0);
                    return Err(Failure::usage(text));
                }
                token
            }
            None => own_token(&state, &name.0, dialer, output).await?,
        };
        let holder = Holder { name: name.0, url: dialer.url().clone(), state, keys, token, is_own };
        Ok(Some(Self(tokio::spawn(holder.hold(dialer.clone(), output)))))
    }
}

/// The token that this agent made for itself: now, where it has none yet.
async fn own_token(
    state: &AgentState,
    name: &str,
    dialer: &Dialer,
    output: Output,
) -> Result<Zeroizing<String>, Failure> {
    if let Some(token) = state.token().map_err(|error| failure(&error))? {
        return Ok(token);
    }
    let home = Home::of_user().ok_or_else(|| {
        Failure::usage(
            "a name wants the agent's token: give it with --token-file FILE (there is no $HOME to be signed in at)",
        )
    })?;
    let made = match Session::new(home, dialer.clone()).add_agent(name).await {
        Err(error @ SignInError::NotSignedIn(_)) => {
            return Err(Failure::failed(format!("{error}; or give the agent's token with --token-file FILE")));
        }
        made => made.map_err(|error| failure(&error))?,
    };
    let token = Zeroizing::new(made.token);
    state.keep_token(&token).map_err(|error| failure(&error))?;
    output.say(&format!("{name} is made at {}.", dialer.url()));
    Ok(token)
}

struct Holder {
    name: String,
    url: RelayUrl,
    state: AgentState,
    keys: RelayKeys,
    token: Zeroizing<String>,
    /// This agent made the token itself, and has the only copy.
    is_own: bool,
}

impl Holder {
    async fn hold(self, dialer: Dialer, output: Output) {
        let hello = |nonce: &_, time| self.keys.hello(nonce, time);
        registration::hold(&dialer, &self.token, hello, |event| self.tell(event, output)).await;
    }

    fn tell(&self, event: Event, output: Output) {
        let Self { name, url, .. } = self;
        match event {
            Event::Live => {
                output.say(&format!("{name} is live at {url}, key {}.", &self.keys.id()[..16]));
                output.event(&JsonEvent::AgentLive { name });
            }
            Event::Lost { why, again } => {
                output.warn(&format!("{name} is not live: {why}; trying again in {}", status::told(again)));
                output.event(&JsonEvent::AgentLost { name, reason: &why });
            }
            Event::Replaced { again } => {
                let reason = "another program shows this agent's token, and took its place";
                output.warn(&format!(
                    "{name} is not live here: {reason}. Give each its own name and token; trying again in {}",
                    status::told(again)
                ));
                output.event(&JsonEvent::AgentLost { name, reason });
            }
            Event::TokenRefused => {
                let reason = "the relay does not take its token: it was revoked, replaced or has expired, or the agent was removed";
                let hint = if self.is_own {
                    // It opens nothing any more: the next start makes another, where the name is free.
                    let _ = self.state.forget_token();
                    format!("`mykube agents remove {name}` if it is still listed, then start this server again")
                } else {
                    format!(
                        "`mykube agents rotate {name}` makes another for --token-file; start this server again then"
                    )
                };
                output.warn(&format!(
                    "{name} is not live, and the relay is not asked again: {reason}. {hint}. Codes go on"
                ));
                output.event(&JsonEvent::AgentRefused { name, reason });
            }
        }
    }
}
