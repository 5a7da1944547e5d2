//! The API server of one context: its name and address, how to verify it, the credentials for it, how to reach it.

use std::{fmt, time::Duration};

use base64::Engine as _;
use mykube_dial::{DialError, ProxyTarget, Transport, Trust, connect_tcp_via_proxy, error::Unreachable};
use mykube_protocol::{
    channel::{Mode, Welcome},
    limits::WELCOME_MAX,
    text::{is_plain_name, to_plain_name},
};

use crate::{
    credentials::CredentialSource,
    environment::Environment,
    error::{ConnectError, KubeconfigError, Place},
    exec::{ExecCluster, ExecPlugin},
    expiry::Expiry,
    impersonation::Impersonation,
    incluster,
    kubeconfig::{Found, KubeconfigSource, Selected, find, types::Cluster},
    oidc::Oidc,
    pem,
    proxy::proxy_from_environment,
    server_url::{self, is_host_name},
    sourced::{BASE64, Sourced},
};

/// The reserved cluster extension, whose content is passed to a plugin (KEP 541).
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// An API server, with what is needed to use it.
pub struct Upstream {
    /// The cluster's name, cleaned for a terminal.
    pub cluster_name: String,
    /// Its host, a name or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path of the server's URL, if it has one: `/k8s/clusters/c-x1`.
    pub path: Option<String>,
    /// The name its certificate is verified against: `tls-server-name`, else the host.
    pub server_name: String,
    /// The kubeconfig says not to verify it.
    pub insecure: bool,
    /// The context's namespace.
    pub namespace: Option<String>,
    /// The credentials that it will see.
    pub credentials: CredentialSource,
    /// The user that requests are made as: the kubeconfig's `as`.
    pub impersonation: Option<Impersonation>,
    ca: Option<Sourced>,
    proxy: Option<ProxyTarget>,
    trust: Trust,
    connect_timeout: Duration,
    place: Place,
    user_place: Place,
}

impl Upstream {
    /// Finds the kubeconfig, reads the context from it and checks all that can be checked without running a plugin.
    ///
    /// `trust` is for https proxies on the way to the API server, which is verified by the client.
    ///
    /// # Errors
    /// The context cannot be used; the error says why and what to do.
    pub async fn load(source: &KubeconfigSource, env: &Environment, trust: Trust) -> Result<Self, KubeconfigError> {
        let upstream = match find(source, env)? {
            Found::Context(selected) => Self::from_context(*selected, source, env, trust).await?,
            Found::InCluster => Self::from_pod(source, env, trust)?,
        };
        upstream.ca().await?;
        upstream.warn_of_unreadable().await;
        Ok(upstream)
    }

    async fn from_context(
        selected: Selected,
        source: &KubeconfigSource,
        env: &Environment,
        trust: Trust,
    ) -> Result<Self, KubeconfigError> {
        let Selected { cluster_name, cluster, cluster_place, mut user, user_place, namespace, context_place } =
            selected;
        let field = |field, problem| KubeconfigError::Field { field, place: cluster_place.clone(), problem };
        let names = ("certificate-authority-data", "certificate-authority");
        let data = cluster.certificate_authority_data.as_deref();
        let ca = Sourced::new(data, cluster.certificate_authority.as_deref(), names, &cluster_place)?;
        let insecure = cluster.insecure_skip_tls_verify.unwrap_or(false);
        if insecure && ca.is_some() {
            return Err(field(
                "insecure-skip-tls-verify",
                "is true beside a certificate authority, which kubectl refuses: remove one of them",
            ));
        }
        let address = server_url::parse(cluster.server.as_deref(), ca.is_some() || insecure, &cluster_place)?;
        let server_name = match cluster.tls_server_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) if is_host_name(name) => name.to_owned(),
            Some(_) => return Err(field("tls-server-name", "is not a host name: write the name in the certificate")),
            None => address.host.clone(),
        };
        let namespace = match namespace {
            Some(name) if !is_namespace(&name) => {
                return Err(KubeconfigError::Field {
                    field: "namespace",
                    place: context_place,
                    problem: "is not a Kubernetes namespace (a-z, 0-9 and -): correct it",
                });
            }
            namespace => namespace,
        };
        let proxy = match cluster.proxy_url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => Some(ProxyTarget::parse(url, "proxy-url").map_err(|_| {
                field(
                    "proxy-url",
                    "is not a usable proxy URL: write it like http://USER:PASSWORD@HOST:PORT or socks5://HOST:PORT",
                )
            })?),
            None => proxy_from_environment(env, &address.host, address.port)?,
        };
        let exec = match user.exec.take() {
            Some(config) => {
                let told = plugin_cluster(&cluster, ca.as_ref()).await?;
                Some(ExecPlugin::new(config, told, user_place.clone(), env, source.exec_timeout)?)
            }
            None => None,
        };
        let oidc = match &user.auth_provider {
            Some(_) if exec.is_some() => {
                return Err(KubeconfigError::Field {
                    field: "auth-provider",
                    place: user_place,
                    problem: "stands beside `exec`, and kubectl takes only one of them: remove one",
                });
            }
            Some(provider) => Some(Oidc::new(provider, user_place.clone(), env, trust.clone())?),
            None => None,
        };
        Ok(Self {
            cluster_name: to_plain_name(&cluster_name, "cluster"),
            host: address.host,
            port: address.port,
            path: address.path,
            server_name,
            insecure,
            namespace,
            impersonation: Impersonation::of(&user, &user_place)?,
            credentials: CredentialSource::new(&user, exec, oidc, user_place.clone())?,
            user_place,
            ca,
            proxy,
            trust,
            connect_timeout: source.connect_timeout,
            place: cluster_place,
        })
    }

    /// The API server of this pod's cluster, with its service account.
    ///
    /// # Errors
    /// This is no pod, or its service account cannot be used.
    pub fn from_pod(source: &KubeconfigSource, env: &Environment, trust: Trust) -> Result<Self, KubeconfigError> {
        let pod = incluster::load(env)?;
        Ok(Self {
            cluster_name: "in-cluster".into(),
            proxy: proxy_from_environment(env, &pod.host, pod.port)?,
            server_name: pod.host.clone(),
            host: pod.host,
            port: pod.port,
            path: None,
            insecure: false,
            namespace: pod.namespace.filter(|name| is_namespace(name)),
            credentials: pod.credentials,
            impersonation: None,
            user_place: pod.place.clone(),
            ca: Some(pod.ca),
            trust,
            connect_timeout: source.connect_timeout,
            place: pod.place,
        })
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The CA certificates in PEM form, read anew; `None` if the client should use its system's roots.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub async fn ca(&self) -> Result<Option<String>, KubeconfigError> {
        match &self.ca {
            None => Ok(None),
            Some(ca) => Ok(Some(pem::authorities(&ca.read().await?).map_err(|problem| ca.error(problem))?.0)),
        }
    }

    /// Logs how many certificates of the CA cannot be read, if any.
    async fn warn_of_unreadable(&self) {
        let Some(ca) = &self.ca else { return };
        if let Ok(bytes) = ca.read().await
            && let Ok((_, unreadable @ 1..)) = pem::authorities(&bytes)
        {
            tracing::warn!(
                unreadable,
                "of the certificates of {} some cannot be read, and are passed over",
                self.place
            );
        }
    }

    /// What a client is told in shared mode, with the current credentials.
    ///
    /// # Errors
    /// The credentials cannot be had, or do not fit a welcome.
    pub async fn shared_welcome(&self) -> Result<(Welcome, Option<Expiry>), KubeconfigError> {
        if self.impersonation.is_some() {
            return Err(KubeconfigError::Impersonates(self.user_place.clone()));
        }
        let (credentials, expiry) = self.credentials.current().await?;
        let welcome = Welcome {
            mode: Mode::Shared,
            cluster: self.cluster_name.clone(),
            server_name: Some(self.server_name.clone()),
            path: self.path.clone(),
            ca: self.ca().await?,
            insecure_skip_tls_verify: self.insecure,
            namespace: self.namespace.clone(),
            recorded: false,
            credentials: Some(credentials),
        };
        let length = welcome_length(&welcome);
        if length > WELCOME_MAX {
            return Err(KubeconfigError::WelcomeTooLarge(self.place.clone(), WELCOME_MAX));
        }
        Ok((welcome, expiry))
    }

    /// TCP to the API server, through the proxy if there is one; Nagle is off.
    ///
    /// # Errors
    /// A reason that may be shown to the client's user.
    pub async fn connect(&self) -> Result<Transport, ConnectError> {
        let proxy = self.proxy.as_ref();
        connect_tcp_via_proxy(&self.host, self.port, proxy, &self.trust, self.connect_timeout)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    /// Checks that something listens at the API server's address.
    ///
    /// # Errors
    /// As [`Upstream::connect`]; worth a warning, as it may come up later.
    pub async fn check(&self) -> Result<(), ConnectError> {
        self.connect().await.map(drop)
    }

    fn unreachable(&self, error: &DialError) -> ConnectError {
        let why = match error {
            DialError::Unreachable { reason, .. } if self.proxy.is_none() => match reason {
                Unreachable::Refused => "connection refused; is it running?".to_owned(),
                Unreachable::Dns(_) => "its name cannot be resolved beside mykube server".to_owned(),
                Unreachable::Timeout(limit) => {
                    format!("no answer within {} s; is it up, is a firewall between?", limit.as_secs_f32())
                }
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        let told = match error {
            DialError::Unreachable { .. } if self.proxy.is_none() => &why,
            _ => "the proxy before it did not let mykube server through, whose log says more",
        };
        let full = format!("cannot reach the API server {}: {why}", self.address());
        ConnectError::new(&full, &format!("cannot reach the API server: {told}"))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("cluster", &self.cluster_name)
            .field("address", &self.address())
            .field("proxy", &self.proxy)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// The cluster, as a plugin with `provideClusterInfo` is told of it.
async fn plugin_cluster(cluster: &Cluster, ca: Option<&Sourced>) -> Result<ExecCluster, KubeconfigError> {
    let extension = cluster.extensions.iter().find(|named| named.name.as_deref() == Some(EXEC_EXTENSION));
    Ok(ExecCluster {
        server: cluster.server.clone(),
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify.filter(|skip| *skip),
        disable_compression: cluster.disable_compression.filter(|disable| *disable),
        certificate_authority_data: match ca {
            Some(ca) => Some(BASE64.encode(&*ca.read().await?)),
            None => None,
        },
        proxy_url: cluster.proxy_url.clone().filter(|url| !url.is_empty()),
        tls_server_name: cluster.tls_server_name.clone().filter(|name| !name.is_empty()),
        config: extension.map(|named| named.extension.clone()).unwrap_or_default(),
    })
}

/// Length of a welcome's JSON form, counted without keeping it.
fn welcome_length(welcome: &Welcome) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, welcome).map_or(usize::MAX, |()| count.0)
}

/// An RFC 1123 label, as namespaces are.
fn is_namespace(name: &str) -> bool {
    is_plain_name(name)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
