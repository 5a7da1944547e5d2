//! A line between two namespaces: a TUN device in each, and a thread of this process that carries packets between them.

mod pipe;
mod pump;

use std::{net::Ipv4Addr, sync::Mutex};

pub use pipe::{DirectionStats, End, LinkStats, Pipe, Shape};
use tun_rs::{DeviceBuilder, Layer};

use self::pump::{Pump, lock};
use crate::{LabError, Namespace};

/// Packets that a device's queue holds while the thread that empties it is not scheduled.
const DEVICE_QUEUE: u32 = 20_000;

/// A line between two namespaces, changed while traffic runs. Its devices go when it is dropped.
#[derive(Debug)]
pub struct Link {
    number: u8,
    device: String,
    /// The addresses of `A` and of `B`.
    names: [String; 2],
    addresses: Mutex<[Ipv4Addr; 2]>,
    /// The last host number that was given out.
    last_host: Mutex<u8>,
    pump: Pump,
}

impl Link {
    pub(crate) fn create(number: u8, a: &Namespace, b: &Namespace, shape: Shape) -> Result<Self, LabError> {
        let device = format!("link{number}");
        let open = |namespace: &Namespace| {
            let builder = DeviceBuilder::new().name(&device).layer(Layer::L3).mtu(shape.mtu).tx_queue_len(DEVICE_QUEUE);
            let made = namespace.enter(|| {
                let made = builder.enable(false).build_sync()?;
                made.set_nonblocking(true)?;
                Ok(made)
            })?;
            made.map_err(LabError::io::<std::io::Error>(format!("make a TUN device in {}", namespace.name())))
        };
        let pump = Pump::start(open(a)?, open(b)?, shape)?;
        let link = Self {
            number,
            device,
            names: [a.name().to_owned(), b.name().to_owned()],
            addresses: Mutex::new([address(number, 1), address(number, 2)]),
            last_host: Mutex::new(2),
            pump,
        };
        for namespace in [a, b] {
            // Without IPv6 and its neighbour discovery, the kernel sends no packets of its own, which would be counted,
            // and lost in place of traffic.
            let setting = format!("net/ipv6/conf/{}/disable_ipv6", link.device);
            if std::path::Path::new("/proc/sys/net/ipv6").exists() {
                namespace.sysctl(&setting, "1")?;
            }
        }
        for end in [End::A, End::B] {
            link.add_address(end, link.address(end))?;
            link.up(end)?;
        }
        Ok(link)
    }

    /// The current address of an end.
    #[must_use]
    pub fn address(&self, end: End) -> Ipv4Addr {
        lock(&self.addresses)[end as usize]
    }

    /// The name of its device, the same in both namespaces.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The shape of both directions; where they differ, that of `A`'s packets.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.pump.shape(End::A)
    }

    /// Changes both directions, from the next packet on. The MTU stays.
    pub fn update(&self, change: impl Fn(&mut Shape)) {
        self.pump.update(&[End::A, End::B], change);
    }

    /// Changes the shape of one end's packets.
    pub fn update_from(&self, end: End, change: impl Fn(&mut Shape)) {
        self.pump.update(&[end], change);
    }

    /// Drops all packets silently, those under way too; devices, addresses and routes stay.
    pub fn blackhole(&self, on: bool) {
        self.update(|shape| shape.blackhole = on);
    }

    /// Takes the device of an end down, as if its cable were pulled: its routes are removed, and sending fails.
    pub fn down(&self, end: End) -> Result<(), LabError> {
        self.ip(end, &["link", "set", &self.device, "down"])
    }

    /// Takes it up again, with its address and its routes.
    pub fn up(&self, end: End) -> Result<(), LabError> {
        self.ip(end, &["link", "set", &self.device, "up"])?;
        // On a namespace with several links, the first one has the default route.
        let metric = (100 + u32::from(self.number)).to_string();
        self.ip(end, &["route", "replace", "default", "dev", &self.device, "metric", &metric])
    }

    /// Gives an end an address that it never had, and removes the old one, as a change of network does.
    pub fn readdress(&self, end: End) -> Result<Ipv4Addr, LabError> {
        let new = {
            let mut last = lock(&self.last_host);
            *last = last.checked_add(1).filter(|host| *host < 255).unwrap_or(3);
            address(self.number, *last)
        };
        let old = std::mem::replace(&mut lock(&self.addresses)[end as usize], new);
        self.ip(end, &["address", "delete", &format!("{old}/24"), "dev", &self.device])?;
        self.add_address(end, new)?;
        // The kernel removed the routes with the old address.
        self.up(end)?;
        Ok(new)
    }

    /// The counts of packets so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.pump.stats()
    }

    fn add_address(&self, end: End, address: Ipv4Addr) -> Result<(), LabError> {
        self.ip(end, &["address", "add", &format!("{address}/24"), "dev", &self.device])
    }

    fn ip(&self, end: End, args: &[&str]) -> Result<(), LabError> {
        crate::namespace::ip(&[&["-n", &self.names[end as usize]], args].concat()).map(drop)
    }
}

fn address(link: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, link, host)
}
