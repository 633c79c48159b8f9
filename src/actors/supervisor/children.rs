//! The real children: the one place that knows every actor's type.

use super::factory::{
    Birth, Born, ConnectionDoor, DispatcherDoor, Factory, HealthDoor, HeartbeatDoor, LinkReports,
    Neighbourhood, QueueDoor, RunnerDoor, StoreDoor, Ties,
};
use crate::actors::connection::{Connection, ConnectionDeps, ConnectionNeighbours, LinkListener};
use crate::actors::dispatcher::{Dispatcher, DispatcherDeps, DispatcherNeighbours};
use crate::actors::health::{Health, HealthDeps, HealthNeighbours, Unit};
use crate::actors::heartbeat::{Heartbeat, HeartbeatDeps, HeartbeatNeighbours};
use crate::actors::life::Life;
use crate::actors::messages::ChildName;
use crate::actors::queue::{Queue, QueueDeps, QueueNeighbours};
use crate::actors::runner::{Runner, RunnerDeps, RunnerNeighbours, ThreadExecutor, run_options};
use crate::actors::state_store::{Opener, StateStore, StateStoreDeps, StateStoreNeighbours};
use crate::backup;
use crate::channel::dial::Dialer;
use crate::drivers::Owner;
use crate::model::unix_ms;
use crate::probe::health::NetworkProber;
use crate::probe::host::HostProbe;
use crate::settings::Settings;
use crate::spool;
use crate::store::{Options, Store};
use crate::wire::v1;
use actix::prelude::*;
use data_encoding::HEXLOWER;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Makes the real children.
pub struct Children {
    settings: Settings,
    /// Where runs put what they must put aside: nobody else's, whatever lies beside it.
    spool: PathBuf,
    /// Open already, for the first StateStore: what is wrong with it was said before anything began.
    opened: Option<Store>,
    /// A dialer for each Connection.
    dialer: Box<dyn Fn() -> Box<dyn Dialer>>,
    /// Random numbers for each Health.
    units: Box<dyn Fn() -> Unit>,
    /// The first message of each Connection, but for the version of the configuration.
    register: v1::Register,
}

impl Children {
    /// From the state that was opened and whatever makes dialers and random numbers.
    pub fn new(
        settings: Settings,
        opened: Store,
        dialer: Box<dyn Fn() -> Box<dyn Dialer>>,
        units: Box<dyn Fn() -> Unit>,
        register: v1::Register,
    ) -> Self {
        let spool = spool::home(&settings.backup.spool_dir, &settings.state.dir);
        Self { settings, spool, opened: Some(opened), dialer, units, register }
    }

    /// Opens the state: for the first life what is open already, later the file anew.
    fn opener(&mut self) -> Opener {
        let mut opened = self.opened.take();
        let (dir, key) = (self.settings.state.dir.clone(), self.settings.server.agent_key.clone());
        let options = store_options(&self.settings);
        Box::new(move || match opened.take() {
            Some(store) => Ok(store),
            None => Store::open(&dir, &key, options).map(|(store, _)| store),
        })
    }

    fn backup_options(&self) -> backup::Options {
        let hooks = self.settings.hooks;
        let hooks = backup::hooks::Options { enabled: hooks.enabled, timeout: hooks.timeout };
        let mut options = run_options(&self.settings.of_runs(), hooks);
        options.spool_dir = self.spool.clone();
        options.host.docker.owner = Some(owner(&self.settings.server.agent_key));
        options
    }
}

/// Who starts tools in containers: the agent of that key, of which one lives at a time. Its host would not do: an agent in a
/// container that is made anew has another name each time.
fn owner(key: &SecretString) -> Owner {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes());
    let tag = hmac::sign(&key, b"backupy-agent owner of tools in containers v1");
    Owner::new(HEXLOWER.encode(tag.as_ref()))
}

/// How the state is opened, the first time and later.
pub fn store_options(settings: &Settings) -> Options {
    Options { min_free_bytes: settings.state.min_free_bytes, ..Options::default() }
}

fn life(child: ChildName, birth: Birth) -> Life {
    Life::new(child, birth.generation, birth.supervisor)
}

impl Factory for Children {
    fn state_store(&mut self, birth: Birth) -> Result<Born<StoreDoor>, String> {
        let arbiter =
            Arbiter::try_new().map_err(|error| format!("its thread could not be started: {error}"))?;
        let deps = StateStoreDeps { life: life(ChildName::StateStore, birth), opener: self.opener() };
        let addr = StateStore::start_in_arbiter(&arbiter.handle(), |_| StateStore::new(deps));
        let store = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            store.do_send(StateStoreNeighbours { room_changed: doors.queue.room_changed.clone() });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: Some(arbiter.handle()),
        };
        let door = StoreDoor {
            commit: addr.clone().recipient(),
            read: addr.clone().recipient(),
            recover: addr.clone().recipient(),
            inspect: addr.clone().recipient(),
            status: addr.recipient(),
        };
        Ok(Born { door, ties })
    }

    fn queue(&mut self, birth: Birth) -> Born<QueueDoor> {
        let max_queue_bytes = self.settings.state.max_queue_bytes;
        let deps = QueueDeps { life: life(ChildName::Queue, birth), max_queue_bytes, first_seq: unix_ms() };
        let addr = Queue::new(deps).start();
        let queue = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            queue.do_send(QueueNeighbours {
                commit: doors.store.commit.clone(),
                read: doors.store.read.clone(),
                recover: doors.store.recover.clone(),
            });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: None,
        };
        let door = QueueDoor {
            submit: addr.clone().recipient(),
            take_seq: addr.clone().recipient(),
            link_up: addr.clone().recipient(),
            link_lost: addr.clone().recipient(),
            barrier_passed: addr.clone().recipient(),
            acked: addr.clone().recipient(),
            room_changed: addr.clone().recipient(),
            status: addr.recipient(),
        };
        Born { door, ties }
    }

    fn runner(&mut self, birth: Birth) -> Born<RunnerDoor> {
        let executor = Box::new(ThreadExecutor::new(self.backup_options()));
        let deps = RunnerDeps { life: life(ChildName::Runner, birth), executor, clock: Arc::new(unix_ms) };
        let addr = Runner::new(deps).start();
        let runner = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            runner.do_send(RunnerNeighbours {
                recover: doors.store.recover.clone(),
                commit: doors.store.commit.clone(),
                submit: doors.queue.submit.clone(),
            });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: None,
        };
        let door = RunnerDoor {
            configured: addr.clone().recipient(),
            start_run: addr.clone().recipient(),
            cancel_run: addr.clone().recipient(),
            runs: addr.recipient(),
        };
        Born { door, ties }
    }

    fn health(&mut self, birth: Birth) -> Born<HealthDoor> {
        let deps = HealthDeps {
            life: life(ChildName::Health, birth),
            prober: Rc::new(NetworkProber::new(self.settings.server.ca_file.clone())),
            clock: Arc::new(unix_ms),
            unit: (self.units)(),
        };
        let addr = Health::new(deps).start();
        let health = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            health.do_send(HealthNeighbours { submit: doors.queue.submit.clone() });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: None,
        };
        let door = HealthDoor {
            configured: addr.clone().recipient(),
            run_check: addr.clone().recipient(),
            status: addr.recipient(),
        };
        Born { door, ties }
    }

    fn dispatcher(&mut self, birth: Birth) -> Born<DispatcherDoor> {
        let addr = Dispatcher::new(DispatcherDeps { life: life(ChildName::Dispatcher, birth) }).start();
        let dispatcher = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            dispatcher.do_send(DispatcherNeighbours {
                recover: doors.store.recover.clone(),
                commit: doors.store.commit.clone(),
                submit: doors.queue.submit.clone(),
                start_run: doors.runner.start_run.clone(),
                run_check: doors.health.run_check.clone(),
                cancel_run: doors.runner.cancel_run.clone(),
                listeners: vec![
                    doors.runner.configured.clone(),
                    doors.health.configured.clone(),
                    doors.heartbeat.configured.clone(),
                    doors.supervisor.clone(),
                ],
            });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: None,
        };
        let door = DispatcherDoor { command: addr.clone().recipient(), version: addr.recipient() };
        Born { door, ties }
    }

    fn heartbeat(&mut self, birth: Birth) -> Born<HeartbeatDoor> {
        let host = HostProbe::new(&self.settings.state.dir);
        let addr = Heartbeat::new(HeartbeatDeps { life: life(ChildName::Heartbeat, birth), host }).start();
        let heartbeat = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            heartbeat.do_send(HeartbeatNeighbours {
                submit: doors.queue.submit.clone(),
                queue_status: doors.queue.status.clone(),
                runs: doors.runner.runs.clone(),
            });
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: Some(addr.clone().recipient()),
            arbiter: None,
        };
        let door = HeartbeatDoor {
            link_up: addr.clone().recipient(),
            link_lost: addr.clone().recipient(),
            configured: addr.recipient(),
        };
        Born { door, ties }
    }

    fn connection(
        &mut self,
        birth: Birth,
        reports: LinkReports,
        doors: &Neighbourhood,
        config_version: u64,
    ) -> Born<ConnectionDoor> {
        let addr = Connection::new(ConnectionDeps {
            life: life(ChildName::Connection, birth),
            dialer: (self.dialer)(),
            register: v1::Register { last_known_config_version: config_version, ..self.register.clone() },
            neighbours: connection_neighbours(doors, &reports),
        })
        .start();
        let connection = addr.clone();
        let introduce = move |doors: &Neighbourhood| {
            connection.do_send(connection_neighbours(doors, &reports));
        };
        let ties = Ties {
            are_you_there: addr.clone().recipient(),
            introduce: Box::new(introduce),
            quit: None,
            arbiter: None,
        };
        Born { door: ConnectionDoor { hangup: addr.recipient() }, ties }
    }
}

fn connection_neighbours(doors: &Neighbourhood, reports: &LinkReports) -> ConnectionNeighbours {
    ConnectionNeighbours {
        take_seq: doors.queue.take_seq.clone(),
        submit: doors.queue.submit.clone(),
        barrier_passed: doors.queue.barrier_passed.clone(),
        acked: doors.queue.acked.clone(),
        listeners: vec![
            LinkListener { up: doors.queue.link_up.clone(), lost: doors.queue.link_lost.clone() },
            LinkListener { up: doors.heartbeat.link_up.clone(), lost: doors.heartbeat.link_lost.clone() },
        ],
        commands: doors.dispatcher.command.clone(),
        link_changed: reports.changed.clone(),
        round_trip: reports.round_trip.clone(),
    }
}
