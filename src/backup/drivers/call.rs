//! What is started: a program, its arguments as a list, an environment of its own.

use super::tools::{self, Tools};
use crate::model::Secret;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// Handed on to a tool where the agent has them. Everything else stays with the agent: its key above all.
/// TLS of PostgreSQL is here because a target cannot say it.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "TZ", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL", "KRB5CCNAME"];

/// Messages are read and shown as UTF-8, in the language that they are looked up in.
const LOCALE: &str = "C.UTF-8";

/// How the host's owner wants dump tools to be treated, and where they are.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Where tools are looked for.
    pub tools: Tools,
    /// `backup.nice`: 0 to 19, added to the agent's own.
    pub nice: u8,
    /// `backup.idle_io`: tools read the disk only when nobody else does.
    pub idle_io: bool,
}

/// A tool about to be started.
pub struct Call {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    secrets: Vec<Secret>,
    nice: u8,
    idle_io: bool,
}

impl Call {
    /// That tool of the host, without arguments.
    pub fn new(host: &Host, name: &str, program: PathBuf) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        let locale = ["LANG", "LC_ALL"].map(|name| (name.into(), LOCALE.into()));
        Self {
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env: inherited.chain(locale).collect(),
            secrets: Vec::new(),
            nice: host.nice,
            idle_io: host.idle_io,
        }
    }

    /// One argument more. Never a secret: everybody on the host can read it.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(other, _)| other != OsStr::new(name));
        self.env.push((name.into(), value.into()));
        self
    }

    /// A secret that it is given in some way: its errors are shown without it.
    pub fn hiding(mut self, secret: &Secret) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its errors must not show.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The command: each of the programs before the tool becomes the next one, so that its number is the tool's.
    pub fn command(&self) -> Command {
        let mut argv: Vec<OsString> = Vec::new();
        if self.nice > 0
            && let Some(nice) = tools::of_the_system("nice")
        {
            argv.extend([nice.into(), "-n".into(), self.nice.to_string().into()]);
        }
        if self.idle_io
            && let Some(ionice) = tools::of_the_system("ionice")
        {
            // -t: a host that does not allow it still gets its backup.
            argv.extend([ionice.into(), "-t".into(), "-c".into(), "3".into()]);
        }
        if let Some(setpriv) = tools::of_the_system("setpriv") {
            argv.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
        }
        argv.push(self.program.clone().into());
        argv.extend(self.args.iter().cloned());
        let mut argv = argv.into_iter();
        let mut command = Command::new(argv.next().unwrap_or_default());
        command.args(argv).env_clear().envs(self.env.iter().cloned());
        command
    }
}
