//! A Docker engine of a test's own, and containers with this machine's programs in them.

use crate::common;
use crate::run::{Site, command_lines};
use crate::server::{ok, succeeds, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An engine that is not up by then will not come.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where Debian's PostgreSQL programs are; the container's `PATH`.
fn path() -> String {
    let postgres = crate::postgres::program("pg_dump");
    format!("{}:/usr/local/bin:/usr/bin:/bin", postgres.parent().unwrap().display())
}

/// A Docker engine.
pub struct Docker {
    child: Child,
    /// Of the containers: they outlive an engine that is killed.
    sleepers: RefCell<Vec<i32>>,
    pub dir: TempDir,
}

impl Docker {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("docker-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // The engine ends its containers when it is told to end, also by the kernel when the test dies.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(tool("dockerd"))
            .args([
                "-H",
                &format!("unix://{}", at("s")),
                "--data-root",
                &at("root"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--storage-driver=vfs", "--bridge=none", "--iptables=false"])
            .args(["--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { child, sleepers: RefCell::default(), dir };
        common::eventually("the Docker engine is up", START_LIMIT, || {
            succeeds(docker.client().arg("version")).then_some(())
        });
        // Places to mount this machine's programs at, and nothing else.
        let root = docker.dir.path().join("image");
        for place in ["usr", "lib", "lib64", "bin", "etc", "tmp", "proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        let image = docker.dir.path().join("image.tar");
        ok(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&image).arg("."));
        ok(docker.client().arg("import").arg(&image).arg("machine:1"));
        docker
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn client(&self) -> Command {
        let mut client = Command::new(tool("docker"));
        client.args(["-H", &format!("unix://{}", self.socket().display())]);
        client
    }

    pub fn ask(&self, args: &[&str]) -> String {
        ok(self.client().args(args))
    }

    /// A container that sleeps, with this machine's programs and network.
    pub fn container(&self, name: &str, more: &[&str]) -> String {
        let mut run = self.client();
        run.args([
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "host",
            "--stop-timeout",
            "1",
            "-e",
            &format!("PATH={}", path()),
        ]);
        for place in ["/usr", "/lib", "/lib64", "/etc", "/tmp"] {
            run.args(["-v", &format!("{place}:{place}")]);
        }
        run.args(more).args(["machine:1", "/usr/bin/sleep", "6000"]);
        let id = ok(&mut run).trim().to_owned();
        let sleeper = self.ask(&["inspect", "-f", "{{.State.Pid}}", &id]);
        self.sleepers.borrow_mut().push(sleeper.trim().parse().unwrap());
        id
    }

    /// A site without tools that knows this engine.
    pub fn site(&self) -> Site {
        let mut site = Site::new(&[]);
        site.options.host.docker.socket = self.socket();
        site
    }

    /// As when the engine's machine takes it away in the middle; its containers go on.
    pub fn kill(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.client().args(["ps", "-aq"]).output();
        let containers = containers.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        for container in containers.unwrap_or_default().split_whitespace() {
            succeeds(self.client().args(["rm", "-f", container]));
        }
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
        // What a killed engine leaves: its own children, and mounts that keep the directory.
        let mark = self.dir.path().display().to_string();
        for (pid, line) in command_lines() {
            let slept = self.sleepers.borrow().contains(&pid) && line.contains("sleep");
            if (slept || line.contains(&mark)) && pid != std::process::id() as i32 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut ours: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| at.starts_with(&mark))
            .collect();
        ours.sort_by_key(|at| std::cmp::Reverse(at.len()));
        for at in ours {
            succeeds(Command::new("umount").args(["-l", at]));
        }
    }
}

/// The processes of the container beside its own first one, which sleeps.
pub fn inside(container: &str) -> Vec<(i32, String)> {
    let is_inside = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container))
    };
    let all = command_lines().filter(|(pid, line)| is_inside(pid) && !line.contains("sleep 6000"));
    // A zombie has no arguments.
    all.filter(|(_, line)| !line.is_empty()).collect()
}
