/*
 * Attach, resume and delivery between two ends that share a session, with a hostile relay. docs/model.md.
 *
 * The relay knows every frame ever sent and hands any of them to either end whenever it likes, as often as it likes, or
 * never. So there are no channels here: `rec` is what it knows, and a step "the client opens ..." is the relay handing
 * that record over. A record opens under one key at one sequence number only; whatever else the relay sends does not
 * open, changes nothing, and is no step of the model. Losing a transport is a step that never comes.
 *
 * At any moment the relay may become good: the old transports are cut, both ends are joined once more and stay so. It may
 * still replay and forge; but a frame that can be accepted comes in the end.
 *
 * MUTANT=k breaks one rule; scripts/model checks that each is found. Rules are numbered R1.. in docs/model.md.
 */
#ifndef FROM_C
#define FROM_C 2                  /* numbered messages of the client; the last one is the authenticated end (eof, done, bye) */
#endif
#ifndef FROM_A
#define FROM_A 2                  /* and of the agent */
#endif
#ifndef TRIES
#define TRIES 2                   /* attaches while the relay is hostile; one more when it is good */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

#define C 0                       /* the client */
#define A 1                       /* the agent */
#define OF(e) ((e) == C -> FROM_C : FROM_A)
#define LAST (TRIES + 1)          /* the greatest n */
#define NONE 255

/* A key is (n, the client's ephemeral, the agent's ephemeral); the client's is n's own. Key 0 is the handshake's. */
#if MUTANT == 2
#define EPHEMERALS 2              /* the agent's, for one n */
#elif MUTANT == 10
#define EPHEMERALS 2              /* the second is the relay's */
#else
#define EPHEMERALS 1
#endif
#define KEYS ((LAST + 1) * EPHEMERALS)
#if MUTANT == 13
#define KEY(n, ae) 0              /* no fresh ephemerals */
#else
#define KEY(n, ae) ((n) * EPHEMERALS + (ae))
#endif
#define N(key) ((key) / EPHEMERALS)

/* Records of a direction under a key: the first, each message once, each acknowledgement once. */
#define SEQS (FROM_C + FROM_A + 1)
#define REC(end, key, seq) rec[((end) * KEYS + (key)) * SEQS + (seq)]
byte rec[2 * KEYS * SEQS];

/* Plaintexts. 0 is: never sealed. */
#define TAG 1                     /* handshake: tag_c, or r || tag_a */
#define FIRST(received, proof) (16 + (received) * 2 + (proof))
#define DATA(v) (32 + (v))
#define ACK(m) (64 + (m))
#define IS_FIRST(p) ((p) >= 16 && (p) < 32)
#define IS_DATA(p) ((p) >= 32 && (p) < 64)
#define IS_ACK(p) ((p) >= 64)
#define RECEIVED(p) (((p) - 16) / 2)
#define PROOF(p) (((p) - 16) % 2)

/* Each end's session. */
byte key[2];                      /* the key in use */
byte out[2];                      /* seq of the next record to seal under it */
byte in[2];                       /* seq of the next record to open under it */
byte next[2];                     /* the message to seal next under it */
byte sent[2];                     /* messages ever sealed */
byte acked[2];                    /* messages the peer has; forgotten here */
byte got[2];                      /* messages delivered to the application */
byte number[2];                   /* the number of the next message that opens: it is not in the record */
byte told[2];                     /* what was last acknowledged under this key */
bool clean[2];                    /* the application was told of a clean end */

/* The client's attach. */
mtype = { idle, asked, shown };
mtype state = idle;
byte asked_n;                     /* its newest n */
byte pending_c = NONE;            /* the key awaiting the agent's first record */
byte stated;                      /* `received` of its first record */
bool shut;                        /* its old keys open nothing any more: `received` was stated under newer ones (R4) */
bool proved;                      /* it has checked r || tag_a */

/* The agent's attach. */
byte pending_a = NONE;            /* the key awaiting the client's first record */
byte confirmed;                   /* the newest n whose first record opened */
bool unproved = true;             /* the client may not have r || tag_a yet (R6) */
byte answers[LAST + 1];           /* attach_agent frames made for an n, by their ephemerals */

/* What each end holds for n, for agreement. */
byte key_c[LAST + 1];
byte key_a[LAST + 1];

bool good;                        /* the relay has become honest */
bool broken;                      /* mutant 14: a transport was closed for a stale record */

#define USABLE(e) (!broken && (!good || N(key[e]) == asked_n))
#define DONE (got[C] == FROM_A && got[A] == FROM_C && acked[C] == FROM_C && acked[A] == FROM_A)

inline seal_as(e, k, seq, plain) {
  assert(seq < SEQS);
  assert(REC(e, k, seq) == 0 || REC(e, k, seq) == (plain));   /* no nonce for two plaintexts */
  REC(e, k, seq) = plain
}

inline seal(e, plain) {
  seal_as(e, key[e], out[e], plain);
  out[e]++
}

/* The peer's first record opened under k: everything moves, and what it did not receive goes again. */
inline switch_to(e, k, received, mine) {
#if MUTANT != 8 && MUTANT != 9
  assert(acked[e] <= (received) && (received) <= sent[e]);
#endif
  key[e] = k; out[e] = 1; in[e] = 1;
#if MUTANT == 5
  next[e] = acked[e];
#elif MUTANT == 6
  next[e] = sent[e];
#else
  next[e] = received;
#endif
  acked[e] = received;
#if MUTANT == 4
  number[e] = got[e];
#else
  number[e] = mine;
#endif
  told[e] = mine
}

/* The application is told of a clean end: all of what the peer sent, its end included, is there (R10). */
inline tell_end(e) {
  clean[e] = true;
  assert(got[e] == OF(1 - (e)))
}

/* A record opened under the key in use. */
inline take(e, k, plain) {
  assert(k == key[e]);                                        /* one transport at a time delivers, */
#if MUTANT != 4 && MUTANT != 7 && MUTANT != 12 && MUTANT != 15               /* the damage shows further on */
  assert(e == A || N(k) >= confirmed);                        /* and none that the other end has left */
#endif
  if
  :: plain == TAG -> proved = true
  :: IS_ACK(plain) ->
       assert(plain - 64 <= sent[e]);
       if :: plain - 64 > acked[e] -> acked[e] = plain - 64 :: else fi
  :: IS_DATA(plain) ->
       if
       :: number[e] < got[e]                                  /* has it: dropped */
       :: else ->
            assert(number[e] == got[e]);
            assert(plain - 32 == got[e]);                     /* in order, once */
            assert(!clean[e]);
            got[e]++;
            if :: got[e] == OF(1 - (e)) -> tell_end(e) :: else fi
       fi;
       number[e]++
  :: else -> assert(false)
  fi
}

#define OPENS(e) REC(1 - (e), key[e], in[e])
#define MAY_OPEN(e) (USABLE(e) && in[e] < SEQS && OPENS(e) != 0)

inline ask() {
  asked_n++;
  state = asked;
  pending_c = NONE
#if MUTANT == 15
  ; shut = false
#endif
}

proctype client() {
  byte plain;
end:
  do
  /* attach_agent of the newest n, n its own ephemeral's: the first record, once (R3). */
  :: d_step { state == asked && (answers[asked_n] & 1) ->
       pending_c = KEY(asked_n, 0);
       key_c[asked_n] = pending_c;
       stated = got[C];
       seal_as(C, pending_c, 0, FIRST(stated, 0));
       state = shown;
#if MUTANT != 4 && MUTANT != 12
       shut = true
#endif
     }
#if MUTANT == 2
  :: d_step { state == asked && (answers[asked_n] & 2) ->
       pending_c = KEY(asked_n, 1); key_c[asked_n] = pending_c; stated = got[C];
       seal_as(C, pending_c, 0, FIRST(stated, 0)); state = shown; shut = true }
#endif
#if MUTANT == 7    /* a repeat of attach_agent is answered with another first record */
  :: d_step { state == shown -> stated = got[C]; shut = false; seal_as(C, pending_c, 0, FIRST(stated, 0)) }
  :: d_step { state == shown && shut -> shut = false }
#endif
#if MUTANT == 10   /* the MAC of attach_agent is not checked: the ephemeral and the agent's records are the relay's */
  :: d_step { state == asked ->
       pending_c = KEY(asked_n, 1); key_c[asked_n] = pending_c; stated = got[C];
       seal_as(C, pending_c, 0, FIRST(stated, 0)); state = shown; shut = true;
       REC(A, pending_c, 0) = FIRST(acked[C], 1) }
#endif
#if MUTANT == 11   /* neither n nor attach_client is under the MAC of attach_agent: an older one is taken */
  :: d_step { state == asked && asked_n > 1 && (answers[asked_n - 1] & 1) ->
       pending_c = NONE; state = shown; shut = true }
#endif
#if MUTANT == 18   /* the client numbers and sends under n before it knows what the agent has */
  :: d_step { state == shown && N(key[C]) < asked_n && next[C] < FROM_C ->
       key[C] = pending_c; out[C] = 1; in[C] = 1; number[C] = stated; seal(C, DATA(next[C])); next[C]++ }
#endif

  /* The agent's first record. */
  :: d_step { state == shown && pending_c != NONE && !broken && IS_FIRST(REC(A, pending_c, 0)) ->
       plain = REC(A, pending_c, 0);
       assert(key_a[asked_n] == pending_c);                   /* agreement on (n, keys) */
       assert(proved || PROOF(plain));                        /* r || tag_a before any data */
       proved = true;
       switch_to(C, pending_c, RECEIVED(plain), stated);
       state = idle; pending_c = NONE; shut = false; plain = 0 }

  /* The key in use. */
  :: d_step { MAY_OPEN(C) && !shut -> plain = OPENS(C); in[C]++; take(C, key[C], plain); plain = 0 }
  :: d_step { USABLE(C) && proved && next[C] < FROM_C ->
       assert(next[C] >= acked[C]);                           /* still kept */
       seal(C, DATA(next[C])); next[C]++;
       if :: next[C] > sent[C] -> sent[C] = next[C] :: else fi }
  :: d_step { USABLE(C) && proved && got[C] > told[C] -> seal(C, ACK(got[C])); told[C] = got[C] }
#if MUTANT == 16   /* a lost transport, or the relay's word, is told to the application as an end */
  :: d_step { !clean[C] -> tell_end(C) }
#endif
#if MUTANT == 17   /* the old key is not dropped at a switch */
  :: d_step { N(key[C]) > 0 && REC(A, 0, 1) != 0 -> take(C, 0, REC(A, 0, 1)) }
#endif
  od
}

/* attach_client n, any that the client ever sent: above the confirmed one, and the newest (R1, R2). A repeat changes
   nothing, so it is no step. */
#define HEARS(n) ((n) <= asked_n && (n) > confirmed && (pending_a == NONE || (n) > N(pending_a)))

inline answer(n) {
  pending_a = KEY(n, 0);
  answers[n] = answers[n] | 1
#if MUTANT == 9    /* the agent switches before the client's first record */
  ; assert(key_c[n] == pending_a)
#endif
}

proctype agent() {
  byte plain;
end:
  do
  :: d_step { HEARS(1) -> answer(1) }
#if LAST >= 2
  :: d_step { HEARS(2) -> answer(2) }
#endif
#if LAST >= 3
  :: d_step { HEARS(3) -> answer(3) }
#endif
#if LAST >= 4
  :: d_step { HEARS(4) -> answer(4) }
#endif
#if MUTANT == 1    /* the confirmed n is answered again, with the remembered keys */
  :: d_step { confirmed > 0 && pending_a == NONE -> pending_a = key_a[confirmed] }
#endif
#if MUTANT == 2    /* a repeat is answered with another ephemeral */
  :: d_step { pending_a != NONE && pending_a == KEY(N(pending_a), 0) ->
       answers[N(pending_a)] = answers[N(pending_a)] | 2; pending_a = KEY(N(pending_a), 1) }
#endif
#if MUTANT == 3    /* an older n replaces the pending one */
  :: d_step { pending_a != NONE && N(pending_a) > confirmed + 1 -> pending_a = KEY(N(pending_a) - 1, 0) }
#endif

  /* The client's first record. */
  :: d_step { pending_a != NONE && !broken && IS_FIRST(REC(C, pending_a, 0)) ->
       plain = REC(C, pending_a, 0);
       assert(N(pending_a) > confirmed);                      /* confirmed n only grows */
       assert(key_c[N(pending_a)] == pending_a);              /* agreement on (n, keys) */
       confirmed = N(pending_a);
       key_a[confirmed] = pending_a;
       switch_to(A, pending_a, RECEIVED(plain), got[A]);
#if MUTANT == 8    /* the client's first record is taken for a proof that it has r || tag_a */
       seal_as(A, pending_a, 0, FIRST(got[A], (unproved && confirmed == 1)));
#else
       seal_as(A, pending_a, 0, FIRST(got[A], unproved));
#endif
       pending_a = NONE; plain = 0 }

  /* The key in use. */
  :: d_step { MAY_OPEN(A) -> plain = OPENS(A); in[A]++; unproved = false; take(A, key[A], plain); plain = 0 }
  :: d_step { USABLE(A) && next[A] < FROM_A ->
       assert(next[A] >= acked[A]);
       seal(A, DATA(next[A])); next[A]++;
       if :: next[A] > sent[A] -> sent[A] = next[A] :: else fi }
  :: d_step { USABLE(A) && got[A] > told[A] -> seal(A, ACK(got[A])); told[A] = got[A] }
  od
}

proctype relay() {
end:
  do
  :: d_step { !good && asked_n < TRIES -> ask() }             /* peer:here, whenever it likes */
  :: d_step { !good -> good = true; ask() }                   /* the last one: both ends joined, for good */
#if MUTANT == 14   /* a stale record of the old key on a new transport closes it */
  :: d_step { good && state != idle -> broken = true }
#endif
  od
}

init {
  d_step {                          /* the agent has accepted tag_c; its own tag is on the way, or lost */
    out[C] = 1; in[A] = 1; out[A] = 1;
    REC(C, 0, 0) = TAG; REC(A, 0, 0) = TAG
  };
  atomic { run client(); run agent(); run relay() }
}

#ifdef PROGRESS
ltl progress { [] (good -> <> DONE) }
#endif
/* What must be able to happen, else the rest says nothing. */
#if WITNESS == 1      /* every message delivered and acknowledged, under the last possible attach */
ltl witness { [] !(DONE && N(key[C]) == LAST && N(key[A]) == LAST) }
#elif WITNESS == 2    /* the agent's first record of 1 is lost, and 2 is under way */
ltl witness { [] !(confirmed == 1 && N(key[C]) == 0 && asked_n == 2 && N(pending_a) == 2 && state == shown) }
#elif WITNESS == 3    /* a message lost under the first key is sent again under the second, and delivered */
ltl witness { [] !(REC(A, 0, 1) == DATA(0) && REC(A, KEY(1, 0), 1) == DATA(0) && N(key[C]) == 1 && in[C] > 1) }
#endif
