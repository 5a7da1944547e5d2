//! Agents of an organisation and their tokens, a row each.

use mykube_relay_accounts::{
    id::{AccountId, AgentId, OrganisationId},
    keyed_hash::Digest,
    keys::Kid,
    name::Name,
    relay_key::RelayKeyId,
    sign_in::Role,
    time::UnixTime,
    token::{Kind, TokenRow},
};
use sqlx::{Row as _, any::AnyRow};

use crate::{
    database::Store, error::StoreError, organisation::Organisation, sign_ins::bytes, transaction::Transaction,
};

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// What it is called there.
    pub name: Name,
    /// Which it is.
    pub id: AgentId,
    /// When it was made.
    pub created_at: UnixTime,
    /// Of its newest token.
    pub generation: u32,
    /// The key that it showed last.
    pub relay_key: Option<RelayKey>,
}

/// A key that an agent has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayKey {
    /// Which.
    pub id: RelayKeyId,
    /// Since when it has had this one.
    pub since: UnixTime,
    /// How many it has shown, with this one.
    pub count: i64,
}

impl Organisation<'_> {
    /// Its agents whose names come after this one, by name.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn agents(&self, after: &str, most: u32) -> Result<Vec<Agent>, StoreError> {
        const LIST: &str = "SELECT organisation, name AS agent, id, created_at, generation, relay_key, relay_keys,
            relay_key_at FROM agents WHERE organisation = $1 AND name > $2 ORDER BY name LIMIT $3";
        let list = sqlx::query(LIST).bind(self.id.to_string()).bind(after.to_owned()).bind(i64::from(most));
        let mut transaction = self.store.begin().await?;
        list.fetch_all(transaction.of(self.id).await?).await?.iter().map(agent).collect()
    }
}

impl Store {
    /// The token that is shown, by its hashes under each secret that there is, and its agent.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn agent_token(&self, candidates: &[(Kid, Digest)]) -> Result<Option<(Agent, TokenRow)>, StoreError> {
        const FIND: &str = "SELECT agents.organisation, agent, agents.id, agents.created_at, agents.generation,
                relay_key, relay_keys, relay_key_at, agent_tokens.generation AS token_generation, kid, digest, slow, vouched,
                agent_tokens.created_at AS token_created_at, expires_at, replaced_until, revoked_at, strict
            FROM agent_tokens JOIN agents ON agents.organisation = agent_tokens.organisation AND name = agent
            WHERE digest = $1 AND agent_tokens.organisation = $2";
        const WHOSE: &str = "SELECT organisation FROM agent_tokens WHERE digest = $1";
        let mut transaction = self.begin().await?;
        for (_, digest) in candidates {
            let bytes = digest.to_bytes().to_vec();
            let whose = sqlx::query(WHOSE).bind(bytes.clone());
            let Some(row) = whose.fetch_optional(transaction.shown(*digest).await?).await? else { continue };
            let whose = organisation(&row)?;
            let find = sqlx::query(FIND).bind(bytes).bind(whose.to_string());
            if let Some(row) = find.fetch_optional(transaction.of(whose).await?).await? {
                return Ok(Some((agent(&row)?, token(&row)?)));
            }
        }
        Ok(None)
    }
}

impl Transaction {
    /// What somebody is in an organisation.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn role(&mut self, organisation: OrganisationId, account: AccountId) -> Result<Option<Role>, StoreError> {
        const ROLE: &str = "SELECT role FROM members WHERE organisation = $1 AND account = $2";
        let role = sqlx::query(ROLE).bind(organisation.to_string()).bind(account.to_string());
        let Some(row) = role.fetch_optional(self.of(organisation).await?).await? else { return Ok(None) };
        match row.try_get::<String, _>("role")?.as_str() {
            "owner" => Ok(Some(Role::Owner)),
            "member" => Ok(Some(Role::Member)),
            _ => Err(StoreError::Damaged("members.role")),
        }
    }

    /// When this person last signed in in a browser, of the sign-ins that have not ended.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn signed_in_by_browser_at(&mut self, account: AccountId) -> Result<Option<UnixTime>, StoreError> {
        const LAST: &str = "SELECT MAX(signed_in_at) AS at FROM sign_ins
            WHERE account = $1 AND method = 'browser' AND ended_at IS NULL";
        let row = sqlx::query(LAST).bind(account.to_string()).fetch_one(self.connection()).await?;
        time(&row, "at")
    }

    /// How many agents an organisation has.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn count_agents(&mut self, organisation: OrganisationId) -> Result<i64, StoreError> {
        const COUNT: &str = "SELECT COUNT(*) AS count FROM agents WHERE organisation = $1";
        let row = sqlx::query(COUNT).bind(organisation.to_string()).fetch_one(self.of(organisation).await?).await?;
        Ok(row.try_get("count")?)
    }

    /// Keeps a new agent. Says whether it has: the name may be another's.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn add_agent(&mut self, agent: &Agent) -> Result<bool, StoreError> {
        const ADD: &str = "INSERT INTO agents (organisation, name, id, created_at, generation, relay_keys)
            VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (organisation, name) DO NOTHING";
        let add = sqlx::query(ADD).bind(agent.organisation.to_string()).bind(agent.name.as_str().to_owned());
        let add = add.bind(agent.id.as_bytes().to_vec()).bind(agent.created_at.millis());
        let added = add.bind(i64::from(agent.generation)).execute(self.of(agent.organisation).await?).await?;
        Ok(added.rows_affected() > 0)
    }

    /// An agent, by its name.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn agent(&mut self, organisation: OrganisationId, name: &Name) -> Result<Option<Agent>, StoreError> {
        const FIND: &str = "SELECT organisation, name AS agent, id, created_at, generation, relay_key, relay_keys,
            relay_key_at FROM agents WHERE organisation = $1 AND name = $2";
        let find = sqlx::query(FIND).bind(organisation.to_string()).bind(name.as_str().to_owned());
        find.fetch_optional(self.of(organisation).await?).await?.as_ref().map(agent).transpose()
    }

    /// Forgets an agent and its tokens.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn remove_agent(&mut self, organisation: OrganisationId, name: &Name) -> Result<(), StoreError> {
        const TOKENS: &str = "DELETE FROM agent_tokens WHERE organisation = $1 AND agent = $2";
        const AGENT: &str = "DELETE FROM agents WHERE organisation = $1 AND name = $2";
        for delete in [TOKENS, AGENT] {
            let delete = sqlx::query(delete).bind(organisation.to_string()).bind(name.as_str().to_owned());
            delete.execute(self.of(organisation).await?).await?;
        }
        Ok(())
    }

    /// Notes the key that an agent shows now, if it is not the one that it showed last. Says whether it had another before.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn note_relay_key(&mut self, of: &Agent, key: RelayKeyId, now: UnixTime) -> Result<bool, StoreError> {
        const NOTE: &str = "UPDATE agents SET relay_key = $1, relay_keys = relay_keys + 1, relay_key_at = $2
            WHERE organisation = $3 AND name = $4 AND id = $5 AND (relay_key IS NULL OR relay_key <> $6)";
        let key = key.to_bytes().to_vec();
        let note = sqlx::query(NOTE).bind(key.clone()).bind(now.millis()).bind(of.organisation.to_string());
        let note = note.bind(of.name.as_str().to_owned()).bind(of.id.as_bytes().to_vec()).bind(key);
        let noted = note.execute(self.of(of.organisation).await?).await?.rows_affected() > 0;
        Ok(noted && of.relay_key.is_some())
    }

    /// The tokens of an agent, the newest first.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn agent_tokens(
        &mut self,
        organisation: OrganisationId,
        name: &Name,
    ) -> Result<Vec<TokenRow>, StoreError> {
        const LIST: &str = "SELECT organisation, agent, generation AS token_generation, kid, digest, slow, vouched,
                created_at AS token_created_at, expires_at, replaced_until, revoked_at, strict
            FROM agent_tokens WHERE organisation = $1 AND agent = $2 ORDER BY generation DESC";
        let list = sqlx::query(LIST).bind(organisation.to_string()).bind(name.as_str().to_owned());
        list.fetch_all(self.of(organisation).await?).await?.iter().map(token).collect()
    }

    /// Keeps a new token, which is the agent's newest.
    ///
    /// # Errors
    /// The database gives no answer, or another has been made meanwhile.
    pub async fn add_agent_token(&mut self, row: &TokenRow) -> Result<(), StoreError> {
        const NEWEST: &str =
            "UPDATE agents SET generation = $1 WHERE organisation = $2 AND name = $3 AND generation <= $4";
        const ADD: &str =
            "INSERT INTO agent_tokens (organisation, agent, generation, kid, digest, slow, vouched, created_at,
                expires_at, replaced_until, revoked_at, strict)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            ON CONFLICT (organisation, agent, generation) DO NOTHING";
        let (organisation, name) = (row.organisation.to_string(), row.name.as_str().to_owned());
        let newest = sqlx::query(NEWEST).bind(i64::from(row.generation)).bind(organisation.clone());
        let newest = newest.bind(name.clone()).bind(i64::from(row.generation));
        if newest.execute(self.of(row.organisation).await?).await?.rows_affected() == 0 {
            return Err(StoreError::Changed);
        }
        let add = sqlx::query(ADD).bind(organisation).bind(name).bind(i64::from(row.generation));
        let add = add.bind(row.kid.to_string()).bind(row.digest.to_bytes().to_vec()).bind(row.slow.clone());
        let add = add.bind(row.vouched.map(|vouched| vouched.to_bytes().to_vec()));
        let millis = |at: Option<UnixTime>| at.map(UnixTime::millis);
        let add = add.bind(row.created_at.millis()).bind(millis(row.expires_at)).bind(millis(row.replaced_until));
        let add = add.bind(millis(row.revoked_at)).bind(i64::from(row.strict));
        let added = add.execute(self.of(row.organisation).await?).await?;
        if added.rows_affected() > 0 { Ok(()) } else { Err(StoreError::Changed) }
    }

    /// Keeps what a rule made of a token: its ends.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn change_agent_token(&mut self, row: &TokenRow) -> Result<(), StoreError> {
        const CHANGE: &str = "UPDATE agent_tokens SET replaced_until = $1, revoked_at = $2, strict = $3
            WHERE organisation = $4 AND agent = $5 AND generation = $6";
        let change = sqlx::query(CHANGE).bind(row.replaced_until.map(UnixTime::millis));
        let change = change.bind(row.revoked_at.map(UnixTime::millis)).bind(i64::from(row.strict));
        let change = change.bind(row.organisation.to_string()).bind(row.name.as_str().to_owned());
        change.bind(i64::from(row.generation)).execute(self.of(row.organisation).await?).await?;
        Ok(())
    }

    /// Keeps by what a token is found, and what vouches for it. Its ends may have changed since it was read: they stay.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn rehash_agent_token(&mut self, row: &TokenRow) -> Result<(), StoreError> {
        const REHASH: &str = "UPDATE agent_tokens SET kid = $1, digest = $2, vouched = $3
            WHERE organisation = $4 AND agent = $5 AND generation = $6 AND slow = $7";
        let rehash = sqlx::query(REHASH).bind(row.kid.to_string()).bind(row.digest.to_bytes().to_vec());
        let rehash = rehash.bind(row.vouched.map(|vouched| vouched.to_bytes().to_vec()));
        let rehash = rehash.bind(row.organisation.to_string()).bind(row.name.as_str().to_owned());
        rehash.bind(i64::from(row.generation)).bind(row.slow.clone()).execute(self.of(row.organisation).await?).await?;
        Ok(())
    }

    /// Forgets a token, whose end has come.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn forget_agent_token(&mut self, row: &TokenRow) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM agent_tokens WHERE organisation = $1 AND agent = $2 AND generation = $3";
        let forget = sqlx::query(FORGET).bind(row.organisation.to_string()).bind(row.name.as_str().to_owned());
        forget.bind(i64::from(row.generation)).execute(self.of(row.organisation).await?).await?;
        Ok(())
    }
}

fn agent(row: &AnyRow) -> Result<Agent, StoreError> {
    let relay_key = match row.try_get::<Option<Vec<u8>>, _>("relay_key")? {
        None => None,
        Some(_) => Some(RelayKey {
            id: RelayKeyId::from_bytes(bytes(row, "relay_key")?),
            since: time(row, "relay_key_at")?.ok_or(StoreError::Damaged("agents.relay_key_at"))?,
            count: row.try_get("relay_keys")?,
        }),
    };
    Ok(Agent {
        organisation: organisation(row)?,
        name: name(row)?,
        id: AgentId::from_bytes(bytes(row, "id")?),
        created_at: UnixTime::from_millis(row.try_get("created_at")?),
        generation: number(row, "generation")?,
        relay_key,
    })
}

fn token(row: &AnyRow) -> Result<TokenRow, StoreError> {
    let kid: String = row.try_get("kid")?;
    Ok(TokenRow {
        organisation: organisation(row)?,
        kind: Kind::Agent,
        name: name(row)?,
        generation: number(row, "token_generation")?,
        kid: kid.parse().map_err(|_| StoreError::Damaged("agent_tokens.kid"))?,
        digest: Digest::from_bytes(bytes(row, "digest")?),
        slow: row.try_get("slow")?,
        vouched: match row.try_get::<Option<Vec<u8>>, _>("vouched")? {
            None => None,
            Some(_) => Some(Digest::from_bytes(bytes(row, "vouched")?)),
        },
        created_at: UnixTime::from_millis(row.try_get("token_created_at")?),
        expires_at: time(row, "expires_at")?,
        replaced_until: time(row, "replaced_until")?,
        strict: row.try_get::<i64, _>("strict")? != 0,
        revoked_at: time(row, "revoked_at")?,
    })
}

fn organisation(row: &AnyRow) -> Result<OrganisationId, StoreError> {
    row.try_get::<String, _>("organisation")?.parse().map_err(|_| StoreError::Damaged("agents.organisation"))
}

fn name(row: &AnyRow) -> Result<Name, StoreError> {
    row.try_get::<String, _>("agent")?.parse().map_err(|_| StoreError::Damaged("agents.name"))
}

fn number(row: &AnyRow, column: &'static str) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::Damaged(column))
}

fn time(row: &AnyRow, column: &'static str) -> Result<Option<UnixTime>, StoreError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixTime::from_millis))
}
