//! Many who renew their leases, in rooms that are spoken to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use prism_client::Result as Answer;
use rand::{RngExt, rngs::StdRng};
use serde_json::json;
use tokio::time::interval;

use super::{
    cast::Caster,
    pace::{Load, OpenLoop},
    ramp::Ramp,
    renewing::Renewing,
    report::{Fact, Report, times},
    stage::{Ended, Stage},
    tally::{Summary, Times},
};
use crate::fault::Stop;

/// How often the bar moves.
const GLANCE: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) users: u32,
    pub(crate) rooms: u32,
    /// How many users listen, about: whole rooms do.
    pub(crate) listeners: u32,
    /// When rooms are spoken to.
    pub(crate) ramp: Ramp,
    pub(crate) most: usize,
}

impl Plan {
    fn room(&self, user: u32) -> u32 {
        user % self.rooms
    }

    /// How many rooms are listened to and spoken to, the first ones: as many as fit, and one at least.
    fn live_rooms(&self) -> u32 {
        let in_a_room = self.users.div_ceil(self.rooms);
        (self.listeners / in_a_room).clamp(1, self.rooms)
    }
}

/// Carries it out.
pub(crate) async fn run(stage: Stage, plan: Plan) -> Result<Report, Stop> {
    let renewing = Renewing::default();
    let ended = tokio::select! {
        ended = perform(&stage, &plan, &renewing) => ended,
        // From the first registration on, for as long as there is anything to measure.
        never = renewing.run(&stage.fleet) => match never {},
    };
    match ended {
        Ok(ended) => Ok(stage.end(ended).await),
        Err(error) => Err(stage.abandon(error).await),
    }
}

async fn perform(stage: &Stage, plan: &Plan, renewing: &Renewing) -> Answer<Ended> {
    let metadata = |user| json!({ "status": "online", "room": plan.room(user) });
    let portion = |first, registrations| renewing.add(first, registrations);
    stage.fill(plan.users, metadata, portion).await?;
    let live = plan.live_rooms();
    stage
        .listen((0..plan.users).filter(|user| plan.room(*user) < live))
        .await?;
    let lateness = Arc::new(Times::default());
    let open = OpenLoop {
        ramp: plan.ramp.clone(),
        began: Instant::now(),
        most: plan.most,
        stop: stage.stop.clone(),
        lateness: lateness.clone(),
    };
    let rooms = Rooms {
        random: stage.random(),
        live,
        caster: stage.caster.clone(),
    };
    let elapsed = tokio::select! {
        elapsed = open.run(rooms) => elapsed,
        () = watch(stage, plan, renewing) => Duration::ZERO,
    };
    // Nobody comes back by itself: who is missing now has expired.
    let present = stage.fleet.count().await;
    Ok(ended(
        stage,
        plan,
        renewing,
        elapsed,
        present,
        &lateness.summary(),
    ))
}

/// Moves the bar, for ever.
async fn watch(stage: &Stage, plan: &Plan, renewing: &Renewing) {
    let (began, length) = (Instant::now(), plan.ramp.length().as_secs());
    let mut ticks = interval(GLANCE);
    loop {
        ticks.tick().await;
        stage.bar.at(began.elapsed().as_secs().min(length), length);
        stage
            .bar
            .say(format!("s, {} renewals, {}", renewing.renewed(), stage.short()));
    }
}

/// Speaks to one room after the other, by chance.
struct Rooms {
    random: StdRng,
    live: u32,
    caster: Caster,
}

impl Load for Rooms {
    type Item = u32;

    fn next(&mut self) -> u32 {
        self.random.random_range(0..self.live)
    }

    fn perform(&self, room: u32, due: Instant) -> BoxFuture<'static, ()> {
        let caster = self.caster.clone();
        let filter = caster.fleet.filter().eq("room", room);
        Box::pin(async move { drop(caster.cast(filter, due).await) })
    }

    fn miss(&self, _: u32) {
        self.caster.tally.miss();
    }
}

fn ended(
    stage: &Stage,
    plan: &Plan,
    renewing: &Renewing,
    elapsed: Duration,
    present: Answer<u64>,
    lateness: &Summary,
) -> Ended {
    let expired = present.map(|present| renewing.registered().saturating_sub(present));
    let lost = renewing.lost();
    let refused: u64 = lost.values().sum();
    let problem = match &expired {
        Ok(0) if refused == 0 => None,
        Ok(expired) => Some((
            "EXPIRED",
            format!("{expired} users expired, and {refused} renewals were refused"),
        )),
        Err(error) => Some((
            "NOT_COUNTED",
            format!("it is not known how many users expired: {error}"),
        )),
    };
    let expired = expired.ok();
    let late = renewing.lateness.summary();
    let facts = vec![
        Fact::new("users", "USERS", renewing.registered()),
        Fact::new("rooms", "ROOMS", plan.rooms),
        Fact::new("live_rooms", "ROOMS SPOKEN TO", plan.live_rooms()),
        Fact::new("renewed", "RENEWED", renewing.renewed()),
        Fact::worded(
            "expired",
            "EXPIRED",
            json!(expired),
            expired.map_or_else(|| "not known".to_owned(), |expired| expired.to_string()),
        ),
        Fact::silent("renewals_refused", json!(lost)),
        Fact::worded(
            "renewal_lateness",
            "RENEWED LATE BY",
            times(&late),
            format!("at most {:?}", late.max),
        ),
        Fact::worded(
            "lateness",
            "BEGUN LATE BY",
            times(lateness),
            format!("at most {:?}", lateness.max),
        ),
    ];
    Ended {
        command: "presence",
        elapsed,
        facts,
        tables: Vec::new(),
        calls: vec![
            ("multicast", stage.caster.tally.clone()),
            ("renew", renewing.tally.clone()),
        ],
        delivers: true,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::ramp::Shape;

    #[test]
    fn whole_rooms_listen_and_one_at_least() {
        let live = |users, rooms, listeners| {
            let ramp = Ramp::new(&Shape::Constant, Some(1.0), Duration::from_secs(1)).unwrap();
            let plan = Plan {
                users,
                rooms,
                listeners,
                ramp,
                most: 1,
            };
            plan.live_rooms()
        };
        assert_eq!(live(100_000, 1_000, 2_000), 20);
        assert_eq!(live(100_000, 1_000, 50), 1);
        assert_eq!(live(10, 5, 1_000), 5);
    }
}
