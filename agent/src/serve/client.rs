//! One client that has paired: words to compare, the welcome, and streams until it leaves.

use std::{sync::Arc, time::Duration};

use mykube_agent_gateway::{Audit, Caller, ClientEvent, Gateway, Promise};
use mykube_agent_upstream::{Credentialer, Upstream};
use mykube_dial::RelaySocket;
use mykube_link::{Channel, ChannelStream, End, PeerStatus, Reconnect, clock, copy, pair::Established};
use mykube_protocol::{
    channel::{Mode, Welcome},
    limits::STREAMS_MAX_ASKED,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    error::{Ended, ServeError},
    eviction::{EvictionReceiver, Why},
    offer::Access,
    operator::OperatorHandle,
    ui::Event,
};

/// Told to a client that asks for anything but the API server.
const NOT_ALLOWED: &str = "target not allowed";
/// How long streams have, once their session is over, to pass on the bytes that had come for the API server.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// Connections to the API server that may still be getting their last bytes when the client can open streams in place of
/// theirs; more streams wait until some of these are done.
const LINGERING_MAX: usize = 64;
/// Told to a client when its time is over, and when the server ends.
const EXPIRED: &str = "this access has expired";
const STOPPED: &str = "the server was stopped";
/// Told to a client that the server cannot serve; the operator is told why.
const CANNOT: &str = "the server cannot serve this client; its log says why";

/// See the module.
pub(super) struct ClientTask<'a> {
    pub(super) upstream: Arc<Upstream>,
    pub(super) access: Access,
    pub(super) caller: Arc<Caller>,
    pub(super) attended: bool,
    pub(super) operator: &'a OperatorHandle,
    /// The server stops.
    pub(super) stop: CancellationToken,
    /// The server ends this client.
    pub(super) evicted: EvictionReceiver,
    /// This client was replaced, and the server no longer waits to tell it so.
    pub(super) forgotten: CancellationToken,
}

impl ClientTask<'_> {
    pub(super) async fn run(
        self,
        established: Established,
        socket: RelaySocket,
        reconnect: Reconnect,
    ) -> Result<Ended, ServeError> {
        if established.verify
            && let Err((end, reason)) = self.compare(&established.words).await
        {
            // The other end waits for its own user's answer, or for the welcome: it gets this reason, and nothing else passes.
            Channel::start(established, socket, reconnect).bye(&reason).await;
            return end;
        }
        self.operator.event(Event::Paired);
        let channel = Channel::start(established, socket, reconnect);
        let ended = self.serve(&channel).await;
        if let Err(error) = &ended {
            debug!(%error, "a client cannot be served");
            channel.bye(CANNOT).await;
        }
        if self.evicted.is_replaced() {
            self.see_off(&channel).await;
        }
        ended
    }

    /// Has the operator compare the four words. Otherwise returns how the task ends, and what the other end is told.
    async fn compare(&self, words: &str) -> Result<(), (Result<Ended, ServeError>, String)> {
        const DIFFER: &str = "the four words were not confirmed as equal";
        if !self.attended {
            return Err((Err(ServeError::NobodyToAsk), DIFFER.into()));
        }
        tokio::select! {
            agreed = self.operator.confirm_words(words.to_owned()) => match agreed {
                true => Ok(()),
                false => Err((Err(ServeError::WordsDiffer), DIFFER.into())),
            },
            (ended, reason) = self.over() => Err((Ok(ended), reason.into())),
        }
    }

    /// Waits until the server ends the client before anything was served; returns what the other end is told, too.
    async fn over(&self) -> (Ended, &'static str) {
        let reason = tokio::select! {
            () = self.stop.cancelled() => return (Ended::Stopped, STOPPED),
            () = self.caller.policy.expired() => EXPIRED,
            why = self.evicted.wait() => why.reason(),
        };
        (Ended::ByServer(reason.into()), reason)
    }

    /// Serves the client from the welcome to the end.
    async fn serve(&self, channel: &Channel) -> Result<Ended, ServeError> {
        match &self.access {
            Access::Shared => {
                // A task of its own: a credential plugin may wait for a person's answer, and is not stopped halfway.
                let told = tokio::spawn(tell(Credentialer::new(self.upstream.clone()), channel.clone()));
                let failed = async {
                    match told.await {
                        Ok(Err(error)) => error,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    error = failed => Err(error),
                    ended = self.streams(channel, None) => ended,
                }
            }
            Access::Guarded(gateway) => {
                let (audit, caller) = (gateway.audit(), &self.caller);
                // A client is let in only if the audit log takes its line.
                tokio::select! {
                    written = audit.client(&caller.name, caller.id, ClientEvent::Paired) => {
                        written.map_err(|_| ServeError::Audit)?;
                    }
                    (ended, reason) = self.over() => {
                        channel.bye(reason).await;
                        return Ok(ended);
                    }
                }
                let mut left = Left { audit, caller, said: false, _promise: audit.promise() };
                send(channel, &self.guarded_welcome(gateway.records()))?;
                let ended = self.streams(channel, Some(gateway)).await;
                let reason = ended.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                left.said = audit.client(&caller.name, caller.id, ClientEvent::Left(&reason)).await.is_ok();
                ended
            }
        }
    }

    /// Keeps the session of a replaced client until it has come back and been told, or the wait for it is given up.
    async fn see_off(&self, channel: &Channel) {
        tokio::select! {
            _ = channel.ended() => {}
            () = self.caller.policy.expired() => {}
            () = self.forgotten.cancelled() => {}
            () = self.stop.cancelled() => {}
        }
        channel.bye(Why::Replaced.reason()).await;
    }

    /// Names only: credentials, addresses and certificates stay here.
    fn guarded_welcome(&self, recorded: bool) -> Welcome {
        Welcome {
            mode: Mode::Guarded,
            cluster: self.upstream.cluster_name.clone(),
            server_name: None,
            ca: None,
            path: None,
            insecure_skip_tls_verify: false,
            namespace: self.upstream.namespace.clone(),
            recorded,
            credentials: None,
        }
    }

    /// Serves the channel's streams until it ends.
    async fn streams(&self, channel: &Channel, gateway: Option<&Gateway>) -> Result<Ended, ServeError> {
        let mut tasks = JoinSet::new();
        let (failed, mut failures) = mpsc::channel(16);
        let mut status = channel.status();
        let mut lost = None;
        let expired = self.caller.policy.expired();
        tokio::pin!(expired);
        let evicted = |reason: &str| {
            let (channel, reason) = (channel.clone(), reason.to_owned());
            async move {
                channel.bye(&reason).await;
                Ok(Ended::ByServer(reason))
            }
        };
        let ended = loop {
            tokio::select! {
                accepted = channel.accept(), if tasks.len() < STREAMS_MAX_ASKED + LINGERING_MAX => match accepted {
                    Some((stream, Some(_))) => stream.fail(NOT_ALLOWED),
                    Some((stream, None)) => match gateway.cloned() {
                        None => drop(tasks.spawn(share(self.upstream.clone(), stream, failed.clone()))),
                        Some(gateway) => {
                            let caller = self.caller.clone();
                            tasks.spawn(async move { gateway.serve(stream, caller).await });
                        }
                    },
                    None => {}
                },
                Ok(()) = status.changed() => {
                    let now = status.borrow_and_update().clone();
                    match (now, lost) {
                        (PeerStatus::Away { since, reason }, None) => {
                            lost = Some(since);
                            self.operator.event(Event::Lost(reason));
                        }
                        (PeerStatus::Up, Some(since)) => {
                            lost = None;
                            self.operator.event(Event::Back(clock::now().since(since)));
                        }
                        _ => {}
                    }
                }
                Some(reason) = failures.recv() => self.operator.event(Event::StreamFailed(reason)),
                Some(_) = tasks.join_next() => {}
                end = channel.ended() => break match end {
                    End::Bye(reason) => Ok(Ended::Client(reason)),
                    end => Err(ServeError::Lost(end)),
                },
                () = &mut expired => break evicted(EXPIRED).await,
                why = self.evicted.wait() => break match why {
                    // It is away and will be told later (`see_off`); the streams it left running end now.
                    Why::Replaced => {
                        channel.say_bye(why.reason());
                        Ok(Ended::ByServer(why.reason().into()))
                    }
                    Why::Killed | Why::Withdrawn => evicted(why.reason()).await,
                },
                () = self.stop.cancelled() => {
                    channel.bye(STOPPED).await;
                    break Ok(Ended::Stopped);
                }
            }
        };
        // A client that left or was lost may have sent bytes before that which the API server is still to get.
        if matches!(ended, Ok(Ended::Client(_)) | Err(_)) {
            let _ = timeout(LAST_BYTES, async { while tasks.join_next().await.is_some() {} }).await;
        }
        // The log has the ends of their requests before it says that the client left.
        tasks.shutdown().await;
        ended
    }
}

/// Tells a client of the cluster, and of new credentials, until its channel ends.
async fn tell(mut credentials: Credentialer, channel: Channel) -> Result<(), ServeError> {
    send(&channel, &credentials.welcome().await?)?;
    loop {
        tokio::select! {
            newer = credentials.changed() => send(&channel, &newer)?,
            _ = channel.ended() => return Ok(()),
        }
    }
}

/// Writes that a client left, also where its task is dropped in the middle of its end.
struct Left<'a> {
    audit: &'a Audit,
    caller: &'a Caller,
    said: bool,
    /// Keeps the log open: dropped after the line is written.
    _promise: Promise,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.said {
            self.audit.client_at_once(&self.caller.name, self.caller.id, ClientEvent::Left("the server ended"));
        }
    }
}

fn send(channel: &Channel, welcome: &Welcome) -> Result<(), ServeError> {
    channel.send_welcome(welcome).map_err(|error| ServeError::Welcome(error.to_string()))
}

/// Joins one stream to the API server, byte for byte.
async fn share(upstream: Arc<Upstream>, stream: ChannelStream, failed: mpsc::Sender<String>) {
    match upstream.connect().await {
        Ok(connection) => {
            if let Err(error) = copy(connection, stream).await {
                debug!(%error, "stream ended early");
            }
        }
        Err(error) => {
            stream.fail(error.told());
            // A full queue means that the operator is being told already.
            let _ = failed.try_send(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mykube_agent_gateway::{AuditSettings, HeadRoom};

    /// A server whose end is overdue gives its clients' tasks up; they end some time later.
    #[tokio::test]
    async fn a_client_that_is_given_up_is_still_written_as_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::file(&path, AuditSettings::default()).unwrap();
        let mut tasks = JoinSet::new();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let of_task = audit.clone();
        tasks.spawn(async move {
            let caller = Caller { name: "ann".into(), id: Some(1), policy: Arc::default(), heads: HeadRoom::default() };
            let _left = Left { audit: &of_task, caller: &caller, said: false, _promise: of_task.promise() };
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        begins.await.unwrap();
        let finishing = audit.finish();
        tokio::pin!(finishing);
        tokio::select! {
            biased;
            () = &mut finishing => panic!("the client is still there"),
            () = audit.flush() => {}
        }
        drop(tasks);
        timeout(Duration::from_secs(20), finishing).await.expect("it hangs");
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains(r#""event":"left""#), "{written}");
    }
}
