//! SIGTERM and SIGINT end in order, the second of them at once; SIGHUP reads the settings again.

use crate::actors::messages::Shutdown;
use actix::Recipient;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What SIGHUP does: reads the settings again, applies what can be, says what needs a restart.
pub type Reload = Box<dyn FnMut()>;

/// What shells and init systems expect of a process that a signal ended: 128 and its number.
const ENDED_BY_SIGNAL: i32 = 128;

/// The signals, from now on ours.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Needs a tokio runtime.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Obeys them until the process ends.
    pub(super) async fn obey(mut self, supervisor: Recipient<Shutdown>, mut reload: Reload) {
        let mut ending = false;
        loop {
            let (name, kind) = tokio::select! {
                Some(()) = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
                Some(()) = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the settings again");
                    reload();
                    continue;
                }
                else => return,
            };
            if std::mem::replace(&mut ending, true) {
                tracing::warn!(signal = name, "a second signal: ending at once");
                std::process::exit(ENDED_BY_SIGNAL + kind.as_raw_value());
            }
            tracing::info!(signal = name, "ending in order; a second signal ends at once");
            supervisor.do_send(Shutdown);
        }
    }
}
