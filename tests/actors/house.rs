//! A household of stand-ins for the Supervisor: each does what the test tells it.

use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::*;
use backupy_agent::actors::supervisor::{
    Birth, Born, ConnectionDoor, DispatcherDoor, Factory, HealthDoor, HeartbeatDoor, InitSystem, LinkReports,
    Neighbourhood, QueueDoor, RunnerDoor, StoreDoor, Supervisor, SupervisorDeps, Ties,
};
use backupy_agent::channel::LinkDown;
use backupy_agent::model::{AgentStatus, HealthStatus, LinkState, QueueStatus, StoreStatus, SysExit};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What a stand-in is told to do.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Deed {
    /// A handler panics.
    Panic,
    /// Ends with this reason.
    End(ChildExit),
    /// Answers nothing any more.
    Freeze,
    /// Ends without a word.
    Vanish,
    /// A Connection climbs.
    Climb(LinkState, Option<Duration>),
}

pub struct StandIn {
    name: String,
    life: Life,
    mute: bool,
    stubborn: bool,
    reports: Option<LinkReports>,
    story: Story,
}

impl Actor for StandIn {
    type Context = Context<Self>;
    fn stopped(&mut self, _: &mut Self::Context) {
        if !self.mute {
            self.life.tell();
        }
    }
}

impl Handler<Deed> for StandIn {
    type Result = ();
    fn handle(&mut self, deed: Deed, ctx: &mut Self::Context) {
        match deed {
            Deed::Panic => panic!("as the test wants it"),
            Deed::End(exit) => {
                self.life.ends_as(exit);
                ctx.stop();
            }
            Deed::Freeze => ctx.wait(std::future::pending::<()>().into_actor(self)),
            Deed::Vanish => {
                self.mute = true;
                ctx.stop();
            }
            Deed::Climb(state, heartbeat_interval) => {
                let session_id = (state == LinkState::Established).then(|| format!("s-{}", self.name));
                let generation = self.life.generation();
                let changed = LinkChanged { generation, state, session_id, heartbeat_interval };
                self.reports.as_ref().unwrap().changed.do_send(changed);
            }
        }
    }
}

impl Handler<AreYouThere> for StandIn {
    type Result = ();
    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl StandIn {
    fn goodbye(&mut self, exit: ChildExit, ctx: &mut Context<Self>) -> ResponseFuture<()> {
        self.story.tell(format!("{} ends", self.name));
        if self.stubborn {
            return Box::pin(std::future::pending());
        }
        self.life.ends_as(exit);
        ctx.stop();
        Box::pin(std::future::ready(()))
    }
}

impl Handler<Quit> for StandIn {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) -> Self::Result {
        self.goodbye(ChildExit::Stopped, ctx)
    }
}

impl Handler<Hangup> for StandIn {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: Hangup, ctx: &mut Self::Context) -> Self::Result {
        self.goodbye(ChildExit::Link(LinkDown::Hangup), ctx)
    }
}

/// What happened and when, in virtual time.
#[derive(Clone)]
pub struct Story(Rc<RefCell<Vec<(Instant, String)>>>);

impl Story {
    fn tell(&self, line: String) {
        self.0.borrow_mut().push((Instant::now(), line));
    }

    /// What happened since the last look.
    pub fn take(&self) -> Vec<String> {
        self.0.borrow_mut().drain(..).map(|(_, line)| line).collect()
    }

    /// When lines that begin so were told, counted from the first look at the clock.
    pub fn times(&self, begin: Instant, start: &str) -> Vec<f64> {
        let lines = self.0.borrow();
        let hits = lines.iter().filter(|(_, line)| line.starts_with(start));
        hits.map(|(at, _)| ((*at - begin).as_secs_f64() * 10.0).round() / 10.0).collect()
    }
}

/// Everything that the stand-ins share with the test.
#[derive(Default)]
pub struct Known {
    lives: HashMap<ChildName, Vec<Addr<StandIn>>>,
    stores: Vec<Recipient<Commit>>,
    queues: Vec<Recipient<Submit>>,
    runners: Vec<Recipient<StartRun>>,
    pub arbiters: Vec<ArbiterHandle>,
    pub commits: Vec<fake::Told<Commit>>,
    stubborn: bool,
    pub store_fails: bool,
    /// The version that each Connection registers with.
    pub registered: Vec<u64>,
    pub queue_is_stuck: Rc<RefCell<bool>>,
}

struct Household {
    known: Rc<RefCell<Known>>,
    story: Story,
}

impl Household {
    fn start(&self, child: ChildName, birth: Birth, reports: Option<LinkReports>) -> (Addr<StandIn>, Ties) {
        let name = format!("{} {}", child.name(), birth.generation);
        self.story.tell(format!("{name} begins"));
        let stand_in = StandIn {
            name: name.clone(),
            life: Life::new(child, birth.generation, birth.supervisor),
            mute: false,
            stubborn: self.known.borrow().stubborn,
            reports,
            story: self.story.clone(),
        };
        let addr = stand_in.start();
        self.known.borrow_mut().lives.entry(child).or_default().push(addr.clone());
        let (known, story) = (Rc::clone(&self.known), self.story.clone());
        let introduce = move |doors: &Neighbourhood| {
            let known = known.borrow();
            let store = 1 + known.stores.iter().position(|store| *store == doors.store.commit).unwrap();
            let queue = 1 + known.queues.iter().position(|queue| *queue == doors.queue.submit).unwrap();
            let runner = 1 + known.runners.iter().position(|r| *r == doors.runner.start_run).unwrap();
            story.tell(format!("{name} meets store {store}, queue {queue}, runner {runner}"));
        };
        let quit = (child != ChildName::Connection).then(|| addr.clone().recipient());
        let are_you_there = addr.clone().recipient();
        (addr, Ties { are_you_there, introduce: Box::new(introduce), quit, arbiter: None })
    }
}

impl Factory for Household {
    fn state_store(&mut self, birth: Birth) -> Result<Born<StoreDoor>, String> {
        if self.known.borrow().store_fails {
            return Err("the disk is gone".into());
        }
        let (_, ties) = self.start(ChildName::StateStore, birth, None);
        let (commit, told) = fake::quick(|_: &Commit| Ok(()));
        let mut known = self.known.borrow_mut();
        known.stores.push(commit.clone());
        known.commits.push(told);
        let arbiter = Arbiter::new().handle();
        known.arbiters.push(arbiter.clone());
        let door = StoreDoor {
            commit,
            read: fake::silent(),
            recover: fake::silent(),
            inspect: fake::silent(),
            status: fake::quick(|_| StoreStatus { commits: 5, ..Default::default() }).0,
        };
        Ok(Born { door, ties: Ties { arbiter: Some(arbiter), ..ties } })
    }

    fn queue(&mut self, birth: Birth) -> Born<QueueDoor> {
        let (_, ties) = self.start(ChildName::Queue, birth, None);
        let submit: Recipient<Submit> = fake::silent();
        self.known.borrow_mut().queues.push(submit.clone());
        let stuck = Rc::clone(&self.known.borrow().queue_is_stuck);
        let status = fake::slow(move |_: &GetQueueStatus| {
            let stuck = *stuck.borrow();
            Box::pin(async move {
                if stuck {
                    std::future::pending::<()>().await;
                }
                QueueStatus { depth: 3, ..Default::default() }
            })
        });
        let door = QueueDoor {
            submit,
            take_seq: fake::silent(),
            link_up: fake::silent(),
            link_lost: fake::silent(),
            barrier_passed: fake::silent(),
            acked: fake::silent(),
            room_changed: fake::silent(),
            status: status.0,
        };
        Born { door, ties }
    }

    fn runner(&mut self, birth: Birth) -> Born<RunnerDoor> {
        let (_, ties) = self.start(ChildName::Runner, birth, None);
        let start_run: Recipient<StartRun> = fake::silent();
        self.known.borrow_mut().runners.push(start_run.clone());
        let runs = fake::quick(|_: &GetRuns| Vec::new()).0;
        let door = RunnerDoor { configured: fake::silent(), start_run, cancel_run: fake::silent(), runs };
        Born { door, ties }
    }

    fn health(&mut self, birth: Birth) -> Born<HealthDoor> {
        let (_, ties) = self.start(ChildName::Health, birth, None);
        let status = fake::quick(|_: &GetHealth| HealthStatus { checks: 2, ..Default::default() }).0;
        Born { door: HealthDoor { configured: fake::silent(), run_check: fake::silent(), status }, ties }
    }

    fn dispatcher(&mut self, birth: Birth) -> Born<DispatcherDoor> {
        let (_, ties) = self.start(ChildName::Dispatcher, birth, None);
        let version = fake::quick(|_: &GetConfigVersion| 9).0;
        Born { door: DispatcherDoor { command: fake::silent(), version }, ties }
    }

    fn heartbeat(&mut self, birth: Birth) -> Born<HeartbeatDoor> {
        let (_, ties) = self.start(ChildName::Heartbeat, birth, None);
        let (link_up, link_lost, configured) = (fake::silent(), fake::silent(), fake::silent());
        Born { door: HeartbeatDoor { link_up, link_lost, configured }, ties }
    }

    fn connection(
        &mut self,
        birth: Birth,
        reports: LinkReports,
        _: &Neighbourhood,
        config_version: u64,
    ) -> Born<ConnectionDoor> {
        self.known.borrow_mut().registered.push(config_version);
        let (addr, ties) = self.start(ChildName::Connection, birth, Some(reports));
        Born { door: ConnectionDoor { hangup: addr.recipient() }, ties }
    }
}

struct Init(Story);

impl InitSystem for Init {
    fn ready(&mut self) {
        self.0.tell("READY".into());
    }
    fn status(&mut self, line: &str) {
        self.0.tell(format!("STATUS {line}"));
    }
    fn alive(&mut self) {
        self.0.tell("WATCHDOG".into());
    }
    fn stopping(&mut self) {
        self.0.tell("STOPPING".into());
    }
}

/// A running Supervisor over stand-ins.
pub struct House {
    pub supervisor: Addr<Supervisor>,
    pub story: Story,
    pub known: Rc<RefCell<Known>>,
    pub exit: Rc<RefCell<Option<SysExit>>>,
}

impl House {
    /// The middle of the jitter: the delays of the backoff are whole seconds.
    pub async fn open(watchdog: Option<Duration>, stubborn: bool) -> Self {
        tokio::time::pause();
        let story = Story(Rc::default());
        let known = Rc::new(RefCell::new(Known { stubborn, ..Known::default() }));
        let exit = Rc::new(RefCell::new(None));
        let ended = Rc::clone(&exit);
        let household = Household { known: Rc::clone(&known), story: story.clone() };
        let supervisor = Supervisor::new(SupervisorDeps {
            factory: Box::new(household),
            init: Box::new(Init(story.clone())),
            unit: Box::new(|| 0.5),
            watchdog,
            server_url: "https://plane".into(),
            config_version: 4,
            end: Box::new(move |code| *ended.borrow_mut() = Some(code)),
        });
        let house = Self { supervisor: supervisor.start(), story, known, exit };
        house.settle().await;
        house
    }

    /// Lets everything happen that happens now.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Tells the present life of a child what to do.
    pub async fn tell(&self, child: ChildName, deed: Deed) {
        let addr = self.known.borrow().lives[&child].last().unwrap().clone();
        addr.do_send(deed);
        self.settle().await;
    }

    /// How many lives a child has had.
    pub fn lives(&self, child: ChildName) -> usize {
        self.known.borrow().lives.get(&child).map_or(0, Vec::len)
    }
}

/// Restarts of a child after a panic, after an error, after a freeze.
pub fn counts(status: &AgentStatus, child: ChildName) -> (u64, u64, u64) {
    let child = status.children.iter().find(|status| status.name == child.name()).unwrap();
    (child.panics, child.errors, child.freezes)
}

/// Everything that can be observed.
pub async fn status(house: &House) -> AgentStatus {
    house.supervisor.send(GetStatus).await.unwrap()
}

/// The end of a connection whose socket broke.
pub fn broken() -> Deed {
    Deed::End(ChildExit::Link(LinkDown::Broken("cut".into())))
}
