//! The demo from its first line to its last.

use super::database::{self, Shop};
use super::follow::{Seen, follow};
use super::processes::{Process, this_binary};
use super::screen::Screen;
use super::stage::{self, Files, JOB, POLL, Plane};
use super::{Args, compare, plug};
use crate::cli::progress::Progress;
use anyhow::{Context, Result, bail};
use indicatif::{DecimalBytes, HumanCount};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An agent registers in milliseconds; a busy machine takes longer.
const REGISTERED_WITHIN: Duration = Duration::from_secs(30);
/// Opening and unpacking 100 MB takes a second or two.
const OPENED_WITHIN: Duration = Duration::from_secs(120);

/// Tells it. `lingers` turns true once only Ctrl-C is waited for.
///
/// # Errors
/// What did not go as it must.
pub async fn tell(args: Args, lingers: Rc<Cell<bool>>) -> Result<()> {
    let files = Files::lay_out(args.dir)?;
    let screen = play(&files, args.pull_the_plug, args.stay.then_some(lingers))
        .await
        // Logs and files are what tells why: they stay, whatever was asked.
        .with_context(|| format!("the demo failed; its files are in {}", files.dir.display()))?;
    if args.clean {
        fs::remove_dir_all(&files.dir).with_context(|| files.dir.display().to_string())?;
        screen.item("directory", format_args!("{}: deleted", files.dir.display()));
    } else {
        epilogue(&screen, &files, args.pull_the_plug);
    }
    Ok(())
}

async fn play(files: &Files, pull_the_plug: bool, stay: Option<Rc<Cell<bool>>>) -> Result<Screen> {
    let mut screen = Screen::new("backupy-agent demo: one real backup, on this machine alone");
    screen.line(files.dir.display());

    screen.chapter("A database");
    make_database(&screen, files).await?;

    screen.chapter("A control plane and an agent, each a process of its own");
    let mut plane = Plane::start(files).await?;
    screen
        .item("plane", format_args!("pid {}, https://{}, TLS 1.3 by its own CA", plane.pid(), plane.address));
    let mut agent = register(&screen, files, &mut plane).await?;

    screen.chapter("A backup, while the shop goes on selling");
    let shop = Shop::open(&files.database)?;
    let started = Instant::now();
    plane.link.reset();
    let run = plane.rest.post(&format!("/v1/jobs/{JOB}/run"), json!({"manual": true})).await?;
    let run_id = run["id"].as_str().context("a run has an id")?.to_owned();
    screen.item("run", format_args!("{run_id}, ordered by POST /v1/jobs/{JOB}/run"));
    if pull_the_plug {
        let bytes = database::size(&files.database)?;
        plug::pull(&mut screen, files, &mut plane, &mut agent, &run_id, bytes).await?;
    }
    let run = match follow(files, &mut plane, &mut agent, &run_id, None).await? {
        Seen::Ended(run) => run,
        Seen::Midway { .. } => bail!("the run was left before its end"),
    };
    let sold = shop.close()?;
    summary(&screen, files, &run, started.elapsed(), sold, pull_the_plug)?;
    if pull_the_plug {
        plug::one_of_each(&screen, files, &plane).await?;
    }

    screen.chapter("The object, fetched and opened again");
    fetch(&screen, files, &plane, &run).await?;
    open(&screen, files).await?;

    screen.chapter("The restored database beside the original");
    beside(&screen, files).await?;

    if let Some(lingers) = stay {
        let interrupted = super::interrupted()?;
        lingers.set(true);
        tokio::select! {
            () = interrupted => {}
            ended = linger(&screen, files, &mut plane, &mut agent) => ended?,
        }
    }
    let agent_pid = agent.pid();
    agent.stop().await?;
    plane.stop().await?;
    screen.heading("It works. What is left");
    screen.item("processes", format_args!("none: agent {agent_pid} and the control plane ended in order"));
    Ok(screen)
}

/// Tells a thread to stop when the demo is interrupted: the runtime waits for its threads.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn make_database(screen: &Screen, files: &Files) -> Result<()> {
    const SCALE: u64 = 1000;
    let start = Instant::now();
    let path = files.database.clone();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let guard = StopOnDrop(Arc::clone(&stop));
    let told = Arc::clone(&done);
    let maker = tokio::task::spawn_blocking(move || {
        database::generate(&path, database::ORDERS, |part| {
            told.store((part * SCALE as f64) as u64, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        })
    });
    let bar = Progress::parts(SCALE).labelled("making");
    while !maker.is_finished() {
        bar.set(done.load(Ordering::Relaxed));
        actix_rt::time::sleep(POLL).await;
    }
    bar.finish();
    maker.await??;
    drop(guard);
    let size = DecimalBytes(database::size(&files.database)?);
    screen.line(format_args!(
        "shop.db, SQLite in WAL mode, {size}, made in {:.1} s:",
        start.elapsed().as_secs_f64()
    ));
    for row in database::peek(&files.database)? {
        screen.line(format_args!("  {row}"));
    }
    Ok(())
}

/// Starts the agent and waits until the control plane knows it.
async fn register(screen: &Screen, files: &Files, plane: &mut Plane) -> Result<Process> {
    stage::configure_agent(files, &plane.link)?;
    let mut agent = stage::start_agent(files)?;
    let start = Instant::now();
    let known = loop {
        agent.must_run()?;
        plane.must_run()?;
        match plane.agent().await? {
            Some(known) if known["connected"] == true && known["register"].is_object() => break known,
            Some(_) | None => {}
        }
        if start.elapsed() > REGISTERED_WITHIN {
            bail!("the agent has not registered. The end of its log:\n{}", agent.tail());
        }
        actix_rt::time::sleep(POLL).await;
    };
    screen.item(
        "agent",
        format_args!(
            "pid {}, registered as {} (version {}) over wss://127.0.0.1:{}",
            agent.pid(),
            known["name"].as_str().unwrap_or("?"),
            known["register"]["agent_version"].as_str().unwrap_or("?"),
            plane.link.port()
        ),
    );
    Ok(agent)
}

fn summary(
    screen: &Screen,
    files: &Files,
    run: &Value,
    took: Duration,
    sold: u64,
    plugged: bool,
) -> Result<()> {
    let database_bytes = database::size(&files.database)?;
    let object_bytes = run["size_bytes"].as_u64().context("a good run has a size")?;
    let agent_s = run["duration_ms"].as_u64().unwrap_or_default() as f64 / 1000.0;
    screen.item(
        "object",
        format_args!(
            "{} of {} ({:.0} %), packed by zstd, sealed by AES-256-GCM",
            DecimalBytes(object_bytes),
            DecimalBytes(database_bytes),
            100.0 * object_bytes as f64 / database_bytes as f64
        ),
    );
    let rate = DecimalBytes((database_bytes as f64 / agent_s.max(0.001)) as u64);
    let by_agent = if plugged {
        format!("{agent_s:.1} s of the agent's second life, which did not dump again")
    } else {
        format!("{agent_s:.1} s from the first page to the verified end ({rate}/s)")
    };
    screen.item("time", format_args!("{by_agent}; {:.1} s as seen from here", took.as_secs_f64()));
    screen.item("engine", run["db_engine_version"].as_str().unwrap_or("?"));
    screen.item("shop", format_args!("{sold} orders sold meanwhile, not one of them refused"));
    Ok(())
}

/// As an operator would: a download URL and a decryption token.
async fn fetch(screen: &Screen, files: &Files, plane: &Plane, run: &Value) -> Result<()> {
    let run_id = run["id"].as_str().unwrap_or_default();
    let download = plane.rest.get(&format!("/v1/runs/{run_id}/download-url")).await?;
    let url = download["url"].as_str().context("a download URL")?;
    let bytes = plane.rest.download(url, &files.object).await?;
    if Some(bytes) != run["size_bytes"].as_u64() {
        bail!("the object has {bytes} bytes, reported were {}", run["size_bytes"]);
    }
    let answer = plane.rest.post(&format!("/v1/runs/{run_id}/decryption-token"), json!({})).await?;
    Files::write_private(&files.token, answer["token"].as_str().context("a decryption token")?)?;
    screen.item("fetched", format_args!("{} through a signed URL that expires", DecimalBytes(bytes)));
    screen.item("token", "a decryption token, good for 15 minutes and for this object alone");
    Ok(())
}

/// `verify` and `decrypt`, the commands themselves.
async fn open(screen: &Screen, files: &Files) -> Result<()> {
    let report = command_json(files, "verify", &[]).await?;
    let (frames, sha256) = (&report["frames"], report["sha256"].as_str().unwrap_or("?"));
    if report["sha256_matches_token"] != true || report["order_checked"] != true {
        bail!("verify: the object opens, but was not wholly checked: {report}");
    }
    screen.item("verify", format_args!("{frames} frames, all there, each in its place and authentic"));
    screen.item("sha256", format_args!("{sha256}, as reported"));
    let report = command_json(files, "decrypt", &["--out", &files.restored.to_string_lossy()]).await?;
    let bytes = report["content_bytes"].as_u64().unwrap_or_default();
    screen.item("decrypt", format_args!("restored.db, {}", DecimalBytes(bytes)));
    Ok(())
}

/// A command on object and token, with its own progress bar where there is a terminal.
async fn command_json(files: &Files, name: &'static str, more: &[&str]) -> Result<Value> {
    let mut command = this_binary()?;
    command
        .arg(name)
        .arg("--json")
        .arg("--in")
        .arg(&files.object)
        .arg("--token-file")
        .arg(&files.token)
        .args(more);
    let output = files.dir.join(format!("{name}.json"));
    let mut process = Process::tool(name, command, &output, Stdio::inherit())?;
    let status = process.wait(OPENED_WITHIN).await?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    let text = fs::read_to_string(&output)?;
    fs::remove_file(&output)?;
    serde_json::from_str(&text).with_context(|| format!("{name} --json"))
}

async fn beside(screen: &Screen, files: &Files) -> Result<()> {
    let (source, restored) = (files.database.clone(), files.restored.clone());
    let found = tokio::task::spawn_blocking(move || compare::compare(&source, &restored)).await??;
    screen.item("integrity", "integrity_check: ok; every order has all its items: one moment of the shop");
    let tables = found.tables.iter().map(|(table, rows)| format!("{} {table}", HumanCount(*rows)));
    screen.item("rows", format_args!("{}: each the same", tables.collect::<Vec<_>>().join(", ")));
    screen.item(
        "later",
        format_args!(
            "{} orders came after the moment that the backup holds; {} rows compared",
            found.later_orders,
            HumanCount(found.rows())
        ),
    );
    Ok(())
}

/// `--stay`: until Ctrl-C, or until a process ends by itself.
async fn linger(screen: &Screen, files: &Files, plane: &mut Plane, agent: &mut Process) -> Result<()> {
    screen.heading("Control plane and agent go on until Ctrl-C");
    let dir = files.dir.display();
    screen.line(format_args!("backupy-agent status --config {dir}/agent.toml"));
    screen.line(format_args!(
        "curl --cacert {dir}/plane/tls/ca.pem -H \"Authorization: Bearer $(cat {dir}/plane/admin.token)\" https://{}/v1/runs",
        plane.address
    ));
    screen.line(format_args!(
        "the same with -X POST https://{}/v1/jobs/{JOB}/run starts another backup",
        plane.address
    ));
    loop {
        plane.must_run()?;
        agent.must_run()?;
        actix_rt::time::sleep(Duration::from_secs(1)).await;
    }
}

fn epilogue(screen: &Screen, files: &Files, pull_the_plug: bool) {
    let dir = files.dir.display();
    screen.item("directory", &dir);
    screen.item("", "shop.db (the original), object.bkpy (ciphertext), restored.db, token,");
    screen.item("", "agent.toml, control-plane.toml, agent.log, control-plane.log, state/, plane/");

    screen.heading("What to try next");
    let binary = std::env::args().next().unwrap_or_else(|| "backupy-agent".into());
    if !pull_the_plug {
        screen.line(format_args!(
            "{binary} demo --pull-the-plug     kill -9 in mid-upload: still one good backup"
        ));
    }
    screen.line(format_args!("{binary} demo --stay              control plane and agent to play with"));
    screen.line("change one byte of the object, and see it refused:");
    screen
        .line(format_args!("  printf X | dd of={dir}/object.bkpy bs=1 seek=100000 conv=notrunc status=none"));
    screen.line(format_args!("  {binary} verify --in {dir}/object.bkpy --token-file {dir}/token"));
    screen.line(format_args!("rm -r {dir}"));
}
