//! A database for one test: a SQLite file; or, where `MYKUBE_TEST_DATABASE` is `postgres`, a role and its schema in the
//! PostgreSQL that `scripts/postgres` has made and `MYKUBE_TEST_POSTGRES` names. The portal's tests use it too.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Database, Store};

/// Where a database is. It goes with this.
pub(crate) struct Place {
    pub(crate) database: Database,
    #[allow(dead_code, reason = "the store's tests look at no files")]
    pub(crate) dir: tempfile::TempDir,
    server: Option<Server>,
}

/// A role of PostgreSQL, and its schema.
struct Server {
    dir: PathBuf,
    name: String,
}

impl Place {
    /// Where the tests of this run have theirs.
    pub(crate) fn new() -> Self {
        match std::env::var("MYKUBE_TEST_DATABASE").as_deref() {
            Ok("postgres") => Self::postgres().expect("MYKUBE_TEST_POSTGRES names no PostgreSQL"),
            _ => Self::sqlite(),
        }
    }

    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { database: Database::Sqlite(dir.path().join("relay.db")), dir, server: None }
    }

    /// Nothing, and a line about it, where there is no server.
    pub(crate) fn postgres() -> Option<Self> {
        let Some(server) = std::env::var_os("MYKUBE_TEST_POSTGRES").map(PathBuf::from) else {
            if let Some(list) = std::env::var_os("MYKUBE_NOT_RUN") {
                let mut list = fs::File::options().append(true).open(list).unwrap();
                list.write_all(b"the relay's database on PostgreSQL: NOT RUN, there is none\n").unwrap();
            }
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_lowercase();
        let server = Server { dir: server, name: format!("t_{name}_{}", std::process::id()) };
        // A role's own schema is the first that it looks in.
        let name = &server.name;
        server.psql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'canary-of-postgres'"));
        server.psql(&format!("CREATE SCHEMA {name} AUTHORIZATION {name}"));
        let socket = server.dir.join("socket");
        let url = format!("postgres://{name}@/postgres?host={}&port={}", socket.display(), server.port());
        Some(Self { database: Database::parse(&url).unwrap(), dir, server: Some(server) })
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.database).await.unwrap()
    }

    /// What PostgreSQL's superuser is told, to whom all rows are visible.
    #[allow(dead_code, reason = "the portal's tests look at no rows")]
    pub(crate) fn sql(&self, sql: &str) -> String {
        let server = self.server.as_ref().unwrap();
        server.psql(&format!("SET search_path = {}; {sql}", server.name))
    }

    /// The same database over loopback, with these parameters.
    #[allow(dead_code, reason = "the portal's tests need it not")]
    pub(crate) fn far(&self, parameters: &str) -> Database {
        let server = self.server.as_ref().unwrap();
        let url = format!("postgres://{}@localhost:{}/postgres{parameters}", server.name, server.port());
        Database::parse(&url).unwrap()
    }

    /// The certificate that has signed the server's.
    #[allow(dead_code, reason = "the portal's tests need it not")]
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.server.as_ref().unwrap().dir.join("ca.pem")
    }
}

impl Server {
    fn port(&self) -> String {
        fs::read_to_string(self.dir.join("port")).unwrap().trim().to_owned()
    }

    fn psql(&self, sql: &str) -> String {
        psql(&self.dir, &self.port(), sql)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let name = &self.name;
        if !std::thread::panicking() {
            // What a test has left open would be waited for.
            self.psql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"));
            self.psql(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"));
        }
    }
}

fn psql(dir: &Path, port: &str, sql: &str) -> String {
    let mut psql = Command::new("psql");
    psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", port, "-c", sql]).arg("-h");
    let output = psql.arg(dir.join("socket")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
