//! Limits, each with its reason and what it bounds. Those a relay's operator may change are defaults here.

use std::time::Duration;

/// Digits of the secret. 100,000 values against 3 online attempts a code.
pub const SECRET_DIGITS: usize = 5;
/// Shortest nameplate.
pub const NAMEPLATE_MIN_DIGITS: usize = 3;
/// Longest nameplate: 100,000 waiting sessions, more than one relay admits.
pub const NAMEPLATE_MAX_DIGITS: usize = 5;

/// How long a code waits to be typed (`--code-ttl`). Short, because it is short enough to be read aloud.
pub const CODE_TTL: Duration = Duration::from_mins(2);
/// Longest time a relay lets one wait (`--code-ttl-max`): a nameplate is not held for ever. The agent ends its code.
pub const CODE_TTL_MAX: Duration = Duration::from_hours(1);
/// Wrong secrets before a code is burned. Bounds an attacker to 3 in 100,000 a code.
pub const WRONG_SECRETS_PER_CODE: u32 = 3;
/// Hellos that never show a tag, a code: bounds the work a stranger can cause without being counted.
pub const SILENT_HELLOS_PER_CODE: u32 = 20;
/// How long a client has to show its tag after the agent's hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON hello: about 2 KiB of key material in base64url, and room for a later version's.
pub const HELLO_MAX: usize = 8 * 1024;
/// Plaintext of one record, so that one record never blocks a slow line for long.
pub const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
/// A whole frame in version 2, type byte included.
pub const FRAME_MAX: usize = 64 * 1024;
/// A whole frame in the legacy form, which sends what it reads.
pub const LEGACY_FRAME_MAX: usize = 16 * 1024 * 1024;
/// A text frame between the relay and an end: the longest is `ticket:`.
pub const RELAY_TEXT_MAX: usize = 1024;
/// A control text inside the channel.
pub const CONTROL_MAX: usize = 4 * 1024;
/// A reason in `done:` and `bye:`, in bytes.
pub const REASON_MAX: usize = 256;
/// The joined `welcome`: a CA bundle, a certificate and a key fit well.
pub const WELCOME_MAX: usize = 256 * 1024;
/// Records up to this length are padded to a multiple of [`PAD_BLOCK`].
pub const PAD_BELOW: usize = 1024;
/// See [`PAD_BELOW`].
pub const PAD_BLOCK: usize = 64;

/// Records under one key: far below AES-GCM's bound of 2^32 for random nonces and 2^64 here.
pub const REKEY_RECORDS: u64 = 1 << 24;
/// Bytes under one key: keeps the confidentiality advantage of AES-GCM below 2^-57 (draft-irtf-cfrg-aead-limits).
pub const REKEY_BYTES: u64 = 64 << 30;

/// Streams at once: bounds what one peer may make the other keep.
pub const STREAMS_MAX: usize = 256;
/// Streams at once where the agent says that it keeps more: each costs both ends some ten KiB beside its window, and a
/// cluster with hundreds of kinds has as many watches.
pub const STREAMS_MAX_ASKED: usize = 1024;
/// A client with so many asks whether there may be more.
pub const STREAMS_ASK_AT: usize = 128;
/// Streams of a client that has asked with a first window of [`STREAM_WINDOW`]; the others have [`NARROW_WINDOW`].
pub const STREAMS_WIDE_MAX: usize = 192;
/// First windows of all streams together: reserved, so that a stream always has its own.
pub const FIRST_WINDOWS: u64 = STREAM_WINDOW * STREAMS_MAX as u64;
/// Streams an agent may open a second: a client's loopback services are not a target.
pub const AGENT_OPENS_PER_SECOND: u32 = 50;
/// A stream's first window.
pub const STREAM_WINDOW: u64 = 256 * 1024;
/// A narrow stream's first window: what is left of [`FIRST_WINDOWS`] is enough for all.
pub const NARROW_WINDOW: u64 = 16 * 1024;
/// What a stream's window may grow to.
pub const STREAM_WINDOW_MAX: u64 = 32 * 1024 * 1024;
/// All streams of a session together: 256 first windows and a step of credit are reserved, growth shares the rest.
pub const SESSION_WINDOW: u64 = 128 * 1024 * 1024;
/// The session's credit is told whenever so much of it is owed. The windows of all streams together leave it free: so a
/// stream that has room in its own window has room in the session's, whatever the others leave unread.
pub const SESSION_CREDIT_STEP: u64 = 512 * 1024;
/// What all windows of a session may grow by together: two streams' to the largest.
pub const GROWTH_MAX: u64 = SESSION_WINDOW - FIRST_WINDOWS - SESSION_CREDIT_STEP;
/// What waits of a stream that its writer has let go of as failed, and of which the other end takes nothing for so long, is
/// given up: a program that reads nothing would hold the stream's place, and what is behind it, for as long as it runs.
/// Longer than a slow line takes for what [`STREAM_WINDOW`] lets wait on it.
pub const RELEASED_UNTAKEN: Duration = Duration::from_secs(30);
/// Unacknowledged control text and parts of welcomes: a peer that never acknowledges is not kept for.
pub const CONTROL_UNACKED_MAX: usize = 1024 * 1024;
/// An acknowledgement is sent after so many bytes ...
pub const ACK_BYTES: u64 = 64 * 1024;
/// Where so much comes in a millisecond, acknowledgements are rarer: at most this.
pub const ACK_BYTES_MAX: u64 = 128 * 1024;
/// Where it takes longer than 4 ms, they are more frequent: at least this, which is less than a full record.
pub const ACK_BYTES_MIN: u64 = 8 * 1024;
/// ... or after so long; after a fifth of a round trip where that is longer.
pub const ACK_DELAY: Duration = Duration::from_millis(20);
/// An idle session pings this often: under every load balancer's idle limit.
pub const IDLE_PING: Duration = Duration::from_secs(15);

/// With something unacknowledged, a silent peer is asked after three round trips, but not before this.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);
/// With something unacknowledged, a transport that stays silent for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// An idle ping must be answered within this: a dead idle transport is noticed after 20 s.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// After a suspend or a change of route, the transport must show life within this.
pub const JUMP_TIMEOUT: Duration = Duration::from_secs(2);
/// An attach that is not answered is asked for again.
pub const ATTACH_RETRY: Duration = Duration::from_secs(10);
/// And then this often, also where the relay says nothing, or that the other end is gone: it is not believed for ever.
pub const ATTACH_UNASKED: Duration = Duration::from_secs(30);
/// Records in a row that do not open before the session itself ends.
pub const BAD_RECORDS_MAX: u32 = 5;

/// Body of an API request.
pub const REQUEST_BODY_MAX: usize = 16 * 1024;
/// Requests a minute an address (IPv4 /32, IPv6 /64) on `/api/*`.
pub const API_REQUESTS_PER_MINUTE: u32 = 20;
/// How long a pair ticket lives: enough to open a WebSocket.
pub const PAIR_TICKET_TTL: Duration = Duration::from_secs(30);
/// How long a session ticket lives (`--ticket-ttl`). Renewed in band every [`SESSION_TICKET_RENEWALS`]th of it, so an end
/// may be away for the rest: 42 h, more than any resume window that makes sense.
pub const SESSION_TICKET_TTL: Duration = Duration::from_hours(48);
/// A session ticket is renewed this many times in its life.
pub const SESSION_TICKET_RENEWALS: u32 = 8;
/// Longest delay of a close reason (`retry-after=<ms>`) an end follows: a relay cannot send anybody away for long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Longest ticket in its wire form, in characters.
pub const TICKET_MAX: usize = 256;
/// A socket of a role is replaced at most this often.
pub const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
