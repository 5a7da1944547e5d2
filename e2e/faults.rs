//! No connection drops: every kind of operation runs at once, in real processes with networks of their own, during each
//! fault.

mod fault;
mod flow;
mod operations;
mod scene;
mod soak;
mod table;
mod turns;
mod wires;
mod world;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    fault::{Fault, Lengths},
    flow::Flow,
    operations::{OPERATIONS, Operation, Outcome, Source, Stage, WEBSOCKET},
    scene::{Counter, Pod},
    soak::Soak,
    table::{Cell, Row},
    turns::{Turn, Turns},
    wires::Setup,
    world::{Mode, World},
};
use crate::support::{Cluster, LIMIT, Namespace, Sandbox};

/// The settings of a whole run.
struct Plan {
    lengths: Lengths,
    /// Bits a second of each line, so that copies span the faults.
    rate: u64,
    /// Bytes copied each way; fewer where packets get lost.
    copied: usize,
    copied_with_loss: usize,
    /// When everything must be over.
    limit: Duration,
    /// Worlds at once that keep the machine busy: under too much load, kubectl's limit of 30 s for opening its streams
    /// passes.
    busy: usize,
    /// Worlds at once, including those that wait for a long fault to end. Each has up to three copies on disk.
    worlds: usize,
}

const CI: Plan = Plan {
    lengths: Lengths {
        short: seconds(4),
        silence: seconds(20),
        long: seconds(70),
        stop: seconds(15),
        throughout: seconds(12),
        cuts: (seconds(5), seconds(10)),
        window: seconds(5),
    },
    rate: 16_000_000,
    copied: 24 << 20,
    copied_with_loss: 512 << 10,
    limit: seconds(170),
    busy: 6,
    worlds: 6,
};

/// How long kubectl waits for a pong over WebSocket.
const PONG_WAIT: Duration = seconds(60);

/// For `just faults`.
const FULL: Plan = Plan {
    lengths: Lengths {
        short: seconds(10),
        silence: seconds(40),
        long: seconds(600),
        stop: seconds(180),
        throughout: seconds(130),
        cuts: (seconds(30), seconds(60)),
        window: seconds(30),
    },
    rate: 100_000_000,
    copied: 1 << 30,
    copied_with_loss: 4 << 20,
    limit: seconds(25 * 60),
    busy: 3,
    worlds: 8,
};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn every_operation_survives_each_fault() {
    let mut jobs: Vec<_> = chosen().into_iter().map(|fault| (fault, Mode::Guarded)).collect();
    jobs.extend([Fault::RelayKilled, Fault::LongSilence].map(|fault| (fault, Mode::Shared)));
    judge(&run("e2e-faults", &CI, &jobs));
}

#[test]
#[ignore = "half an hour, 1 GiB each way: just faults"]
fn every_operation_survives_each_long_fault() {
    let jobs = chosen().into_iter().flat_map(|fault| [(fault, Mode::Guarded), (fault, Mode::Shared)]);
    judge(&run("e2e-faults-full", &FULL, &jobs.collect::<Vec<_>>()));
}

#[test]
#[ignore = "compares, proves nothing, needs bore: just faults"]
fn others_under_the_same_faults() {
    let modes = [Mode::Bore, Mode::Alone];
    let jobs = chosen().into_iter().flat_map(|fault| modes.map(|mode| (fault, mode)));
    let jobs: Vec<_> = jobs.filter(|(fault, mode)| fault.exists_in(*mode)).collect();
    run("e2e-faults-others", &Plan { busy: 10, worlds: 10, ..CI }, &jobs);
}

#[test]
#[ignore = "a minute of waiting: just faults"]
fn what_an_idle_session_costs() {
    let namespace = Namespace::create(&Cluster::get(), "idle");
    let cost = &|mode: Mode| {
        // A proxy that cuts connections after half a minute of idleness has nothing to cut.
        let setup = Setup { cuts: Some((seconds(30), seconds(600))), ..Setup::default() };
        let world = World::start(mode, setup, &namespace);
        let bytes = || {
            let line = world.wires.client_line.stats();
            line.from_a.bytes + line.from_b.bytes
        };
        let begin = bytes();
        let length = seconds(60);
        thread::sleep(length);
        let rate = (bytes() - begin) as f64 / length.as_secs_f64();
        assert!(world.wires.proxies.iter().all(|proxy| proxy.counts().cut == 0), "an idle session was cut");
        format!("{} mode: {rate:.1} bytes a second of an idle session, packets whole\n", mode.name())
    };
    let text = thread::scope(|scope| {
        let both = [Mode::Guarded, Mode::Shared].map(|mode| scope.spawn(move || cost(mode)));
        both.map(|it| it.join().unwrap()).concat()
    });
    println!("{text}");
    table::keep("e2e-idle.md", &text);
}

#[test]
fn a_short_soak_leaves_nothing_behind() {
    soak(&Soak { sessions: 100, length: seconds(45) });
}

#[test]
#[ignore = "half an hour: just soak"]
fn a_long_soak_leaves_nothing_behind() {
    soak(&Soak { sessions: 100, length: seconds(30 * 60) });
}

fn soak(soak: &Soak) {
    let text = soak.run();
    println!("{text}");
    table::keep("e2e-soak.md", &text);
}

/// All faults, or those that `MYKUBE_FAULTS` names, like `RelayKilled,Loss`, as many times as it names them.
fn chosen() -> Vec<Fault> {
    let Ok(names) = std::env::var("MYKUBE_FAULTS") else { return Fault::ALL.to_vec() };
    let find = |name: &str| Fault::ALL.into_iter().chain([Fault::Nothing]).find(|fault| format!("{fault:?}") == name);
    names.split(',').map(|name| find(name).unwrap_or_else(|| panic!("there is no fault {name}"))).collect()
}

fn judge(rows: &[Row]) {
    let failed: Vec<_> = rows.iter().flat_map(Row::failures).collect();
    assert!(failed.is_empty(), "{} failures:\n{}", failed.len(), failed.join("\n"));
}

/// Runs all jobs, the longest first, and returns their rows in the given order. A row is in the table as soon as its
/// job is done.
fn run(name: &str, plan: &Plan, jobs: &[(Fault, Mode)]) -> Vec<Row> {
    let namespace = Namespace::create(&Cluster::get(), "faults");
    let counter = Counter::start(&namespace);
    let files = Sandbox::new();
    let sources = [plan.copied, plan.copied_with_loss].map(|bytes| Source::make(&files, bytes));
    let turns = Turns::new(plan.busy);
    let mut order: Vec<_> = jobs.iter().enumerate().collect();
    order.sort_by_key(|(_, (fault, _))| Reverse(fault.lasts(&plan.lengths)));
    let next = Mutex::new(order.into_iter());
    let rows = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..plan.worlds.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let turn = turns.begin();
                    let Some((at, &(fault, mode))) = next.lock().unwrap().next() else { break };
                    let source = &sources[usize::from(fault == Fault::Loss)];
                    let row = row(plan, &Job { turn: &turn, namespace: &namespace, source, at, fault, mode });
                    println!("{}", row.summary());
                    let mut rows = rows.lock().unwrap();
                    rows.insert(at, row);
                    table::write(name, &rows, jobs.len());
                }
            });
        }
    });
    drop(counter);
    let rows = rows.into_inner().unwrap();
    println!("{}", table::write(name, &rows, jobs.len()));
    rows.into_values().collect()
}

/// One fault in one mode.
struct Job<'a> {
    turn: &'a Turn<'a>,
    namespace: &'a Namespace,
    source: &'a Source,
    at: usize,
    fault: Fault,
    mode: Mode,
}

fn row(plan: &Plan, job: &Job<'_>) -> Row {
    let mut row = Row {
        mode: job.mode.name(),
        fault: job.fault.name(&plan.lengths),
        cells: Vec::new(),
        wrong: None,
        outages: Vec::new(),
        took: Duration::ZERO,
    };
    let begin = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| attempt(plan, job, &mut row))) {
        row.wrong = Some(words(&*panic));
    }
    row.took = begin.elapsed();
    row
}

fn attempt(plan: &Plan, job: &Job<'_>, row: &mut Row) {
    let &Job { turn, namespace, source, at, fault, mode } = job;
    let lengths = &plan.lengths;
    let pod = Pod::start(namespace, at, source.bytes);
    let setup = Setup {
        rate: Some(plan.rate),
        window: fault.ends_the_session().then_some(lengths.window),
        cuts: (fault == Fault::Proxies).then_some(lengths.cuts),
        ..Setup::default()
    };
    let world = World::start(mode, setup, namespace);
    let sum_there = pod.ready();

    fault.prepare(&world);
    let operations: Vec<_> =
        OPERATIONS.iter().filter(|(name, _)| mode == Mode::Guarded || *name != "exec over WebSocket").collect();
    let flows: Vec<_> = operations.iter().map(|_| Flow::default()).collect();
    let finish = AtomicBool::new(false);
    let deadline = Instant::now() + plan.limit;
    row.cells = thread::scope(|scope| {
        let running: Vec<_> = operations
            .iter()
            .zip(&flows)
            .map(|((name, operation), flow)| {
                let stage = Stage {
                    world: &world,
                    pod: &pod.name,
                    flow,
                    finish: &finish,
                    deadline,
                    source,
                    sum_there: &sum_there,
                    direct: namespace.direct(),
                    environment: if fault.ends_the_session() { WEBSOCKET } else { &[] },
                };
                (*name, flow, scope.spawn(move || perform(*operation, &stage)))
            })
            .collect();
        let begun = flows.iter().all(|flow| flow.wait(Instant::now() + LIMIT, |seen| seen.count > 0));
        let strike = || fault.strike(&world, lengths);
        let whole = if fault.is_quiet() { turn.pause(strike) } else { strike() };
        flows.iter().for_each(|flow| flow.mark(whole));
        let early: Vec<_> = flows.iter().map(|flow| flow.seen().over).collect();
        if !fault.ends_the_session() {
            for flow in &flows {
                flow.wait(deadline, |seen| seen.since > 3);
            }
            // A copy ends by itself, and needs the pod until then.
            for (_, flow, _) in running.iter().filter(|(name, ..)| name.starts_with("cp")) {
                flow.wait(deadline, |_| false);
            }
        }
        finish.store(true, Ordering::SeqCst);
        pod.stop();
        let ended = running.into_iter().zip(early);
        ended
            .map(|((name, flow, thread), early)| {
                let outcome = thread.join().expect("a panic became an outcome");
                // These faults act from the beginning; the proxies cut in less time than copying takes.
                let early = early && !matches!(fault, Fault::Proxies | Fault::Loss);
                // A stopped client does not answer kubectl's pings.
                let deaf = fault == Fault::ClientStopped && lengths.stop > PONG_WAIT && name == "exec over WebSocket";
                let mut cell = cell(name, flow, outcome, fault, begun, early);
                cell.wrong = cell.wrong.filter(|_| !deaf);
                cell
            })
            .collect()
    });
    if row.cells.iter().any(|cell| cell.wrong.is_some()) {
        for (name, end) in world.ends() {
            table::keep_log(&format!("{at}-{}-{fault:?}-{name}", mode.name()), &end.process.stderr());
        }
    }
    for (name, end) in world.ends() {
        if fault.ends_the_session() {
            end.failed(5, &["the session is lost"]);
        } else {
            assert!(end.process.is_running(), "the {name} is gone:\n{}", end.process.stderr());
        }
    }
    row.outages = world.client.as_ref().map(|client| outages(&client.process.stdout())).unwrap_or_default();
}

fn perform(operation: Operation, stage: &Stage<'_>) -> Result<Outcome, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| operation(stage))).map_err(|panic| words(&*panic));
    stage.flow.over();
    outcome
}

fn cell(
    operation: &'static str,
    flow: &Flow,
    outcome: Result<Outcome, String>,
    fault: Fault,
    begun: bool,
    early: bool,
) -> Cell {
    let seen = flow.seen();
    let (outcome, panic) = match outcome {
        Ok(outcome) => (outcome, None),
        Err(panic) => (Outcome::default(), Some(panic)),
    };
    let said = || format!("exit code {:?}: {}", outcome.code, outcome.said);
    let wrong = match fault.ends_the_session() {
        _ if panic.is_some() => panic,
        _ if !begun => {
            Some(format!("not all operations were under way before the fault; this one: {seen:?}, {}", said()))
        }
        _ if outcome.lost + outcome.doubled > 0 => {
            Some(format!("{} bytes lost, {} doubled", outcome.lost, outcome.doubled))
        }
        // kubectl's watch exits with 0, whatever ends it.
        true if operation != "get -w" && (outcome.complete || matches!(outcome.code, None | Some(0))) => {
            Some(format!("looks as if it were complete; {}", said()))
        }
        false if !outcome.complete => Some(format!("did not survive; {}", said())),
        false if early => Some("was over before the fault was: nothing is proved".into()),
        _ => None,
    };
    Cell { operation, outcome, again: seen.again, gap: seen.gap, wrong }
}

fn outages(stdout: &str) -> Vec<Value> {
    let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == "lost" || event["event"] == "back").collect()
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("failed").to_owned()
}
