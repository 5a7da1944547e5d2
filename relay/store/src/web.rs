//! Sign-ins that are at a provider, and codes with which programs fetch theirs. Each row is taken once: it is gone when it
//! is read, whatever comes of it.

use mykube_relay_accounts::{
    device_code::Confirmation,
    id::SignInId,
    keyed_hash::Digest,
    login_code::{self, LoginCode},
    pkce::Challenge,
    provider_state::{Goal, LIFE, Pending},
    return_path::ReturnPath,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, sign_ins::bytes, transaction::Transaction};

const DAMAGED: StoreError = StoreError::Damaged("provider_states");

impl Transaction {
    /// Whether one more sign-in of this network may be sent to a provider, where there are `most` in all and
    /// `most_of_network` of one: those that are over are forgotten, and where there is no room, the oldest of the network
    /// that has the most.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn has_room_for_provider_state(
        &mut self,
        network: &str,
        (most, most_of_network): (usize, usize),
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        const FORGET: &str = "DELETE FROM provider_states WHERE created_at <= $1";
        const COUNT: &str = "SELECT COUNT(*) AS count FROM provider_states";
        const COUNT_OF: &str = "SELECT COUNT(*) AS count FROM provider_states WHERE network = $1";
        const EVICT: &str = "DELETE FROM provider_states WHERE state = (SELECT state FROM provider_states
            WHERE network = (SELECT network FROM provider_states
                GROUP BY network ORDER BY COUNT(*) DESC, MIN(created_at) LIMIT 1)
            ORDER BY created_at LIMIT 1)";
        let reached = |row: AnyRow, most: usize| {
            let count: i64 = row.try_get("count")?;
            usize::try_from(count).map(|count| count >= most).map_err(|_| DAMAGED)
        };
        sqlx::query(FORGET).bind((now - LIFE).millis()).execute(self.connection()).await?;
        let of_network = sqlx::query(COUNT_OF).bind(network.to_owned()).fetch_one(self.connection()).await?;
        if reached(of_network, most_of_network)? {
            return Ok(false);
        }
        if !reached(sqlx::query(COUNT).fetch_one(self.connection()).await?, most)? {
            return Ok(true);
        }
        Ok(sqlx::query(EVICT).execute(self.connection()).await?.rows_affected() > 0)
    }

    /// Keeps a sign-in that goes to a provider, begun from this network.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_provider_state(&mut self, row: &Pending, network: &str) -> Result<(), StoreError> {
        const KEEP: &str = "INSERT INTO provider_states (state, kid, browser, provider, page, port, program_state,
                challenge, network, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let (page, port, state, challenge) = match &row.goal {
            Goal::Page(path) => (Some(path.to_string()), None, None, None),
            Goal::Program { port, state, challenge } => (None, Some(i64::from(*port)), state.clone(), *challenge),
        };
        let keep = sqlx::query(KEEP).bind(row.state.to_bytes().to_vec()).bind(row.kid.to_string());
        let keep = keep.bind(row.browser.to_bytes().to_vec()).bind(row.provider.clone()).bind(page).bind(port);
        let keep = keep.bind(state).bind(challenge.map(|challenge| challenge.to_bytes().to_vec()));
        keep.bind(network.to_owned()).bind(row.created_at.millis()).execute(self.connection()).await?;
        Ok(())
    }

    /// The sign-in of which the state is shown, by its hash. It is there no longer.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn take_provider_state(&mut self, state: Digest) -> Result<Option<Pending>, StoreError> {
        const TAKE: &str = "DELETE FROM provider_states WHERE state = $1
            RETURNING state, kid, browser, provider, page, port, program_state, challenge, created_at";
        let row = sqlx::query(TAKE).bind(state.to_bytes().to_vec()).fetch_optional(self.connection()).await?;
        row.as_ref().map(pending).transpose()
    }

    /// Keeps a code with which a program fetches its sign-in. Those that are over are forgotten.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_login_code(&mut self, row: &LoginCode) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM login_codes WHERE created_at <= $1";
        const KEEP: &str = "INSERT INTO login_codes (code, account, confirmed_by, auth_time, confirmed_from, challenge,
                created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let over = row.created_at - login_code::LIFE;
        sqlx::query(FORGET).bind(over.millis()).execute(self.connection()).await?;
        let Confirmation { account, sid, auth_time, from } = row.by;
        let keep = sqlx::query(KEEP).bind(row.code.to_bytes().to_vec()).bind(account.to_string());
        let keep = keep.bind(sid.as_bytes().to_vec()).bind(auth_time.millis()).bind(from.to_string());
        let keep = keep.bind(row.challenge.map(|challenge| challenge.to_bytes().to_vec()));
        keep.bind(row.created_at.millis()).execute(self.connection()).await?;
        Ok(())
    }

    /// The code that is shown, by its hash. It is there no longer.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn take_login_code(&mut self, code: Digest) -> Result<Option<LoginCode>, StoreError> {
        const TAKE: &str = "DELETE FROM login_codes WHERE code = $1
            RETURNING code, account, confirmed_by, auth_time, confirmed_from, challenge, created_at";
        let row = sqlx::query(TAKE).bind(code.to_bytes().to_vec()).fetch_optional(self.connection()).await?;
        row.as_ref().map(login_code).transpose()
    }
}

fn pending(row: &AnyRow) -> Result<Pending, StoreError> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let goal = match (text("page")?, row.try_get::<Option<i64>, _>("port")?) {
        (Some(page), _) => Goal::Page(ReturnPath::parse(&page)),
        (None, Some(port)) => Goal::Program {
            port: port.try_into().map_err(|_| DAMAGED)?,
            state: text("program_state")?,
            challenge: challenge(row)?,
        },
        (None, None) => return Err(DAMAGED),
    };
    Ok(Pending {
        state: bytes(row, "state").map(Digest::from_bytes)?,
        kid: row.try_get::<String, _>("kid")?.parse().map_err(|_| DAMAGED)?,
        browser: bytes(row, "browser").map(Digest::from_bytes)?,
        provider: row.try_get("provider")?,
        goal,
        created_at: UnixTime::from_millis(row.try_get("created_at")?),
    })
}

fn login_code(row: &AnyRow) -> Result<LoginCode, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get(column).map(UnixTime::from_millis);
    Ok(LoginCode {
        code: bytes(row, "code").map(Digest::from_bytes)?,
        by: Confirmation {
            account: text("account")?.parse().map_err(|_| StoreError::Damaged("login_codes.account"))?,
            sid: bytes(row, "confirmed_by").map(SignInId::from_bytes)?,
            auth_time: time("auth_time")?,
            from: text("confirmed_from")?.parse().map_err(|_| StoreError::Damaged("login_codes.confirmed_from"))?,
        },
        challenge: challenge(row)?,
        created_at: time("created_at")?,
    })
}

fn challenge(row: &AnyRow) -> Result<Option<Challenge>, StoreError> {
    let bytes: Option<Vec<u8>> = row.try_get("challenge")?;
    let bytes = bytes.map(<[u8; 32]>::try_from).transpose().map_err(|_| StoreError::Damaged("challenge"))?;
    Ok(bytes.map(Challenge::from_bytes))
}

#[cfg(test)]
mod tests {
    use mykube_relay_accounts::{
        keyed_hash::KeyedHash,
        keys::{Keys, Purpose},
        secret::Secret,
    };

    use super::*;
    use crate::{Database, Store, tests::sign_in};

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    async fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(&Database::Sqlite(dir.path().join("relay.db"))).await.unwrap()
    }

    fn hash() -> KeyedHash {
        KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes)
    }

    fn begin(goal: Goal, now: UnixTime) -> Pending {
        let cookie = Secret::random(&mut rand::rng());
        Pending::begin("here", goal, &cookie, &hash(), now, &mut rand::rng()).0
    }

    #[tokio::test]
    async fn what_was_kept_is_taken_once_and_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let (account, sid) = (sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await.id, [1; 16]);
        let challenge = Some(Challenge::of("verifier"));
        let program =
            |state: Option<&str>, challenge| Goal::Program { port: 65_535, state: state.map(str::to_owned), challenge };
        let page = Goal::Page(ReturnPath::parse("/device?x=1"));
        for goal in [page, program(None, None), program(Some("s"), challenge)] {
            let row = begin(goal, NOW);
            let mut transaction = store.begin().await.unwrap();
            transaction.begin_provider_state(&row, "192.0.2.1").await.unwrap();
            assert_eq!(transaction.take_provider_state(row.state).await.unwrap(), Some(row.clone()));
            assert_eq!(transaction.take_provider_state(row.state).await.unwrap(), None);
            transaction.commit().await.unwrap();
        }
        for challenge in [challenge, None] {
            let from = [192, 0, 2, 1].into();
            let by = Confirmation { account, sid: SignInId::from_bytes(sid), auth_time: NOW, from };
            let (row, _) = LoginCode::new(by, challenge, &hash(), NOW, &mut rand::rng());
            let mut transaction = store.begin().await.unwrap();
            transaction.begin_login_code(&row).await.unwrap();
            assert_eq!(transaction.take_login_code(row.code).await.unwrap(), Some(row.clone()));
            assert_eq!(transaction.take_login_code(row.code).await.unwrap(), None);
            transaction.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_flood_of_sign_ins_shuts_out_its_own_network() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let mut transaction = store.begin().await.unwrap();
        let mut ask = async |network: &str, second: u64| {
            let now = NOW + std::time::Duration::from_secs(second);
            let row = begin(Goal::Page(ReturnPath::default()), now);
            let room = transaction.has_room_for_provider_state(network, (8, 4), now).await.unwrap();
            if room {
                transaction.begin_provider_state(&row, network).await.unwrap();
            }
            (room, row)
        };
        let (_, honest) = ask("192.0.2.1", 0).await;
        for second in 1..10 {
            assert_eq!(ask("198.51.100.1", second).await.0, second <= 4, "a network has so many");
        }
        for second in 10..100 {
            ask("198.51.100.2", second).await;
        }
        for third in 1..5 {
            assert!(ask(&format!("203.0.113.{third}"), 101).await.0, "others find room");
        }
        assert_eq!(transaction.take_provider_state(honest.state).await.unwrap(), Some(honest.clone()));
    }

    #[tokio::test]
    async fn what_nobody_came_back_for_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
        let row = begin(Goal::Page(ReturnPath::default()), NOW);
        let sid = SignInId::from_bytes([1; 16]);
        let by = Confirmation { account: alice.id, sid, auth_time: NOW, from: [192, 0, 2, 1].into() };
        let (code, _) = LoginCode::new(by, None, &hash(), NOW, &mut rand::rng());
        let mut transaction = store.begin().await.unwrap();
        transaction.begin_provider_state(&row, "192.0.2.1").await.unwrap();
        transaction.begin_login_code(&code).await.unwrap();
        transaction.commit().await.unwrap();
        let left = async |after: std::time::Duration| {
            store.forget(NOW + after).await.unwrap();
            let count = "SELECT (SELECT COUNT(*) FROM provider_states) + (SELECT COUNT(*) FROM login_codes) AS count";
            sqlx::query(count).fetch_one(&store.pool).await.unwrap().get::<i64, _>("count")
        };
        let ms = std::time::Duration::from_millis(1);
        assert_eq!((left(login_code::LIFE - ms).await, left(login_code::LIFE).await), (2, 1));
        assert_eq!((left(LIFE - ms).await, left(LIFE).await), (1, 0));
    }
}
