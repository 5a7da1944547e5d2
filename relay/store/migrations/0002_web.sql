-- Sign-ins that are at a provider, for ten minutes: none of these lets anybody in. A state is a keyed hash, as is the
-- browser's cookie.
CREATE TABLE provider_states (
    state      BYTEA  NOT NULL PRIMARY KEY,
    -- The secret under which state, nonce and verifier were made.
    kid        TEXT   NOT NULL,
    browser    BYTEA  NOT NULL,
    provider   TEXT   NOT NULL,
    -- Where it leads: a page, or a program that listens on a port.
    page       TEXT,
    port       BIGINT,
    program_state TEXT,
    challenge  BYTEA,
    -- What a flood is counted by.
    network    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    CHECK ((page IS NULL) <> (port IS NULL))
);
CREATE INDEX provider_states_by_age ON provider_states (created_at);
CREATE INDEX provider_states_of_network ON provider_states (network, created_at);

-- With what a program fetches its sign-in, for a minute after a person clicked. Keyed hashes.
CREATE TABLE login_codes (
    code       BYTEA  NOT NULL PRIMARY KEY,
    account    TEXT   NOT NULL REFERENCES accounts (id),
    -- By which sign-in, when they proved who they are in it, and from where.
    confirmed_by BYTEA  NOT NULL,
    auth_time  BIGINT NOT NULL,
    confirmed_from TEXT NOT NULL,
    challenge  BYTEA,
    created_at BIGINT NOT NULL
);
CREATE INDEX login_codes_by_age ON login_codes (created_at);
