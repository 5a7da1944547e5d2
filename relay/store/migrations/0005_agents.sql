-- Agents of an organisation, and their tokens.

CREATE TABLE agents (
    organisation  TEXT   NOT NULL REFERENCES organisations (id),
    name          TEXT   NOT NULL,
    -- Another one's when the agent is removed and a new one is called so.
    id            BYTEA  NOT NULL UNIQUE,
    created_at    BIGINT NOT NULL,
    -- Of its newest token. No number is ever used twice.
    generation    BIGINT NOT NULL,
    -- The key that it showed last, how many it has shown, and since when it has had this one.
    relay_key     BYTEA,
    relay_keys    BIGINT NOT NULL,
    relay_key_at  BIGINT,
    PRIMARY KEY (organisation, name)
);

-- A token is found by its keyed hash, which no two have.
CREATE TABLE agent_tokens (
    organisation   TEXT   NOT NULL,
    agent          TEXT   NOT NULL,
    generation     BIGINT NOT NULL,
    kid            TEXT   NOT NULL,
    digest         BYTEA  NOT NULL UNIQUE,
    slow           TEXT   NOT NULL,
    -- The keyed hash of both: the relay has seen that they are of one token.
    vouched        BYTEA,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT,
    replaced_until BIGINT,
    revoked_at     BIGINT,
    -- It opens nothing new from now on; what it has opened lives on until it ends.
    strict         BIGINT NOT NULL,
    PRIMARY KEY (organisation, agent, generation),
    FOREIGN KEY (organisation, agent) REFERENCES agents (organisation, name)
);
