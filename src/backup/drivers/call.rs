//! What is started: a program, its arguments as a list, an environment of its own.

use super::tools::Tools;
use crate::backup::child::{self, Manners};
use crate::backup::mask::Mask;
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
    /// `backup.nice` and `backup.idle_io`.
    pub manners: Manners,
}

/// A tool about to be started.
pub struct Call {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    secrets: Vec<Secret>,
    manners: Manners,
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
            manners: host.manners,
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
    pub fn mask(&self) -> Mask {
        Mask::of(&self.secrets)
    }

    /// The command.
    pub fn command(&self) -> Command {
        let mut command = child::command(self.manners, &self.program, self.args.iter().cloned());
        command.envs(self.env.iter().cloned());
        command
    }
}
