//! Looks for secrets where none may be.

use super::Agent;

/// Texts that must not be seen anywhere.
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Pairs of a name that may be shown and a text that may not.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let secrets: Vec<_> = secrets.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        for (name, text) in &secrets {
            let text: &String = text;
            assert!(text.len() >= 8, "{name} is too short to be looked for");
        }
        Self(secrets)
    }

    /// The name of the first secret in `text`.
    pub fn find_in(&self, text: &str) -> Option<&str> {
        self.0.iter().find(|(_, secret)| text.contains(secret.as_str())).map(|(name, _)| name.as_str())
    }

    /// Fails when one of them stands in the agent's output, or in the command line of the agent or
    /// of a process that it started. Says which and where, not what.
    #[track_caller]
    pub fn assert_not_seen(&self, agent: &Agent) {
        if let Some(leak) = self.leak(agent) {
            panic!("{leak}");
        }
    }

    /// Which of them can be seen, and where.
    pub fn leak(&self, agent: &Agent) -> Option<String> {
        let output = agent.output().into_iter().enumerate();
        let mut in_output = output.filter_map(|(number, line)| {
            Some(format!("{} stands in line {} of the agent's output", self.find_in(&line)?, number + 1))
        });
        let in_argv = group(agent.pid()).into_iter().filter_map(|(pid, cmdline)| {
            Some(format!("{} stands in /proc/{pid}/cmdline", self.find_in(&cmdline)?))
        });
        in_output.next().or_else(|| in_argv.into_iter().next())
    }
}

/// Process id and command line of every process of the group.
fn group(leader: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the command's name in parentheses: state, parent, process group.
            let group: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()?;
            let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            (group == leader).then(|| (pid, String::from_utf8_lossy(&cmdline).replace('\0', " ")))
        })
        .collect()
}
