//! `lab sign-ins`: how many sign-ins, refreshes and calls with a token a relay answers in a second.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args as ClapArgs;
use mykube_lab::{
    LabError, parse_duration,
    sign_ins::{DevRelay, Machine},
};
use serde_json::{Map, Value, json};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The relay, on loopback and in dev mode
    #[arg(long)]
    relay: SocketAddr,
    /// Its dev secret
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// How long each of the three is asked
    #[arg(long = "for", value_parser = parse_duration, default_value = "5s")]
    time: Duration,
    /// Asked at the same time
    #[arg(long, default_value_t = 16)]
    at_once: usize,
}

#[derive(Clone, Copy)]
enum Ask {
    SignIn,
    Refresh,
    WhoAmI,
}

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| LabError::Io { what, source }
    };
    let secret = fs::read_to_string(&args.secret_file).map_err(failed("read the dev secret"))?;
    let relay = Arc::new(DevRelay::new(args.relay, secret.trim_end().to_owned()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(failed("start a runtime"))?;
    let mut out = Map::new();
    for (name, ask) in [("sign_ins", Ask::SignIn), ("refreshes", Ask::Refresh), ("whoami", Ask::WhoAmI)] {
        let figures = runtime.block_on(measure(args, &relay, ask)).map_err(failed(name))?;
        out.insert(name.to_owned(), figures);
    }
    println!("{}", Value::Object(out));
    Ok(())
}

async fn measure(args: &Args, relay: &Arc<DevRelay>, ask: Ask) -> io::Result<Value> {
    let mut machines = Vec::new();
    for _ in 0..args.at_once {
        machines.push(relay.sign_in().await?);
    }
    let (count, longest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let until = start + args.time;
    let tasks = machines.into_iter().map(|machine| {
        let (relay, count, longest) = (relay.clone(), count.clone(), longest.clone());
        tokio::spawn(async move {
            let mut machine = machine;
            while Instant::now() < until {
                let asked = Instant::now();
                once(&relay, &mut machine, ask).await?;
                count.fetch_add(1, Relaxed);
                longest.fetch_max(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
            }
            io::Result::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(io::Error::other)??;
    }
    let per_s = count.load(Relaxed) as f64 / start.elapsed().as_secs_f64();
    Ok(json!({"per_s": per_s, "longest_ms": longest.load(Relaxed) as f64 / 1000.0}))
}

async fn once(relay: &DevRelay, machine: &mut Machine, ask: Ask) -> io::Result<()> {
    match ask {
        Ask::SignIn => relay.sign_in().await.map(drop),
        Ask::Refresh => relay.refresh(machine).await,
        Ask::WhoAmI => relay.who_am_i(machine).await,
    }
}
