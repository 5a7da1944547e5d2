//! Limits, each with its reason and what it bounds. Where a relay's operator may change a limit, its default stands here.

use std::time::Duration;

/// Digits of the secret. 100,000 values against 3 online attempts a code.
pub const SECRET_DIGITS: usize = 5;
/// Shortest nameplate.
pub const NAMEPLATE_MIN_DIGITS: usize = 3;
/// Longest nameplate: 100,000 waiting sessions, more than one relay admits.
pub const NAMEPLATE_MAX_DIGITS: usize = 5;

/// How long a code waits to be typed (`--code-ttl`). Short, because it is short enough to be read aloud.
pub const CODE_TTL: Duration = Duration::from_mins(2);
/// Longest time a relay lets a code wait (`--code-ttl-max`), so that no nameplate is taken for ever. The agent itself ends
/// its code, after `--code-ttl`.
pub const CODE_TTL_MAX: Duration = Duration::from_hours(1);
/// Wrong secrets before a code is burned. Bounds an attacker to 3 in 100,000 a code.
pub const WRONG_SECRETS_PER_CODE: u32 = 3;
/// Clients of one code that send a hello and never a tag: bounds the work that strangers can cause without a wrong guess.
pub const SILENT_HELLOS_PER_CODE: u32 = 20;
/// How long a client has to show its tag after the agent's hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON hello: about 2 KiB of key material in base64url, and room for a later version's.
pub const HELLO_MAX: usize = 8 * 1024;
/// Plaintext of one record, so that one record never blocks a slow line for long.
pub const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
/// A whole frame in version 2, type byte included.
pub const FRAME_MAX: usize = 64 * 1024;
/// A whole message in the legacy form, whose ends send in one message whatever one read gave them.
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
/// Streams at once where the agent says that it keeps more: a client of a cluster with hundreds of kinds has as many
/// watches. Each stream costs both ends some ten KiB beside its window.
pub const STREAMS_MAX_ASKED: usize = 1024;
/// A client with this many streams asks the agent whether it keeps more than [`STREAMS_MAX`].
pub const STREAMS_ASK_AT: usize = 128;
/// How many streams of a client that has asked get a first window of [`STREAM_WINDOW`]; the others get [`NARROW_WINDOW`].
pub const STREAMS_WIDE_MAX: usize = 192;
/// First windows of all streams together: reserved, so that a stream always has its own.
pub const FIRST_WINDOWS: u64 = STREAM_WINDOW * STREAMS_MAX as u64;
/// Streams an agent may open a second: a client's loopback services are not a target.
pub const AGENT_OPENS_PER_SECOND: u32 = 50;
/// A stream's first window.
pub const STREAM_WINDOW: u64 = 256 * 1024;
/// A narrow stream's first window: [`FIRST_WINDOWS`] less that of the wide streams is enough for all narrow ones.
pub const NARROW_WINDOW: u64 = 16 * 1024;
/// What a stream's window may grow to.
pub const STREAM_WINDOW_MAX: u64 = 32 * 1024 * 1024;
/// All streams of a session together: 256 first windows and a step of credit are reserved, growth shares the rest.
pub const SESSION_WINDOW: u64 = 128 * 1024 * 1024;
/// A receiver gives credit to the session whenever it owes this much. The windows of all streams together leave this much of
/// the session's window free, so that a stream with room in its own window has room in the session's, whatever the readers of
/// other streams leave unread.
pub const SESSION_CREDIT_STEP: u64 = 512 * 1024;
/// What all windows of a session may grow by together: two streams' to the largest.
pub const GROWTH_MAX: u64 = SESSION_WINDOW - FIRST_WINDOWS - SESSION_CREDIT_STEP;
/// A writer that lets go of its stream as failed leaves data that waits to be sent. That is dropped once the other end has
/// taken nothing of it for this long: otherwise a program that reads nothing would keep the stream, and the connection behind
/// it, for as long as it runs. Longer than a slow line takes for one [`STREAM_WINDOW`].
pub const RELEASED_UNTAKEN: Duration = Duration::from_secs(30);
/// Unacknowledged control text and parts of welcomes, in bytes: bounds what an end keeps for a peer that never acknowledges.
pub const CONTROL_UNACKED_MAX: usize = 1024 * 1024;
/// A receiver acknowledges after this many bytes ...
pub const ACK_BYTES: u64 = 64 * 1024;
/// Where that many bytes come within a millisecond, it acknowledges less often: after at most this many.
pub const ACK_BYTES_MAX: u64 = 128 * 1024;
/// Where they take longer than 4 ms, it acknowledges more often: after at least this many, which is less than a full record.
pub const ACK_BYTES_MIN: u64 = 8 * 1024;
/// ... or after this time, or a fifth of a round trip where that is longer.
pub const ACK_DELAY: Duration = Duration::from_millis(20);
/// An idle session pings this often: under every load balancer's idle limit.
pub const IDLE_PING: Duration = Duration::from_secs(15);

/// While something is unacknowledged, an end pings a silent peer after three round trips, but not before this.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);
/// While something is unacknowledged, a transport that stays silent for this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// An idle ping must be answered within this: a dead idle transport is noticed after 20 s.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// After a suspend or a change of route, the transport must show life within this.
pub const JUMP_TIMEOUT: Duration = Duration::from_secs(2);
/// A client whose attach is not answered sends a new one after this,
pub const ATTACH_RETRY: Duration = Duration::from_secs(10);
/// and then this often. It also does while the relay does not say that the agent is here, or says that it is gone: a relay's
/// word is not believed for ever.
pub const ATTACH_UNASKED: Duration = Duration::from_secs(30);
/// The session ends when this many records in a row do not open.
pub const BAD_RECORDS_MAX: u32 = 5;

/// Body of an API request.
pub const REQUEST_BODY_MAX: usize = 16 * 1024;
/// Requests to `/api/*` in a minute, for each address (IPv4 /32, IPv6 /64).
pub const API_REQUESTS_PER_MINUTE: u32 = 20;
/// How long a pair ticket lives: enough to open a WebSocket.
pub const PAIR_TICKET_TTL: Duration = Duration::from_secs(30);
/// How long a session ticket lives (`--ticket-ttl`). Renewed in band every [`SESSION_TICKET_RENEWALS`]th of it, so an end
/// may be away for the rest: 42 h, more than any resume window that makes sense.
pub const SESSION_TICKET_TTL: Duration = Duration::from_hours(48);
/// A session ticket is renewed this many times in its life.
pub const SESSION_TICKET_RENEWALS: u32 = 8;
/// Longest delay of a close reason (`retry-after=<ms>`) an end follows: so that a relay cannot keep an end away for long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Longest ticket in its wire form, in characters.
pub const TICKET_MAX: usize = 256;
/// A socket of a role is replaced at most this often.
pub const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
