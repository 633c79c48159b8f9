//! What is started: a program, its arguments as a list, an environment of its own.

use super::ground::Ground;
use crate::model::Secret;
use crate::process::{self, Manners, Mask};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use zeroize::Zeroizing;

/// Handed on to a tool where the agent has them. Everything else stays with the agent: its key above all.
/// TLS of PostgreSQL and the roots of the others are here because a target cannot say them.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "TZ",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCRL",
    "KRB5CCNAME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Messages are read and shown as UTF-8, in the language that they are looked up in.
const LOCALE: &str = "C.UTF-8";

/// A tool about to be started.
pub struct Call {
    name: String,
    title: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Zeroizing<String>>,
    secrets: Vec<Secret>,
    ground: Ground,
}

impl Call {
    /// That tool, without arguments. Inside a container it finds the container's own environment, and nothing of the
    /// agent's.
    pub fn new(ground: &Ground, name: &str, program: PathBuf) -> Self {
        let (inherited, title) = match ground {
            Ground::Host(_) => (&INHERITED[..], name.to_owned()),
            Ground::Container(container) => {
                (&[][..], format!("{name} in container \"{}\"", container.name()))
            }
        };
        let inherited = inherited.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        let locale = ["LANG", "LC_ALL"].map(|name| (name.into(), LOCALE.into()));
        Self {
            name: name.to_owned(),
            title,
            program,
            args: Vec::new(),
            env: inherited.chain(locale).collect(),
            input: None,
            secrets: Vec::new(),
            ground: ground.clone(),
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

    /// What it reads from its standard input, inside a container: secrets that a tool wants in a file.
    pub fn feeding(mut self, input: &str) -> Self {
        self.input = Some(Zeroizing::new(input.to_owned()));
        self
    }

    /// A secret that it is given in some way: its errors are shown without it.
    pub fn hiding(mut self, secret: &Secret) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// Of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For people: the program, and the container that it runs in.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where it runs.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// What its errors must not show.
    pub fn mask(&self) -> Mask {
        Mask::of(&self.secrets)
    }

    /// The command, of a tool of this host.
    pub fn command(&self) -> Command {
        let manners = match &self.ground {
            Ground::Host(host) => host.manners,
            Ground::Container(_) => Manners::default(),
        };
        let mut command = process::command(manners, &self.program, self.args.iter().cloned());
        command.envs(self.env.iter().cloned());
        command
    }

    /// The program and its arguments, as JSON can say them.
    pub fn argv(&self) -> Vec<String> {
        let program = self.program.as_os_str().to_string_lossy().into_owned();
        std::iter::once(program)
            .chain(self.args.iter().map(|arg| arg.to_string_lossy().into_owned()))
            .collect()
    }

    /// Its environment as `NAME=value`.
    pub fn variables(&self) -> Vec<Zeroizing<String>> {
        let text = |(name, value): &(OsString, OsString)| {
            Zeroizing::new(format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        };
        self.env.iter().map(text).collect()
    }

    /// Its standard input.
    pub fn input(&self) -> Option<&[u8]> {
        self.input.as_ref().map(|input| input.as_bytes())
    }
}
