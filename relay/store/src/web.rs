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

use crate::{error::StoreError, room::Waiting, sign_ins::bytes, transaction::Transaction};

const DAMAGED: StoreError = StoreError::Damaged("provider_states");

/// What waits here.
const STATES: Waiting = Waiting {
    table: "provider_states",
    life: LIFE,
    forget: "DELETE FROM provider_states WHERE created_at <= $1",
    count: "SELECT COUNT(*) AS count FROM provider_states",
    count_of: "SELECT COUNT(*) AS count FROM provider_states WHERE network = $1",
    evict: "DELETE FROM provider_states WHERE state = (SELECT state FROM provider_states
        WHERE network = (SELECT network FROM provider_states
            GROUP BY network ORDER BY COUNT(*) DESC, MIN(created_at) LIMIT 1)
        ORDER BY created_at LIMIT 1)",
};

impl Transaction {
    /// Whether one more sign-in of this network may be sent to a provider, where there are so many at most, in all and of one
    /// network: those that are over are forgotten, and where there is no room, the oldest of the network that has the most.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn has_room_for_provider_state(
        &mut self,
        network: &str,
        most: (usize, usize),
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        self.has_room(&STATES, network, most, now).await
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
mod tests;
