/*
 * Pairing by code, with a hostile relay: docs/model.md. The agent's side of one code, three people who type it (one of
 * them wrongly), and a relay that is everybody else: it claims the nameplate as often as it likes, mixes attempts, keeps
 * and replays every frame, drops and restarts handshakes, and guesses. Its guesses are wrong: how likely that is, is
 * arithmetic and no question for a model. What is checked is how often it may try.
 *
 * A hello_agent is a number, drawn anew for each handshake; a hello_client is (who, the hello it answers). A tag is over
 * both and the typed code, so it is right for exactly one pair. At any moment the relay may become good and join the
 * last person, who types the right code, with the agent.
 *
 * MUTANT=k breaks one rule; scripts/model checks that each is found.
 */
#ifndef HELLOS
#define HELLOS 5                  /* handshakes of one code; 20 in life */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

#define WRONG_LIMIT 3
#define PEOPLE 3
#define MISTYPED 1                /* this one typed another code */
#define LAST (PEOPLE - 1)         /* this one types the right code, when the relay is good at the latest */
#define STRANGER PEOPLE           /* the relay itself, guessing */
#define FORGED (HELLOS + 1)       /* a hello_agent of the relay's own */

mtype = { waiting, greeted, answered, paired, spent };
mtype agent_is = waiting;
byte hellos;                      /* hello_agent 1..hellos were sent */
byte hello;                       /* the one under way */
byte who;                         /* whose hello_client it has */
byte answers;                     /* which hello that one answers */
byte wrong;                       /* wrong secrets, as the agent counts them */
byte verdicts;                    /* guesses whose outcome somebody has seen */
byte pairings;
byte paired_hello, paired_who;    /* r || tag_a, as the relay knows it: right for this pair only */

mtype = { typing, showed, done, failed };
mtype person_is[PEOPLE] = typing;
byte answered_hello[PEOPLE];      /* whose tag the relay has */
byte drawn_in[PEOPLE];            /* the handshake in which that hello was drawn */
byte tags[PEOPLE];                /* tags shown for one typed code */

bool expired;
bool good;

#if MUTANT == 6    /* the same values in every handshake */
#define VALUE(k) 1
#else
#define VALUE(k) k
#endif
#define HEARS(k) (person_is[me] == typing && hellos >= k && (!good || hellos == k))
#define ALIVE (agent_is == waiting || agent_is == greeted || agent_is == answered)
#define RIGHT(who, answers) ((who) < PEOPLE && (who) != MISTYPED && (answers) == hello)

inline greet() {
  hellos++;
  hello = VALUE(hellos);
#if MUTANT == 2    /* a restart forgets the count */
  wrong = 0;
#endif
  who = 0; answers = 0;
  agent_is = greeted
}

inline refuse() {
#if MUTANT != 1
  wrong++;
#endif
  verdicts++;
  assert(verdicts <= WRONG_LIMIT);                           /* three guesses a code */
  who = 0; answers = 0;
  agent_is = (wrong >= WRONG_LIMIT -> spent : waiting)
}

inline take_hello(from, value) {
  who = from; answers = value; agent_is = answered
#if MUTANT == 3    /* the agent shows its own tag first */
  ; verdicts++; assert(verdicts <= WRONG_LIMIT)
#endif
}

proctype agent() {
end:
  do
  /* peer:here of an attempt: whatever was under way is dropped. */
#if MUTANT == 10
  :: d_step { !good && agent_is != paired && hellos < HELLOS -> greet() }
#else
  :: d_step { !good && ALIVE && hellos < HELLOS -> greet() }
#endif
  :: d_step { !good && ALIVE && hellos == HELLOS -> agent_is = spent }
  /* peer:gone, or 10 s. */
  :: d_step { !good && (agent_is == greeted || agent_is == answered) ->
#if MUTANT == 9    /* a claim consumes the code */
       agent_is = spent;
#else
       agent_is = waiting;
#endif
       who = 0; answers = 0 }
  /* The code's time is over. */
  :: d_step { !good && agent_is == waiting -> agent_is = spent; expired = true }

  /* A hello_client: somebody's, in answer to whatever hello, or the relay's. */
  :: d_step { !good && agent_is == greeted -> take_hello(STRANGER, hello) }
  :: d_step { !good && agent_is == greeted && answered_hello[0] != 0 -> take_hello(0, answered_hello[0]) }
  :: d_step { !good && agent_is == greeted && answered_hello[1] != 0 -> take_hello(1, answered_hello[1]) }
  :: d_step { agent_is == greeted && answered_hello[LAST] != 0 && (!good || answered_hello[LAST] == hello) ->
       take_hello(LAST, answered_hello[LAST]) }

  /* The tag of that hello_client, or a record that is wrong. */
#if MUTANT == 8    /* the tag is not over both hellos */
  :: d_step { agent_is == answered && who < PEOPLE && who != MISTYPED ->
#else
  :: d_step { agent_is == answered && RIGHT(who, answers) ->
#endif
       assert(answered_hello[who] == hello);                  /* agreement on both hellos, and so on the keys */
       assert(drawn_in[who] == hellos);                       /* this person answered this very handshake */
       pairings++;
       assert(pairings == 1);                                 /* a code serves one pairing */
       paired_hello = hello; paired_who = who;
#if MUTANT == 5    /* success does not consume the code */
       agent_is = waiting
#else
       agent_is = paired
#endif
     }
  :: d_step { agent_is == answered && (!good || !RIGHT(who, answers)) -> refuse() }
  od
}

inline show_tag(me, value, drawn) {
  answered_hello[me] = value;
  drawn_in[me] = drawn;
  tags[me]++;
  assert(tags[me] == 1);                                      /* one guess for whoever sent the hello */
  person_is[me] = showed
}

proctype person(byte me) {
end:
  do
  /* Any hello_agent that was ever sent, or one of the relay's; a good relay has one. */
  :: d_step { HEARS(1) -> show_tag(me, VALUE(1), 1) }
  :: d_step { HEARS(2) -> show_tag(me, VALUE(2), 2) }
  :: d_step { HEARS(3) -> show_tag(me, VALUE(3), 3) }
  :: d_step { HEARS(4) -> show_tag(me, VALUE(4), 4) }
  :: d_step { HEARS(5) -> show_tag(me, VALUE(5), 5) }
  :: d_step { !good && person_is[me] == typing -> show_tag(me, FORGED, 0) }
#if MUTANT == 4    /* a second hello is answered */
  :: d_step { person_is[me] == showed && hellos > drawn_in[me] -> show_tag(me, hello, hellos) }
#else
  :: d_step { !good && person_is[me] == showed -> person_is[me] = failed }
#endif
  /* r || tag_a of this very handshake. */
#if MUTANT == 7    /* taken without a look */
  :: d_step { person_is[me] == showed && me != MISTYPED ->
#else
  :: d_step { person_is[me] == showed && me != MISTYPED && pairings > 0 && paired_hello == answered_hello[me] && paired_who == me ->
#endif
       assert(pairings == 1 && paired_who == me && paired_hello == answered_hello[me]);
       person_is[me] = done }
  od
}

proctype relay() {
end:
  do
  :: d_step { !good && hellos < HELLOS && wrong < WRONG_LIMIT && pairings == 0 && !expired && person_is[LAST] == typing ->
       good = true;
       if :: ALIVE -> greet() :: else fi }
  od
}

init {
  atomic { run agent(); run person(0); run person(1); run person(2); run relay() }
}

#ifdef PROGRESS
ltl progress { [] (good -> <> (person_is[LAST] == done)) }
#endif
/* What must be able to happen, else the rest says nothing. */
#if WITNESS == 1      /* paired after two wrong secrets */
ltl witness { [] !(person_is[LAST] == done && wrong == 2) }
#elif WITNESS == 2    /* burned by three */
ltl witness { [] !(agent_is == spent && wrong == 3) }
#elif WITNESS == 3    /* paired in the last handshake, with the relay hostile all along */
ltl witness { [] !(person_is[0] == done && !good && hellos == HELLOS) }
#endif
