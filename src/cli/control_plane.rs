//! `control-plane`: an embedded control plane for one site, for trying out and for tests.

use super::{CliError, CliResult, print};
use crate::control_plane::{self, Config, DEFAULT_DATA_DIR, DEFAULT_LISTEN, Running, StartError, Tls};
use crate::model::SysExit;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `control-plane`. A flag wins over the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read settings and agents from this TOML file (see config/control-plane.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", help = format!("Address to listen on [default: {DEFAULT_LISTEN}]"))]
    listen: Option<String>,
    /// State, keys and objects; made with mode 0700 where it is missing.
    #[arg(long, value_name = "DIR", help = format!("State, keys and objects [default: {DEFAULT_DATA_DIR}]"))]
    data_dir: Option<PathBuf>,
    /// PEM file of the certificate chain; without it a CA and a certificate are made.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve in the clear. For loopback only.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    insecure_http: bool,
    /// How often agents show signs of life, for example 30s; whole seconds.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    heartbeat_interval: Option<Duration>,
    /// Do not acknowledge messages one by one (backupy.ack.v1): agents go by WebSocket pongs.
    #[arg(long)]
    no_acks: bool,
    /// Offer no uploads in parts: each object comes by one PUT, of at most 5 GiB, out of the agent's spool.
    #[arg(long)]
    no_multipart: bool,
    /// Make an agent of this name, print its key, and end. The key is not kept and cannot be shown again.
    #[arg(long, value_name = "NAME")]
    print_agent_key: Option<String>,
    /// Print one line of JSON when it listens: url, ca_file, admin_token_file, pid.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

impl Args {
    fn into_config(self) -> Result<Config, CliError> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path).map_err(|fault| CliError::new(SysExit::Config, fault))?,
            None => Config::new(DEFAULT_DATA_DIR),
        };
        config.listen = self.listen.unwrap_or(config.listen);
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        config.heartbeat_interval = self.heartbeat_interval.unwrap_or(config.heartbeat_interval);
        config.end_to_end_acks &= !self.no_acks;
        config.multipart &= !self.no_multipart;
        match (self.insecure_http, self.tls_cert, self.tls_key) {
            (true, _, _) => config.tls = Tls::Insecure,
            (false, Some(cert), Some(key)) => config.tls = Tls::Files { cert, key },
            (false, _, _) => {}
        }
        Ok(config)
    }
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// 78 for a setting that cannot be used, 73 for a data directory that cannot be made or written, 75 where
/// another control plane works on it, 65 for a damaged state, 69 where it cannot listen.
pub fn run(mut args: Args) -> CliResult {
    log_to_stderr();
    let (new_agent, as_json) = (args.print_agent_key.take(), args.json);
    let config = args.into_config()?;
    if let Some(name) = new_agent {
        let key = control_plane::create_agent(&config, &name).map_err(failed)?;
        return print(format!("{}\n", key.expose()));
    }
    // Before anything listens: a signal that comes early must not be lost.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(SysExit::Internal, error))?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| CliError::new(SysExit::Internal, error))?;
        let running = control_plane::serve(config).map_err(failed)?;
        announce(&running, as_json)?;
        signals.wait(&running).await;
        if running.is_finished() {
            let message = "the control plane ended by itself; its log says why";
            return Err(CliError::new(SysExit::Internal, message));
        }
        running.stop();
        Ok(())
    })
}

fn failed(error: StartError) -> CliError {
    let exit = match &error {
        StartError::Config(_) | StartError::Tls(_) => SysExit::Config,
        StartError::DataDir { .. } => SysExit::CannotCreate,
        StartError::InUse { .. } => SysExit::Temporary,
        StartError::State { .. } => SysExit::Data,
        StartError::Bind { .. } => SysExit::Unavailable,
    };
    CliError::new(exit, format_args!("control-plane: {error}"))
}

fn announce(running: &Running, as_json: bool) -> CliResult {
    let ca_file = running.ca_file().map(|path| path.display().to_string());
    let token_file = running.admin_token_file().display().to_string();
    if as_json {
        let line = json!({
            "url": running.base_url(),
            "ca_file": ca_file,
            "admin_token_file": token_file,
            "pid": std::process::id(),
        });
        return print(format!("{line}\n"));
    }
    let ca_file = ca_file.unwrap_or_else(|| "none made here".into());
    print(format!(
        "control plane   {}\nCA certificate  {ca_file}\nadmin token     {token_file}\n",
        running.base_url()
    ))
}

/// What ends a daemon.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Answers at a signal, or when the server has ended by itself.
    async fn wait(&mut self, running: &Running) {
        /// How often the server's thread is looked at.
        const LOOK: Duration = Duration::from_secs(1);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = look.tick() => if running.is_finished() { return },
            }
        }
    }
}

/// Logs go to standard error, so that standard output keeps to what scripts read. `RUST_LOG` filters.
fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    /// Which thread of the server starts or ends is of no use to an operator.
    const DEFAULT_FILTER: &str = "info,actix_server=warn";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let colour = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour);
    // Where a subscriber is set already, it stays.
    let _ = logs.with_writer(std::io::stderr).try_init();
}
