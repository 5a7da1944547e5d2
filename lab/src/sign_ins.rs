//! People and programs at a relay in dev mode: sign-ins, refreshes and calls with a token, as fast as it answers.
//!
//! A limit of an address does not stop them: each comes from an address of its own in 127.0.0.0/8.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use mykube_protocol::account::{Act, statement};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpSocket;

/// A relay in dev mode.
pub struct DevRelay {
    address: SocketAddr,
    secret: String,
    next: AtomicU32,
}

/// A machine that is signed in.
pub struct Machine {
    key: EcdsaKeyPair,
    name: String,
    token: String,
    refresh_token: String,
    time: u64,
}

impl DevRelay {
    /// On loopback, with this secret.
    #[must_use]
    pub fn new(address: SocketAddr, secret: String) -> Self {
        Self { address, secret, next: AtomicU32::new(0) }
    }

    /// Somebody new signs in.
    ///
    /// # Errors
    /// The relay does not answer, or refuses.
    pub async fn sign_in(&self) -> io::Result<Machine> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(io::Error::other)?;
        let public = BASE64_URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let email = format!("p{}@example.com", self.next.load(Relaxed));
        let body = json!({"email": email, "secret": self.secret, "client": "mykube", "key": public});
        let said = self.ask("POST", "/auth/dev/token", None, &body).await?;
        let name = said["relay"][0].as_str().unwrap_or_default().to_owned();
        let mut machine = Machine { key, name, token: String::new(), refresh_token: String::new(), time: 0 };
        machine.keep(&said)?;
        Ok(machine)
    }

    /// Has the token replaced.
    ///
    /// # Errors
    /// As above.
    pub async fn refresh(&self, machine: &mut Machine) -> io::Result<()> {
        let body = machine.statement(Act::Refresh)?;
        let said = self.ask("POST", "/auth/refresh", None, &body).await?;
        machine.keep(&said)
    }

    /// Asks who it is.
    ///
    /// # Errors
    /// As above.
    pub async fn who_am_i(&self, machine: &Machine) -> io::Result<()> {
        self.ask("GET", "/v1/whoami", Some(&machine.token), &Value::Null).await.map(drop)
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> io::Result<Value> {
        let [_, b, c, d] = (self.next.fetch_add(1, Relaxed) + 0x0100).to_be_bytes();
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, b, c, d), 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
        let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
        let status = answer.status();
        let said = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("{path} answered {status}")));
        }
        serde_json::from_slice(&said).map_err(io::Error::other)
    }
}

impl Machine {
    fn keep(&mut self, said: &Value) -> io::Result<()> {
        let text =
            |name: &str| said[name].as_str().map(str::to_owned).ok_or_else(|| io::Error::other(format!("no {name}")));
        (self.token, self.refresh_token) = (text("token")?, text("refresh_token")?);
        Ok(())
    }

    fn statement(&mut self, act: Act) -> io::Result<Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        self.time = u64::try_from(now).unwrap_or(u64::MAX).max(self.time + 1);
        let hash = |text: &str| Sha256::digest(text).into();
        let message = statement(act, &hash(&self.name), &hash(&self.refresh_token), self.time);
        let signature = self.key.sign(&SystemRandom::new(), &message).map_err(io::Error::other)?;
        let sig = BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref());
        Ok(json!({"refresh_token": self.refresh_token, "time": self.time, "sig": sig}))
    }
}
