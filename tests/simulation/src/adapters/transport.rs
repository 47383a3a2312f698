//! The way to the workers: requests and replies as messages, through a broker that the world has.

use std::sync::Arc;

use worker_drain::workers::celery::{Celery, CelerySettings, Count, Sent, Transport, pidbox::Request};
use worker_drain_plan::{
    QueueName,
    observation::{Failure, FailureKind},
};

use super::SimClock;
use crate::{script::Outage, setup::SECOND, sim::Sim, world::queue_names};

/// How long it takes to give up on a broker that does not answer.
const OPERATION_BOUND: u64 = 2 * SECOND;

/// The broker, as one operator reaches it.
#[derive(Debug)]
pub struct SimTransport {
    sim: Arc<Sim>,
    who: usize,
}

/// All that a process has of its workers: made when it starts, and gone with it.
pub fn connect(sim: &Arc<Sim>, who: usize) -> Celery<SimTransport> {
    let remote = sim.world().setup.remote;
    let settings = CelerySettings {
        node_names: remote.node_name.map(str::to_owned).into_iter().collect(),
        reply_bound: remote.reply_bound,
        ..CelerySettings::new("redis://made-up")
    };
    let clock = Arc::new(SimClock { sim: Arc::clone(sim), who });
    let transport = SimTransport { sim: Arc::clone(sim), who };
    Celery::over(transport, &settings, clock).expect("a seed draws settings that are valid")
}

impl SimTransport {
    /// Up to where the broker takes requests. Errors: it does not.
    async fn reach(&self) -> Result<(), Failure> {
        let (down, denied, invalid) = {
            let world = self.sim.world();
            (world.is_out(Outage::BrokerDown), world.is_out(Outage::BrokerDenied), world.is_out(Outage::BrokerInvalid))
        };
        let failure = if down {
            self.sim.sleep(OPERATION_BOUND).await;
            Failure::new(FailureKind::Unreachable, "the broker does not answer")
        } else if denied {
            Failure::new(FailureKind::Denied, "WRONGPASS")
        } else if invalid {
            Failure::new(FailureKind::Invalid, "no remote control on this broker")
        } else {
            return Ok(());
        };
        self.sim.world().hang_up(self.who);
        Err(failure)
    }
}

impl Transport for SimTransport {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        self.sim.point(self.who).await;
        self.reach().await?;
        let takes = self.sim.world().delay_chance.pick(&[1, 1, 3, 15]);
        self.sim.sleep(takes).await;
        let sent = self.sim.world().publish(self.who, requests);
        self.sim.point(self.who).await;
        sent
    }

    async fn count(&self, queues: &[QueueName]) -> Vec<Result<Count, Failure>> {
        self.sim.point(self.who).await;
        if let Err(failure) = self.reach().await {
            return vec![Err(failure); queues.len()];
        }
        let world = self.sim.world();
        let count = |queue: &QueueName| {
            let place = queue_names(u8::MAX).position(|known| known == queue.as_str());
            let place = place.and_then(|place| u8::try_from(place).ok());
            place.map(|place| world.count(place)).ok_or_else(|| Failure::new(FailureKind::NotFound, "no such queue"))
        };
        queues.iter().map(count).collect()
    }

    async fn close(&self) {
        self.sim.world().hang_up(self.who);
    }
}
