//! An organisation's agents, as whoever is signed in sees and changes them.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use mykube_dial::DialError;
use mykube_protocol::agent::{AgentToken, Agents, ListedAgent, NewAgent, Rotate};
use serde::Serialize;

use crate::{
    calls::{ended, read, refusal},
    error::SignInError,
    session::Session,
};

impl Session {
    /// All agents, by name.
    ///
    /// # Errors
    /// Nobody is signed in, or the relay is not reached.
    pub async fn agents(&self) -> Result<Vec<ListedAgent>, SignInError> {
        let mut agents: Vec<ListedAgent> = Vec::new();
        loop {
            let after = agents.last().map(|last| last.name.clone()).unwrap_or_default();
            let path = format!("/v1/agents?after={after}");
            let page: Agents = read(&self.dialer, &self.ask(Method::GET, &path, None::<()>).await?)?;
            // A relay whose pages do not go on would be asked for ever.
            let goes_on = page.more && page.agents.last().is_some_and(|last| last.name > after);
            agents.extend(page.agents);
            if !goes_on {
                return Ok(agents);
            }
        }
    }

    /// Makes an agent; its token is shown this once.
    ///
    /// # Errors
    /// See [`Self::agents`]; or there is one of this name ([`SignInError::AgentThere`]), or this sign-in may not.
    pub async fn add_agent(&self, name: &str) -> Result<AgentToken, SignInError> {
        let answer = self.ask(Method::POST, "/v1/agents", Some(NewAgent { name: name.to_owned() })).await?;
        match answer.status() {
            StatusCode::CREATED => self.made(&answer),
            StatusCode::CONFLICT if self.says(&answer).contains("already") => {
                Err(SignInError::AgentThere(name.to_owned()))
            }
            _ => Err(refusal(&self.dialer, &answer)),
        }
    }

    /// Makes an agent another token. The one before works for an hour more, or no longer.
    ///
    /// # Errors
    /// See [`Self::agents`]; or there is no such agent, or this sign-in may not.
    pub async fn rotate_agent(&self, name: &str, how: Rotate) -> Result<AgentToken, SignInError> {
        let answer = self.ask(Method::POST, &format!("/v1/agents/{name}/token"), Some(how)).await?;
        if answer.status() == StatusCode::CREATED { self.made(&answer) } else { Err(refusal(&self.dialer, &answer)) }
    }

    /// Removes an agent and its tokens.
    ///
    /// # Errors
    /// See [`Self::rotate_agent`].
    pub async fn remove_agent(&self, name: &str) -> Result<(), SignInError> {
        let answer = self.ask(Method::DELETE, &format!("/v1/agents/{name}"), None::<()>).await?;
        if answer.status() == StatusCode::OK { Ok(()) } else { Err(refusal(&self.dialer, &answer)) }
    }

    /// A call in the name of whoever is signed in. A token that the relay does not take any more is replaced once.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> Result<Response<Bytes>, SignInError> {
        let body = body.map(|body| serde_json::to_vec(&body).expect("texts and truth values are JSON"));
        let body = body.map(Bytes::from);
        let over = || SignInError::Ended(self.relay());
        let mut token = self.token().await?;
        for is_last in [false, true] {
            let bearer = HeaderValue::try_from(format!("Bearer {}", *token)).map_err(|_| over())?;
            let answer = self.dialer.call(method.clone(), path, Some(bearer), body.clone()).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            if is_last {
                return Err(ended(&self.dialer, &answer, over()));
            }
            token = self.token_but(Some(&token)).await?;
        }
        Err(over())
    }

    fn made(&self, answer: &Response<Bytes>) -> Result<AgentToken, SignInError> {
        // What serde says may quote the token.
        let reason = "its answer is not the JSON that a relay sends".to_owned();
        serde_json::from_slice(answer.body()).map_err(|_| DialError::NotARelay { url: self.relay(), reason }.into())
    }

    fn says(&self, answer: &Response<Bytes>) -> String {
        match self.dialer.refusal(answer) {
            DialError::Refused { message, .. } => message,
            _ => String::new(),
        }
    }
}
