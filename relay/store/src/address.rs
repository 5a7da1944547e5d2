//! Where a database is, as a person writes it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sqlx::{ConnectOptions as _, any::AnyConnectOptions};
use url::Url;
use zeroize::Zeroizing;

use crate::error::StoreError;

/// What must not stand in a path within an address.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#').add(b'"').add(b'<').add(b'>').add(b'`');
/// How PostgreSQL names us in `pg_stat_activity`.
const PROGRAM: &str = "mykube-relay";

/// Where a relay's database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// One file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Postgres),
}

/// A database of a PostgreSQL server, and the role that uses it. Shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    user: String,
    /// A name, an address, or the directory of a Unix socket.
    host: String,
    port: u16,
    name: String,
    is_encrypted: bool,
    password: Option<Zeroizing<String>>,
    ca_file: Option<PathBuf>,
}

/// Why an address is none of a database. It does not hold the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("a database is `sqlite:FILE` or `postgres://USER@HOST/DATABASE`")]
    Scheme,
    /// No path.
    #[error("`sqlite:` wants a file: `sqlite:/var/lib/mykube/relay.db`")]
    NoFile,
    /// A part is missing, or no part of such an address.
    #[error(
        "PostgreSQL's address is `postgres://USER@HOST/DATABASE`, all three of them; a Unix socket's directory is \
         `postgres://USER@/DATABASE?host=/run/postgresql`"
    )]
    Postgres,
    /// What stands after the question mark.
    #[error("after the `?` of PostgreSQL's address stand `host=/DIRECTORY`, `port` and `sslmode`, and nothing else")]
    Parameter,
    /// One that believes any server.
    #[error(
        "`sslmode` is `verify-full` or `disable`: what lies between them encrypts for whoever answers, \
         or for nobody when it is told to"
    )]
    SslMode,
}

impl Database {
    /// `sqlite:FILE` or `sqlite:///FILE`; `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(url: &str) -> Result<Self, DatabaseUrlError> {
        if ["postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            return Postgres::parse(url).map(Self::Postgres);
        }
        let path = url.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Scheme)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains([':', '?', '#']) {
            return Err(DatabaseUrlError::NoFile);
        }
        Ok(Self::Sqlite(path.into()))
    }

    pub(crate) fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        let url = match self {
            Self::Sqlite(path) => {
                let text = path.to_str().ok_or_else(|| StoreError::File {
                    path: path.to_owned(),
                    source: io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8"),
                })?;
                Zeroizing::new(format!("sqlite:{}", utf8_percent_encode(text, PATH)))
            }
            Self::Postgres(postgres) => postgres.url(),
        };
        // Statements are the same every time; what they are given is nobody's business.
        Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
    }
}

impl Postgres {
    fn parse(url: &str) -> Result<Self, DatabaseUrlError> {
        let wrong = DatabaseUrlError::Postgres;
        // `user@/database` has no host, which only PostgreSQL's own programs take.
        let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).ok_or(wrong)?;
        let has_host = !authority.ends_with('@');
        let url = if has_host { Url::parse(url) } else { Url::parse(&url.replacen("@/", "@none/", 1)) };
        let url = url.map_err(|_| wrong)?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok();
        let mut host = url.host_str().filter(|_| has_host).and_then(decode).unwrap_or_default();
        let mut port = url.port();
        let mut mode = None;
        for (key, value) in url.query_pairs() {
            match &*key {
                "host" if host.is_empty() && value.starts_with('/') => host = value.into_owned(),
                "port" => port = Some(value.parse().map_err(|_| wrong)?),
                "sslmode" => mode = Some(value.into_owned()),
                _ => return Err(DatabaseUrlError::Parameter),
            }
        }
        let is_near = host.starts_with('/') || is_loopback(&host);
        let is_encrypted = match mode.as_deref() {
            Some("verify-full") => true,
            Some("disable") => false,
            None => !is_near,
            Some(_) => return Err(DatabaseUrlError::SslMode),
        };
        let user = decode(url.username()).filter(|user| !user.is_empty()).ok_or(wrong)?;
        let name = decode(url.path().trim_start_matches('/')).filter(|name| !name.is_empty()).ok_or(wrong)?;
        if host.is_empty() || url.fragment().is_some() {
            return Err(wrong);
        }
        let password = match url.password() {
            Some(password) => Some(Zeroizing::new(decode(password).ok_or(wrong)?)),
            None => None,
        };
        Ok(Self { user, host, port: port.unwrap_or(5432), name, is_encrypted, password, ca_file: None })
    }

    /// Whether the address has one.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// With this password.
    #[must_use]
    pub fn with_password(self, password: Zeroizing<String>) -> Self {
        Self { password: Some(password), ..self }
    }

    /// Believes a server whose certificate one in this file has signed, too.
    #[must_use]
    pub fn with_ca_file(self, ca_file: PathBuf) -> Self {
        Self { ca_file: Some(ca_file), ..self }
    }

    /// Whether others between here and there could read along.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.is_encrypted && !self.host.starts_with('/') && !is_loopback(&self.host)
    }

    /// As sqlx reads it. Nothing is left to its defaults that the environment could change.
    fn url(&self) -> Zeroizing<String> {
        const ALL: &AsciiSet = percent_encoding::NON_ALPHANUMERIC;
        let encode = |text: &str| utf8_percent_encode(text, ALL).to_string();
        let mut url = Zeroizing::new(String::with_capacity(2048));
        url.push_str("postgres://");
        url.push_str(&encode(&self.user));
        if let Some(password) = &self.password {
            url.push(':');
            url.extend(utf8_percent_encode(password, ALL));
        }
        let host = if self.host.starts_with('/') { encode(&self.host) } else { self.host.clone() };
        let mode = if self.is_encrypted { "verify-full" } else { "disable" };
        url.push_str(&format!(
            "@{host}:{}/{}?sslmode={mode}&application_name={PROGRAM}",
            self.port,
            encode(&self.name)
        ));
        if let Some(file) = &self.ca_file {
            url.push_str(&format!("&sslrootcert={}", encode(&file.to_string_lossy())));
        }
        url
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(Postgres { user, host, port, name, .. }) => {
                write!(f, "postgres://{user}@{host}:{port}/{name}")
            }
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({}@{}:{}/{})", self.user, self.host, self.port, self.name)
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl From<&Path> for Database {
    fn from(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_file() {
        let file = |url| Database::parse(url);
        assert_eq!(file("sqlite:relay.db"), Ok(Database::Sqlite("relay.db".into())));
        for absolute in ["sqlite:/var/relay.db", "sqlite:///var/relay.db"] {
            assert_eq!(file(absolute), Ok(Database::Sqlite("/var/relay.db".into())));
        }
        assert_eq!(file("mysql://db"), Err(DatabaseUrlError::Scheme));
        for none in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite:a?mode=ro"] {
            assert_eq!(file(none), Err(DatabaseUrlError::NoFile), "{none}");
        }
    }

    #[test]
    fn or_a_server_that_is_believed_only_with_its_certificate_unless_it_is_near() {
        let url = |url: &str| match Database::parse(url) {
            Ok(Database::Postgres(postgres)) => postgres.url().to_string(),
            other => panic!("{url}: {other:?}"),
        };
        let rest = "&application_name=mykube-relay";
        for (given, expected) in [
            ("postgres://u@db.example/relay", "postgres://u@db.example:5432/relay?sslmode=verify-full"),
            ("postgresql://u:p%40s@db:6432/r", "postgres://u:p%40s@db:6432/r?sslmode=verify-full"),
            ("postgres://u@10.0.0.7/r?sslmode=disable", "postgres://u@10.0.0.7:5432/r?sslmode=disable"),
            ("postgres://u@localhost/r", "postgres://u@localhost:5432/r?sslmode=disable"),
            ("postgres://u@127.0.0.1/r?sslmode=verify-full", "postgres://u@127.0.0.1:5432/r?sslmode=verify-full"),
            ("postgres://u@[::1]/r", "postgres://u@[::1]:5432/r?sslmode=disable"),
            ("postgres://u@/r?host=/run/pg&port=7", "postgres://u@%2Frun%2Fpg:7/r?sslmode=disable"),
            ("postgres://u@%2Frun%2Fpg/r", "postgres://u@%2Frun%2Fpg:5432/r?sslmode=disable"),
        ] {
            assert_eq!(url(given), format!("{expected}{rest}"));
        }
        for (given, expected) in [
            ("postgres://db/relay", DatabaseUrlError::Postgres),
            ("postgres://u@db", DatabaseUrlError::Postgres),
            ("postgres://u@/relay", DatabaseUrlError::Postgres),
            ("postgres:relay", DatabaseUrlError::Postgres),
            ("postgres://u@db/r?password=hunter2", DatabaseUrlError::Parameter),
            ("postgres://u@db/r?host=/run/pg", DatabaseUrlError::Parameter),
            ("postgres://u@db/r?sslmode=require", DatabaseUrlError::SslMode),
            ("postgres://u@db/r?sslmode=prefer", DatabaseUrlError::SslMode),
        ] {
            assert_eq!(Database::parse(given), Err(expected), "{given}");
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        let database = Database::parse("postgres://u:hunter2@db.example/relay").unwrap();
        let Database::Postgres(given) = &database else { panic!() };
        let with = Database::Postgres(given.clone().with_password(Zeroizing::new("hunter22".to_owned())));
        for database in [&database, &with] {
            let shown = format!("{database} {database:?}");
            assert!(!shown.contains("hunter"), "{shown}");
            assert!(database.options().unwrap().database_url.as_str().contains("hunter2"));
        }
    }
}
