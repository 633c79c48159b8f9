//! `backup`: one database of this host to a file or a presigned URL, without any control plane.

mod key;
mod manifest;
mod place;
mod work;

use super::files::check_distinct;
use super::opening::Failure;
use super::run_args::RunArgs;
use super::settings_args::warn;
use super::{CliError, CliResult, print, print_json};
use crate::backup::{Progress, RunError};
use crate::drivers::DumpError;
use crate::model::{Completed, Compression, Engine, Secret, SysExit, TargetSpec};
use crate::settings::{DEFAULT_FILE, Flag, ForTarget, RunSettings, Sources, load_for_target};
use clap::{ArgGroup, ValueEnum};
use indicatif::DecimalBytes;
use serde::Serialize;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use work::Destination;

const AFTER: &str = "\
The target is a table of the configuration file:

  [targets.shop]
  type = \"sqlite\"                  # or postgresql, mysql, mariadb, mongodb, redis
  database = \"/srv/shop/shop.db\"

with host, port, username, password_ref (env:NAME, file:/PATH, credential:NAME), strategy (tcp, unix_socket, \
docker_exec) and container_id where the engine needs them. What the daemon's own runs keep to, this does too: \
server.proxy, server.ca_file, state.min_free_bytes and the section [backup], from file, environment and flags. Objects are always encrypted; without the key nobody opens \
them, so keep a copy of it elsewhere: backupy-agent decrypt --key-file KEY --in OBJECT --out FILE.

The file appears under its name only when the whole object was written and opened again. To standard output it \
goes after that, out of a spool in backup.spool_dir or, where none is named, the directory for temporary files.

Exit codes: 0 stored, 64 wrong flags, 65 the key is none, 66 no such key or URL file, 69 the database or the store \
does not do its part, 73 the output or the key exists, 74 the disk failed or is full, 75 stopped by a signal, \
78 the configuration is wrong.";

/// Longest URL file: presigned URLs have some hundred characters.
const MAX_URL_BYTES: u64 = 16 * 1024;

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
#[command(group = ArgGroup::new("destination").args(["out", "put_url_file"]).required(true).multiple(false))]
#[command(group = ArgGroup::new("any-key").args(["key_file", "key_out"]).required(true).multiple(false))]
pub struct Args {
    /// The database: NAME of a table [targets.NAME].
    #[arg(long, value_name = "NAME")]
    target: String,
    /// Configuration file with that table.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Where the encrypted object goes; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File with a presigned URL to PUT the object to; `-` is standard input. In a file, because arguments are public
    /// on a host.
    #[arg(long, value_name = "FILE")]
    put_url_file: Option<PathBuf>,
    /// Encrypt with the key in this file: 32 bytes as they are, in base64 or in hex; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Make a new key and write it there (base64, mode 0600); a file that exists is never replaced.
    #[arg(long, value_name = "FILE")]
    key_out: Option<PathBuf>,
    /// Write what the backup has in it, its tables and rows, to this file too: encrypted with the same key, for `verify
    /// --restore`, which finds OBJECT.manifest beside the object by itself. A file that exists is replaced.
    #[arg(long, value_name = "FILE")]
    manifest_out: Option<PathBuf>,
    /// How the object is made smaller.
    #[arg(long, value_enum, default_value_t = Packed::Zstd)]
    compression: Packed,
    /// Stop, and fail, when it takes longer than so many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Replace --out when it exists.
    #[arg(long)]
    force: bool,
    /// No progress bar and no summary: only errors and warnings.
    #[arg(long, short)]
    quiet: bool,
    /// Print the result, or the error, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runs: Box<RunArgs>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Packed {
    Zstd,
    Gzip,
    None,
}

impl From<Packed> for Compression {
    fn from(packed: Packed) -> Self {
        match packed {
            Packed::Zstd => Self::Zstd,
            Packed::Gzip => Self::Gzip,
            Packed::None => Self::None,
        }
    }
}

/// `--json`
#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    target: &'a str,
    #[serde(flatten)]
    completed: &'a Completed,
}

#[derive(Serialize)]
struct Failed {
    ok: bool,
    message: String,
}

/// Backs the target up.
///
/// # Errors
/// See the command's help.
pub fn run(args: Args) -> CliResult {
    let to_stdout = args.out.as_ref().is_some_and(|out| out.as_os_str() == "-");
    let (quiet, json, name) = (args.quiet, args.json, args.target.clone());
    match backup(args, to_stdout) {
        Ok(completed) if json => {
            let told = Told { ok: true, target: &name, completed: &completed };
            if to_stdout {
                say_json(&told)
            } else {
                print_json(&told)?
            }
            Ok(())
        }
        Ok(_) if quiet => Ok(()),
        Ok(completed) => {
            let line = format!(
                "{name}: {} ({}), {} bytes in {:.1} s, SHA-256 {}\n",
                DecimalBytes(completed.size_bytes),
                completed.engine_version,
                completed.size_bytes,
                Duration::from_millis(completed.duration_ms).as_secs_f32(),
                completed.sha256
            );
            if to_stdout {
                eprint(line.trim_end());
                return Ok(());
            }
            print(line)
        }
        Err(error) => {
            if json {
                let told = Failed { ok: false, message: error.to_string() };
                if to_stdout { say_json(&told) } else { print_json(&told)? }
            }
            Err(error)
        }
    }
}

fn backup(args: Args, to_stdout: bool) -> Result<Completed, CliError> {
    if to_stdout && io::stdout().is_terminal() {
        let text = "--out - writes an encrypted object, and standard output is a terminal: redirect it";
        return Err(CliError::new(SysExit::Usage, text));
    }
    let stdin = [&args.key_file, &args.put_url_file];
    if stdin.iter().all(|file| file.as_ref().is_some_and(|file| file.as_os_str() == "-")) {
        let text = "--key-file and --put-url-file cannot both be standard input";
        return Err(CliError::new(SysExit::Usage, text));
    }
    for out in [args.out.as_deref(), args.manifest_out.as_deref()].into_iter().flatten() {
        check_dir(out)?;
    }
    let (target, settings) = settings(&args)?;
    check_files(&args, &target)?;
    let to = destination(&args, to_stdout)?;
    let key =
        key::Key::of(args.key_file.as_deref(), args.key_out.as_deref()).map_err(|error| told(&error))?;
    let dek = key.dek();
    let work = work::Work { args: &args, target, settings, key: key.dek(), to };
    let completed = match work.run() {
        Ok(completed) => completed,
        // The store's word is all that is missing.
        Err(work::Ended { error, may_be_stored: true }) => return Err(key.kept_with(error)),
        Err(work::Ended { error, .. }) => return Err(error),
    };
    // What was sealed with it is stored: from here on it stays.
    key.keep();
    match (&args.manifest_out, &completed.manifest) {
        (None, _) => {}
        (Some(path), Some(counted)) => manifest::write(path, counted, &dek)
            .map_err(|failure| failure.told("the backup is stored, its manifest is not", ""))?,
        (Some(_), None) => {
            warn_of("the rows of this dump were not counted: the backup is stored, without a manifest")
        }
    }
    Ok(completed)
}

fn destination(args: &Args, to_stdout: bool) -> Result<Destination, CliError> {
    match (&args.out, &args.put_url_file) {
        (Some(_), _) if to_stdout => Ok(Destination::Stdout),
        (Some(out), _) => {
            check_free(out, args.force).map_err(|failure| told(&failure))?;
            // A link is followed, as `decrypt` does.
            Ok(Destination::File(fs::canonicalize(out).unwrap_or_else(|_| out.clone())))
        }
        (None, Some(file)) => Ok(Destination::Store(read_url(file)?)),
        (None, None) => Err(CliError::new(SysExit::Usage, "--out or --put-url-file is needed")),
    }
}

/// Only a file may be replaced, and only where that was asked: a rename over a device would replace the device.
fn check_free(out: &Path, force: bool) -> Result<(), Failure> {
    let name = || out.display().to_string();
    match fs::metadata(out) {
        Err(_) if !out.is_symlink() => Ok(()),
        Ok(_) | Err(_) if !force => Err(Failure::Exists(name())),
        // A link that leads nowhere.
        Err(_) => Ok(()),
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => {
            let cause = io::Error::other("it exists and is no file; `--out -` writes to standard output");
            Err(Failure::Create { name: name(), cause })
        }
    }
}

/// Noticed before the dump, not after it.
fn check_dir(out: &Path) -> Result<(), CliError> {
    match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => {
            let text = format!("cannot create {}: there is no such directory", out.display());
            Err(CliError::new(SysExit::CannotCreate, text))
        }
        Some(_) | None => Ok(()),
    }
}

/// Neither the key nor the database may be replaced by the backup, nor the backup by its manifest.
fn check_files(args: &Args, target: &TargetSpec) -> Result<(), CliError> {
    let database = Path::new(&target.connection.database);
    let beside = ["-wal", "-shm", "-journal"].map(|end| {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    let database = std::iter::once(database).chain(beside.iter().map(PathBuf::as_path));
    let database = database.filter(|_| target.engine == Some(Engine::Sqlite));
    let mut read: Vec<_> = database.map(|path| ("the database itself", Some(path))).collect();
    read.extend([
        ("the key", args.key_file.as_deref()),
        ("--put-url-file", args.put_url_file.as_deref()),
        ("the configuration", Some(args.config.as_path())),
    ]);
    let written = [
        ("--out", args.out.as_deref()),
        ("--key-out", args.key_out.as_deref()),
        ("--manifest-out", args.manifest_out.as_deref()),
    ];
    check_distinct(&read, &written)
}

/// The target, and how the daemon would run it: file, environment and flags.
fn settings(args: &Args) -> Result<(TargetSpec, RunSettings), CliError> {
    let flags = args.runs.as_ref().clone().flags().into_iter();
    let flags = flags.filter_map(|(key, value)| Some(Flag { key, value: value? })).collect();
    let sources = Sources::of_process(Some(args.config.clone()), flags);
    let ForTarget { target, runs, warnings } = load_for_target(&sources, &args.target)?;
    warn(&warnings);
    Ok((target, runs))
}

fn read_url(path: &Path) -> Result<Secret, CliError> {
    let unreadable =
        |cause| CliError::new(SysExit::NoInput, format_args!("cannot read {}: {cause}", path.display()));
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = zeroize::Zeroizing::new(String::with_capacity(MAX_URL_BYTES as usize + 1));
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_URL_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_URL_BYTES).read_to_string(&mut text))
    };
    read.map_err(unreadable)?;
    Ok(Secret::from(text.trim()))
}

fn told(failure: &Failure) -> CliError {
    failure.told("", "")
}

/// A run's failure with its exit code.
fn failed(target: &TargetSpec, error: &RunError, progress: &Progress) -> CliError {
    let exit = match error {
        RunError::Cancelled => SysExit::Temporary,
        RunError::WrappedKey { .. } => SysExit::Data,
        RunError::UnknownCompression { .. } | RunError::HooksDisabled | RunError::HooksRefused { .. } => {
            SysExit::Usage
        }
        RunError::Dump(DumpError::Scratch(_)) => SysExit::Io,
        RunError::Hook(_) | RunError::Dump(_) | RunError::Upload(_) => SysExit::Unavailable,
        RunError::Exists(_) => SysExit::CannotCreate,
        RunError::Spool(_) | RunError::Stdout(_) => SysExit::Io,
        RunError::Pack { .. } | RunError::Internal(_) => SysExit::Internal,
    };
    let hint = if matches!(error, RunError::Exists(_)) { "; --force replaces it" } else { "" };
    let text = progress.mask().text(&error.to_string());
    CliError::new(exit, format_args!("target \"{}\": {text}{hint}", target.id))
}

/// JSON goes where the object does not.
fn say_json(value: &impl Serialize) {
    eprint(&serde_json::to_string(value).unwrap_or_default());
}

/// On standard error; a closed one is no error of its own.
fn eprint(line: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// What happened on the way.
fn warn_of(message: &str) {
    warn(&[message.to_owned()]);
}
