//! An API server, a gateway to it, and its audit log.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use mykube_agent_gateway::{Audit, AuditSettings, Caller, Forwarder, Gateway, HeadRoom, Policy, Settings};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
};

use crate::{
    api::{Api, Authority},
    common::{Fixture, base64, config},
    raw::Raw,
};

/// Bytes that may be under way in each direction of a client's connection.
pub(crate) const PIPE: usize = 64 * 1024;

/// The lines of the log so far.
#[derive(Clone)]
pub(crate) struct Log(Arc<(Mutex<Vec<u8>>, watch::Sender<usize>)>);

impl Log {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::default(), watch::Sender::new(0))))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let bytes = self.0.0.lock().unwrap();
        bytes
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Forgets the lines so far.
    pub(crate) fn clear(&self) {
        self.0.0.lock().unwrap().clear();
        self.0.1.send_replace(0);
    }

    /// Waits for this many lines.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Value> {
        let mut changed = self.0.1.subscribe();
        changed.wait_for(|lines| *lines >= count).await.unwrap();
        self.lines()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.0.lock().unwrap();
        all.extend_from_slice(bytes);
        let count = all.iter().filter(|b| **b == b'\n').count();
        drop(all);
        self.0.1.send_replace(count);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Setup {
    pub authority: Authority,
    pub api: Api,
    pub fixture: Fixture,
    pub log: Log,
    pub gateway: Gateway,
    pub forwarder: Arc<Forwarder>,
    pub served: JoinSet<()>,
}

impl Setup {
    /// With a user entry of a kubeconfig.
    pub(crate) async fn new(user: &str) -> Self {
        Self::with(|_, _| user.to_owned(), Settings::default()).await
    }

    /// With a token, which is enough for most tests.
    pub(crate) async fn plain() -> Self {
        Self::new("token: t0k3n").await
    }

    pub(crate) async fn with(user: impl FnOnce(&Fixture, &Authority) -> String, settings: Settings) -> Self {
        let authority = Authority::new();
        let api = Api::start(&authority).await;
        let mut fixture = Fixture::new();
        let cluster =
            format!("server: https://{}\ncertificate-authority-data: {}", api.address, base64(&authority.pem));
        let user = user(&fixture, &authority);
        fixture.source.kubeconfig = Some(fixture.write("config", config(&cluster, &user)));
        let log = Log::new();
        let (gateway, forwarder) = build(&fixture, &log, settings).await;
        Self { authority, api, fixture, log, gateway, forwarder, served: JoinSet::new() }
    }

    /// Reads the kubeconfig again.
    pub(crate) async fn rebuild(&mut self) {
        self.rebuild_with(Settings::default()).await;
    }

    pub(crate) async fn rebuild_with(&mut self, settings: Settings) {
        (self.gateway, self.forwarder) = build(&self.fixture, &self.log, settings).await;
    }

    /// A connection of a client.
    pub(crate) fn client(&mut self) -> Raw {
        self.client_under(Policy::default())
    }

    pub(crate) fn client_under(&mut self, policy: Policy) -> Raw {
        let (near, far) = tokio::io::duplex(PIPE);
        self.serve(far, policy);
        Raw::new(near)
    }

    pub(crate) fn caller(&self, policy: Policy) -> Arc<Caller> {
        policy.check().unwrap();
        Arc::new(Caller { name: "laptop".into(), id: Some(7), policy: Arc::new(policy), heads: HeadRoom::default() })
    }

    /// Another connection of a client.
    pub(crate) fn client_of(&mut self, caller: Arc<Caller>) -> Raw {
        let (near, far) = tokio::io::duplex(PIPE);
        let gateway = self.gateway.clone();
        self.served.spawn(async move { gateway.serve(far, caller).await });
        Raw::new(near)
    }

    pub(crate) fn serve(&mut self, far: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, policy: Policy) {
        let caller = self.caller(policy);
        let gateway = self.gateway.clone();
        self.served.spawn(async move { gateway.serve(far, caller).await });
    }
}

async fn build(fixture: &Fixture, log: &Log, settings: Settings) -> (Gateway, Arc<Forwarder>) {
    let audit = Audit::writer(log.clone(), AuditSettings::default()).unwrap();
    let forwarder = Arc::new(Forwarder::new(Arc::new(fixture.load().await.unwrap()), settings));
    (Gateway::new(forwarder.clone(), audit), forwarder)
}
