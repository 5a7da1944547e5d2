//! Names by which relays that others have published are configured: environment variables, a file of such variables, a
//! `relay.yaml`. Each is another spelling of a flag or of a key of `relay.toml`, below both, and is judged as that one is.
//! None of them does anything unless it is asked for (`--published-env`, `--env-file`, `--config FILE.yaml`).

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use mykube_relay::RelayArgs;
use mykube_relay_accounts::keys::Keys;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{
    env_file,
    error::{ConfigError, Problem},
    relay_yaml,
    secret::DEV_SECRET,
    value::Value,
};

/// Names with a meaning here. Those of OAuth applications ([`APPLICATIONS`]) and of what is not built ([`not_built`]) are others.
const NAMES: [&str; 14] = [
    "BASE_URL",
    "GOOGLE_CLIENT_ID",
    "GOOGLE_CLIENT_SECRET",
    "JWT_EXPIRATION",
    "JWT_SECRET",
    "PORT",
    "RELAY_CONFIG",
    "RELAY_CORS_ORIGINS",
    "RELAY_DEV_MODE",
    "RELAY_DEV_SECRET",
    "RELAY_JWT_SECRET",
    "RELAY_PUBLIC_URL",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
];

/// Whose OAuth applications have `{PROVIDER}_CLIENT_ID` and `{PROVIDER}_CLIENT_SECRET`.
const APPLICATIONS: [&str; 14] = [
    "AIRTABLE",
    "AZURE",
    "CONFLUENCE",
    "DISCORD",
    "GITHUB",
    "GITLAB",
    "GOOGLE",
    "LINEAR",
    "NOTION",
    "OFFICE365",
    "SALESFORCE",
    "SLACK",
    "SPOTIFY",
    "STRIPE",
];

/// Which of them turn accounts on, the one that is told first where it is one too many.
const ACCOUNTS: [&str; 3] = ["RELAY_PUBLIC_URL", "RELAY_JWT_SECRET", "JWT_SECRET"];

/// What is set, by name; nothing that is empty.
#[derive(Default)]
pub(crate) struct Names(BTreeMap<String, Value>);

impl Names {
    /// What this process was given, with what a file says below it.
    ///
    /// # Errors
    /// The file cannot be used, or a variable is no text.
    pub(crate) fn read(environment: bool, file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut names = Self::default();
        if let Some(file) = file {
            names.add_file(file)?;
        }
        if environment {
            names.add_variables(env::vars_os())?;
        }
        Ok(names)
    }

    /// A file of variables.
    ///
    /// # Errors
    /// It cannot be read, or one of its lines.
    pub(crate) fn add_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        for (name, value) in env_file::read(file)? {
            if is_known(&name) && !value.text.is_empty() {
                self.0.insert(name, value);
            }
        }
        Ok(())
    }

    fn add_variables(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.into_string().ok().filter(|name| is_known(name)) else { continue };
            match value.into_string().map(Zeroizing::new) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.0.insert(name.clone(), Value { text, place: name });
                }
                Err(_) => problems.push(Problem { place: name, text: "it is not UTF-8".to_owned() }),
            }
        }
        ConfigError::unless_empty(problems)
    }

    /// A published `relay.yaml`, which is above variables; `${NAME}` in it is one of them, or of this process's.
    ///
    /// # Errors
    /// It cannot be read, has something that it does not have, or something that is not built.
    pub(crate) fn add_yaml(&mut self, file: &Path) -> Result<(), ConfigError> {
        let variable = |name: &str| {
            let set = self.0.get(name).map(|value| value.text.clone());
            set.or_else(|| env::var(name).ok().map(Zeroizing::new))
        };
        self.0.extend(relay_yaml::read(file, variable)?);
        Ok(())
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> Option<PathBuf> {
        self.text("RELAY_CONFIG").map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.text.as_str())
    }

    /// What they mean together.
    ///
    /// # Errors
    /// One of them is wrong, or not built yet.
    pub(crate) fn understand(&self) -> Result<Published, ConfigError> {
        let mut reader = Reader { names: self, problems: Vec::new() };
        let published = reader.read();
        ConfigError::unless_empty(reader.problems)?;
        Ok(published)
    }
}

fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || not_built(name, false).is_some()
}

/// What a name is for, where that is not built yet. Google's application is for signing in beside a name of those relays
/// that sign people in, and for the broker elsewhere.
fn not_built(name: &str, signs_in: bool) -> Option<&'static str> {
    let application = name.strip_suffix("_CLIENT_ID").or_else(|| name.strip_suffix("_CLIENT_SECRET"));
    match name {
        "MAX_MESSAGE_LENGTH" => Some("the devices channel"),
        "BROKER_SIGNING_KEY" | "BROKER_SIGNING_KEY_FILE" => Some("the broker"),
        "DICODE_E2E_MOCK_PROVIDER" => Some("the broker's mock provider"),
        "MTLS_CERT_FILE" | "MTLS_KEY_FILE" => Some("a port of its own for daemons with certificates"),
        _ if application == Some("GOOGLE") && signs_in => None,
        _ if application.is_some_and(|name| APPLICATIONS.contains(&name)) => Some("the broker"),
        _ => None,
    }
}

/// A key of `relay.toml` under its published name.
struct Setting {
    path: &'static [&'static str],
    value: Given,
    place: String,
}

enum Given {
    Text(Zeroizing<String>),
    Texts(Vec<String>),
    Table(Vec<(&'static str, Given)>),
    /// One more of these tables, unless there is one with its `name`.
    OneOf(Vec<(&'static str, Given)>),
}

impl Given {
    fn text(text: &str) -> Self {
        Self::Text(Zeroizing::new(text.to_owned()))
    }

    fn toml(&self, at: usize) -> DeValue<'static> {
        let spanned = |value| Spanned::new(at..at, value);
        let text = |text: &str| DeValue::String(text.to_owned().into());
        match self {
            Self::Text(value) => text(value),
            Self::Texts(values) => DeValue::Array(values.iter().map(|value| spanned(text(value))).collect()),
            Self::Table(values) | Self::OneOf(values) => {
                let pairs =
                    values.iter().map(|(key, value)| (Spanned::new(at..at, (*key).into()), spanned(value.toml(at))));
                DeValue::Table(pairs.collect())
            }
        }
    }
}

/// What published names mean.
#[derive(Default)]
pub(crate) struct Published {
    listen: Option<SocketAddr>,
    tls: Option<(PathBuf, PathBuf)>,
    /// The secret that everything is signed with, in place of a keys file.
    pub(super) keys: Option<Keys>,
    /// One of them turns accounts on.
    has_accounts: bool,
    settings: Vec<Setting>,
}

impl Published {
    /// Gives what no flag says.
    pub(crate) fn below(&mut self, relay: &mut RelayArgs) {
        relay.listen = relay.listen.or(self.listen);
        if relay.tls_cert.is_none()
            && let Some((cert, key)) = self.tls.take()
        {
            (relay.tls_cert, relay.tls_key) = (Some(cert), Some(key));
        }
    }

    /// Gives what the file does not say. The value at `n` stands behind the file's end, at `end + 1 + n`, for whoever asks
    /// for its place ([`Self::place`]).
    pub(super) fn fill(&self, file: &mut DeTable<'_>, end: usize) -> Vec<Problem> {
        let has_accounts = self.has_accounts || file.contains_key("accounts");
        let mut problems = Vec::new();
        for (n, Setting { path, value, place }) in self.settings.iter().enumerate() {
            if has_accounts {
                put(file, path, value, end + 1 + n);
            } else {
                let text = "it is of accounts: it needs RELAY_PUBLIC_URL, JWT_SECRET or RELAY_JWT_SECRET beside it, or [accounts] \
                     in a relay.toml (hooks and the broker are not built yet)";
                problems.push(Problem { place: place.clone(), text: text.to_owned() });
            }
        }
        problems
    }

    /// Where the value stands that was given a place behind the file's end.
    pub(super) fn place(&self, behind: usize) -> Option<&str> {
        self.settings.get(behind).map(|setting| setting.place.as_str())
    }
}

/// Puts a value where the file has none.
fn put(table: &mut DeTable<'_>, path: &[&'static str], value: &Given, at: usize) {
    let [name, rest @ ..] = path else { return };
    let inner = table.entry(Spanned::new(at..at, (*name).into()));
    let spanned = |value| Spanned::new(at..at, value);
    if let Given::OneOf(_) = value {
        let list = inner.or_insert_with(|| spanned(DeValue::Array(std::iter::empty().collect())));
        let (more, name) =
            (value.toml(at), |table: &DeValue<'_>| Some(table.as_table()?.get("name")?.get_ref().as_str()?.to_owned()));
        if let DeValue::Array(list) = list.get_mut()
            && list.iter().all(|other| name(other.get_ref()) != name(&more))
        {
            list.push(spanned(more));
        }
    } else if rest.is_empty() {
        inner.or_insert_with(|| spanned(value.toml(at)));
    } else if let DeValue::Table(inner) = inner.or_insert_with(|| spanned(DeValue::Table(DeTable::new()))).get_mut() {
        put(inner, rest, value, at);
    }
}

struct Reader<'a> {
    names: &'a Names,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, value: &Value, text: impl Into<String>) {
        self.problems.push(Problem { place: value.place.clone(), text: text.into() });
    }

    /// The one value of names that mean the same.
    fn one_of(&mut self, names: [&str; 2]) -> Option<&'a Value> {
        let given = self.names;
        let [first, second] = names.map(|name| given.0.get(name));
        if let (Some(first), Some(second)) = (first, second)
            && first.text != second.text
        {
            self.wrong(second, format!("{} and {} mean the same, and have two values: remove one", names[0], names[1]));
        }
        first.or(second)
    }

    fn read(&mut self) -> Published {
        let given = self.names;
        let value = |name: &str| given.0.get(name);
        let signs_in = ACCOUNTS.iter().any(|name| value(name).is_some());
        for (name, value) in &given.0 {
            if let Some(what) = not_built(name, signs_in) {
                self.wrong(value, format!("{what} is not built yet: remove {name}"));
            }
        }
        let listen = value("PORT").and_then(|port| self.port(port));
        let tls = self.tls(value("TLS_CERT_FILE"), value("TLS_KEY_FILE"));
        let secret = self.one_of(["JWT_SECRET", "RELAY_JWT_SECRET"]);
        let keys = secret.and_then(|secret| self.keys(secret));
        let dev = value("RELAY_DEV_MODE").filter(|mode| self.is_on(mode));
        let turned_on = ACCOUNTS.iter().find_map(|name| value(name)).or(dev);
        let (mut settings, mut problems) = (Vec::new(), Vec::new());
        let mut set = |path: &'static [&'static str], value: Given, at: &Value| {
            settings.push(Setting { path, value, place: at.place.clone() });
        };
        if let Some(value) = turned_on {
            set(&["accounts"], Given::Table(Vec::new()), value);
        }
        if let Some(url) = self.one_of(["RELAY_PUBLIC_URL", "BASE_URL"]) {
            set(&["public_url"], Given::Text(url.text.clone()), url);
        }
        if let Some(origins) = value("RELAY_CORS_ORIGINS") {
            let each = origins.text.split(',').map(|origin| origin.trim().to_owned());
            set(&["browser", "allow_origin"], Given::Texts(each.filter(|it| !it.is_empty()).collect()), origins);
        }
        if let Some(life) = value("JWT_EXPIRATION") {
            set(&["devices", "token_lifetime"], Given::Text(life.text.clone()), life);
        }
        if let Some(mode) = dev {
            // Our own variable stands above published ones.
            let is_elsewhere = env::var_os(DEV_SECRET).is_some_and(|secret| !secret.is_empty());
            let secret = value("RELAY_DEV_SECRET").filter(|_| !is_elsewhere);
            if secret.is_none() && !is_elsewhere {
                let text = "dev mode needs RELAY_DEV_SECRET: without one, whoever asks would be whom they say";
                self.wrong(mode, text);
            }
            let table = secret.map(|secret| ("secret", Given::Text(secret.text.clone()))).into_iter().collect();
            set(&["dev"], Given::Table(table), secret.unwrap_or(mode));
        }
        if let Some(client) = value("GOOGLE_CLIENT_ID").filter(|_| signs_in) {
            let mut table = vec![
                ("name", Given::text("google")),
                ("kind", Given::text("google")),
                ("client_id", Given::Text(client.text.clone())),
            ];
            if let Some(secret) = value("GOOGLE_CLIENT_SECRET") {
                table.push(("client_secret", Given::Text(secret.text.clone())));
            }
            // Whoever has this name takes ID tokens of that client, at `POST /auth`.
            if value("JWT_SECRET").is_some() {
                table.push(("id_token_audiences", Given::Texts(vec![client.text.to_string()])));
            }
            set(&["provider"], Given::OneOf(table), client);
        } else if let Some(secret) = value("GOOGLE_CLIENT_SECRET").filter(|_| signs_in) {
            problems.push(Problem { place: secret.place.clone(), text: "it needs GOOGLE_CLIENT_ID".to_owned() });
        }
        self.problems.extend(problems);
        Published { listen, tls, keys, has_accounts: turned_on.is_some(), settings }
    }

    /// Published relays listen everywhere.
    fn port(&mut self, port: &Value) -> Option<SocketAddr> {
        let number = port.text.parse().map_err(|_| self.wrong(port, "a port is a number up to 65535")).ok()?;
        Some((Ipv4Addr::UNSPECIFIED, number).into())
    }

    fn tls(&mut self, cert: Option<&Value>, key: Option<&Value>) -> Option<(PathBuf, PathBuf)> {
        match (cert, key) {
            (None, None) => {}
            (Some(cert), Some(key)) => return Some((cert.text.as_str().into(), key.text.as_str().into())),
            (Some(cert), None) => self.wrong(cert, "it needs TLS_KEY_FILE: the certificate's private key"),
            (None, Some(key)) => self.wrong(key, "it needs TLS_CERT_FILE: the key's certificate"),
        }
        None
    }

    fn keys(&mut self, secret: &Value) -> Option<Keys> {
        Keys::from_configured(secret.text.as_bytes()).map_err(|weak| self.wrong(secret, weak.to_string())).ok()
    }

    fn is_on(&mut self, mode: &Value) -> bool {
        match mode.text.as_str() {
            "true" | "1" => return true,
            "false" | "0" => {}
            _ => self.wrong(mode, "it is `true` or `1`, or `false` or `0`"),
        }
        false
    }
}

#[cfg(test)]
mod tests;
