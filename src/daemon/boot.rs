//! The order of the start: nothing to leak, the state, the actors, and only then what others look at.

use super::error::DaemonError;
use super::memory::keep_memory_private;
use super::notify::Systemd;
use super::signals::{Reload, Signals};
use super::socket::{self, ControlSocket};
use crate::actors::supervisor::{Children, Supervisor, SupervisorDeps, store_options};
use crate::actors::{health, queue, runner, state_store, supervisor};
use crate::channel::dial::Dialer;
use crate::channel::tls::TlsOptions;
use crate::channel::websocket::{DialOptions, WebSocketDialer};
use crate::drivers::Tools;
use crate::model::SysExit;
use crate::settings::Settings;
use crate::store::Store;
use crate::telemetry::start_metrics;
use crate::wire::v1;
use actix::prelude::*;
use ring::rand::{SecureRandom, SystemRandom};
use std::cell::Cell;
use std::rc::Rc;
use url::Url;

/// Runs the agent until it is told to end.
///
/// # Errors
/// [`DaemonError`], with the exit code of each.
pub fn run(settings: Settings, reload: Reload) -> Result<(), DaemonError> {
    keep_memory_private();
    let (store, recovered) =
        Store::open(&settings.state.dir, &settings.server.agent_key, store_options(&settings))?;
    let config_version = recovered.config.as_ref().map_or(0, |(version, _)| *version);
    drop(recovered);
    let dialer = WebSocketDialer::new(dial_options(&settings))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let system = System::with_tokio_rt(|| runtime);

    let exit = Rc::new(Cell::new(SysExit::Internal));
    let control = system.block_on(start(settings, store, config_version, dialer, reload, Rc::clone(&exit)));
    let control = control?;
    system.run_with_code()?;
    drop(control);
    let code = exit.get();
    if code == SysExit::Ok { Ok(()) } else { Err(DaemonError::GaveUp(code)) }
}

fn dial_options(settings: &Settings) -> DialOptions {
    let server = &settings.server;
    DialOptions {
        server: server.url.clone(),
        agent_key: server.agent_key.clone(),
        allow_insecure: server.allow_insecure,
        tls: TlsOptions { ca_file: server.ca_file.clone(), pins: server.pins.clone() },
        proxy: server.proxy.clone(),
        no_proxy: server.no_proxy.clone(),
    }
}

async fn start(
    settings: Settings,
    store: Store,
    config_version: u64,
    dialer: WebSocketDialer,
    reload: Reload,
    exit: Rc<Cell<SysExit>>,
) -> Result<Option<ControlSocket>, DaemonError> {
    let signals = Signals::take()?;
    let systemd = Systemd::from_env();
    let watchdog = systemd.watchdog();
    let server_url = shown(&settings.server.url);
    let state_dir = settings.state.dir.clone();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = env!("BACKUPY_COMMIT"),
        server = server_url,
        state = %state_dir.display(),
        config_version,
        "agent starts"
    );
    // Before the actors: what they count before there is an exporter is lost.
    start_metrics(
        &settings.metrics,
        &[supervisor::describe, queue::describe, runner::describe, health::describe, state_store::describe],
    );
    let each = move || Box::new(dialer.clone()) as Box<dyn Dialer>;
    let units = || Box::new(random_unit()) as supervisor::Unit;
    let system = System::current();
    let register = register(settings.hooks.enabled);
    let supervisor = Supervisor::new(SupervisorDeps {
        factory: Box::new(Children::new(settings, store, Box::new(each), Box::new(units), register)),
        init: Box::new(systemd),
        unit: Box::new(random_unit()),
        watchdog,
        server_url,
        config_version,
        end: Box::new(move |code| {
            exit.set(code);
            system.stop_with_code(code.code().into());
        }),
    })
    .start();
    actix_rt::spawn(signals.obey(supervisor.clone().recipient(), reload));
    let doors = socket::Doors {
        status: supervisor.clone().recipient(),
        recover: supervisor.clone().recipient(),
        inspect: supervisor.recipient(),
    };
    match socket::serve(&state_dir, doors) {
        Ok(control) => Ok(Some(control)),
        Err(error) => {
            tracing::warn!(%error, "no control socket: status, health-check and dump-state cannot ask this agent");
            Ok(None)
        }
    }
}

/// Objects go up in parts where the server offers it (protocol section 5).
const MULTIPART: &str = "multipart_upload";

/// The capability of a host whose owner lets the server run hooks.
const HOOKS: &str = "hooks";

/// What the agent says of itself first.
fn register(hooks: bool) -> v1::Register {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    v1::Register {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: hostname.unwrap_or_default(),
        os: std::env::consts::OS.to_owned(),
        arch: go_arch(std::env::consts::ARCH).to_owned(),
        docker_version: String::new(),
        capabilities: Tools::default()
            .capabilities()
            .into_iter()
            .chain(hooks.then(|| HOOKS.to_owned()))
            .chain([MULTIPART.to_owned()])
            .collect(),
        last_known_config_version: 0,
    }
}

/// The contract has Go's names.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that have no host, and the settings let none through.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// For the jitter between dials.
fn random_unit() -> impl FnMut() -> f64 {
    /// The middle of the range, should the kernel have no randomness.
    const MIDDLE: f64 = 0.5;
    let random = SystemRandom::new();
    move || {
        let mut bytes = [0; 4];
        match random.fill(&mut bytes) {
            Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
            Err(_) => MIDDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_neither_userinfo_nor_query() {
        let url = Url::parse("https://me:secret@plane.example:8443/prefix?token=secret#x").unwrap();
        assert_eq!(shown(&url), "https://plane.example:8443/prefix");
    }

    #[test]
    fn random_numbers_are_of_the_unit_range_and_differ() {
        let mut unit = random_unit();
        let drawn: Vec<f64> = (0..100).map(|_| unit()).collect();
        assert!(drawn.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_agent_says_what_it_is_with_the_contracts_names() {
        let register = register(false);
        assert_eq!(register.os, "linux");
        assert!(["amd64", "arm64"].contains(&register.arch.as_str()), "{}", register.arch);
        assert!(register.capabilities.contains(&"sqlite".to_owned()));
        assert!(!register.hostname.is_empty());
        assert!(!register.capabilities.contains(&HOOKS.to_owned()), "it refuses them");
        assert!(super::register(true).capabilities.contains(&HOOKS.to_owned()));
    }
}
