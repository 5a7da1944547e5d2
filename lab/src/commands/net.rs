//! `lab net`: namespaces in a row, with lines between neighbours.

use std::time::Duration;

use clap::Args as ClapArgs;
use mykube_lab::{End, Lab, LabError, Link, Namespace, Shape, parse_bits, parse_bytes, parse_duration};
use serde_json::{Map, Value, json};

use super::{ControlArgs, control};

const USAGE: &str = "\
Commands, one a line; LINK is A-B by the names of its ends, and may be left out for all links:
  [LINK] delay 100ms | rate 500mbit|none | queue 4MiB|none | loss 0.05 [SEED]
  [LINK] blackhole on|off     drop all silently, what is under way too
  [LINK] down END | up END    take the device of an end down or up
  [LINK] readdress END        give an end a new address; the old one is gone
  [LINK] stats";

#[derive(Debug, ClapArgs)]
#[command(after_help = USAGE)]
pub(crate) struct Args {
    /// The namespaces, in a row
    #[arg(long, value_delimiter = ',', default_value = "a,b", value_name = "NAMES")]
    names: Vec<String>,
    /// One way
    #[arg(long, value_parser = parse_duration, default_value = "0")]
    delay: Duration,
    /// Such as 500mbit
    #[arg(long, default_value = "none")]
    rate: String,
    /// Bytes that may wait for the line; by default 100 ms of the rate
    #[arg(long, default_value = "none")]
    queue: String,
    /// The part of packets that is lost, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Of the losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of the largest packet
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    #[command(flatten)]
    control: ControlArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    let shape = Shape {
        delay: args.delay,
        rate: parse_bits(&args.rate)?,
        queue: parse_bytes(&args.queue)?,
        loss: probability(args.loss)?,
        seed: args.seed,
        mtu: args.mtu,
        ..Shape::default()
    };
    let net = Net::build(&args.names, shape)?;
    control(&args.control, &net.describe(), |line| net.obey(line))
}

struct Net {
    names: Vec<String>,
    links: Vec<Link>,
    namespaces: Vec<Namespace>,
}

impl Net {
    fn build(names: &[String], shape: Shape) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let namespaces = names.iter().map(|name| lab.namespace(name)).collect::<Result<Vec<_>, _>>()?;
        let links = namespaces.windows(2).map(|pair| lab.link(&pair[0], &pair[1], shape));
        Ok(Self { names: names.to_vec(), links: links.collect::<Result<_, _>>()?, namespaces })
    }

    fn describe(&self) -> Value {
        let namespaces: Map<String, Value> = self
            .names
            .iter()
            .zip(&self.namespaces)
            .map(|(name, namespace)| (name.clone(), json!({"netns": namespace.name(), "prefix": namespace.prefix()})))
            .collect();
        let links: Map<String, Value> = self
            .links
            .iter()
            .enumerate()
            .map(|(at, link)| {
                let ends = [(0, End::A), (1, End::B)];
                let addresses: Map<String, Value> =
                    ends.iter().map(|(n, end)| (self.names[at + n].clone(), json!(link.address(*end)))).collect();
                (self.link_name(at), Value::Object(addresses))
            })
            .collect();
        json!({"event": "ready", "namespaces": namespaces, "links": links})
    }

    fn link_name(&self, at: usize) -> String {
        format!("{}-{}", self.names[at], self.names[at + 1])
    }

    fn obey(&self, line: &str) -> Result<Value, LabError> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let named = (0..self.links.len()).find(|at| words.first() == Some(&self.link_name(*at).as_str()));
        if named.is_some() {
            words.remove(0);
        }
        let meant = (0..self.links.len()).filter(|at| named.is_none_or(|named| named == *at));
        let mut said = Map::new();
        for at in meant {
            if let Some(answer) = self.obey_one(at, &words)? {
                said.insert(self.link_name(at), answer);
            }
        }
        said.insert("ok".into(), Value::Bool(true));
        Ok(Value::Object(said))
    }

    /// The figures of this link.
    fn obey_one(&self, at: usize, words: &[&str]) -> Result<Option<Value>, LabError> {
        let link = &self.links[at];
        match *words {
            ["delay", value] => {
                let delay = parse_duration(value)?;
                link.update(|shape| shape.delay = delay);
            }
            ["rate", value] => {
                let rate = parse_bits(value)?;
                link.update(|shape| shape.rate = rate);
            }
            ["queue", value] => {
                let queue = parse_bytes(value)?;
                link.update(|shape| shape.queue = queue);
            }
            ["loss", value] => self.lose(link, value, "1")?,
            ["loss", value, seed] => self.lose(link, value, seed)?,
            ["blackhole", "on"] => link.blackhole(true),
            ["blackhole", "off"] => link.blackhole(false),
            ["down", end] => self.at_end(at, end, |end| link.down(end))?.unwrap_or(()),
            ["up", end] => self.at_end(at, end, |end| link.up(end))?.unwrap_or(()),
            ["readdress", end] => {
                return Ok(self.at_end(at, end, |end| link.readdress(end))?.map(|address| json!(address)));
            }
            ["stats"] => return Ok(Some(json!(link.stats()))),
            _ => return Err(LabError::Words(format!("{:?} is no command.\n{USAGE}", words.join(" ")))),
        }
        Ok(None)
    }

    fn lose(&self, link: &Link, value: &str, seed: &str) -> Result<(), LabError> {
        let no_number = |text: &str| LabError::Words(format!("{text:?} is no number"));
        let loss = probability(value.parse().map_err(|_| no_number(value))?)?;
        let seed = seed.parse().map_err(|_| no_number(seed))?;
        link.update(|shape| (shape.loss, shape.seed) = (loss, seed));
        Ok(())
    }

    /// Runs `act` on the end of this link with this name, if it has one.
    fn at_end<T>(
        &self,
        at: usize,
        name: &str,
        act: impl FnOnce(End) -> Result<T, LabError>,
    ) -> Result<Option<T>, LabError> {
        match self.names.iter().position(|known| known == name) {
            None => Err(LabError::Words(format!("{name:?} is no end; they are {}", self.names.join(", ")))),
            Some(position) if position == at => act(End::A).map(Some),
            Some(position) if position == at + 1 => act(End::B).map(Some),
            Some(_) => Ok(None),
        }
    }
}

fn probability(value: f64) -> Result<f64, LabError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(LabError::Words(format!("{value} is no probability; use 0 to 1")))
}
