use super::*;
use std::io::BufRead;
use std::path::Path;

fn shell(script: &str, manners: Manners) -> Command {
    command(manners, Path::new("/bin/sh"), ["-c", script].map(Into::into))
}

fn start(script: &str) -> Group {
    Group::start(shell(script, Manners::default()), Streams::Apart, Tail::default()).unwrap()
}

/// Everything that it writes.
fn heard(group: &mut Group) -> String {
    let (mut all, mut buffer) = (Vec::new(), vec![0; READ_LEN]);
    loop {
        match group.listen(&mut buffer).unwrap() {
            Heard::Output(len) => all.extend_from_slice(&buffer[..len]),
            Heard::Quiet => {}
            Heard::End => return String::from_utf8(all).unwrap(),
        }
    }
}

/// Whether it is gone, or a zombie, within a moment.
fn gone(pid: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ") {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(EXIT_LOOK);
    }
}

#[test]
fn its_manners_are_its_own_and_those_of_what_it_starts() {
    let manners = Manners { nice: 7, idle_io: true };
    let script = shell("export PATH=/usr/bin:/bin; (nice); ionice", manners);
    let mut group = Group::start(script, Streams::Apart, Tail::default()).unwrap();
    let said = heard(&mut group);
    assert!(group.reap().unwrap().success());
    let own = Command::new("nice").output().unwrap().stdout;
    let own: i32 = String::from_utf8(own).unwrap().trim().parse().unwrap();
    assert_eq!(said, format!("{}\nidle\n", (own + 7).min(19)));
}

#[test]
fn it_dies_with_a_parent_that_cannot_clean_up() {
    let child = shell("exec sleep 600", Manners::default());
    let argv: Vec<_> = std::iter::once(child.get_program()).chain(child.get_args()).collect();
    assert!(Path::new(argv[0]).ends_with("setpriv"), "{argv:?}");
    let mut parent = Command::new("/bin/sh");
    parent.args(["-c", "\"$@\" & echo $!; wait", "sh"]).args(&argv).stdout(Stdio::piped());
    let mut parent = parent.spawn().unwrap();
    let mut pid = String::new();
    io::BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let command_line = format!("/proc/{}/cmdline", pid.trim());
    let end = Instant::now() + Duration::from_secs(10);
    while !std::fs::read(&command_line).is_ok_and(|line| line.starts_with(b"sleep")) {
        assert!(Instant::now() < end, "it never became what it was to be");
        std::thread::sleep(EXIT_LOOK);
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(gone(&pid));
}

#[test]
fn who_left_the_group_and_holds_its_pipes_is_not_waited_for() {
    let mut group = start("/usr/bin/setsid /bin/sleep 600 & echo $!");
    let begin = Instant::now();
    let pid = heard(&mut group);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(group.reap().unwrap().success());
    // It has a group of its own, and is this test's to end.
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
}

#[test]
fn a_dropped_one_is_ended_with_all_its_own() {
    let mut group = start("trap '' TERM; /bin/sleep 600 & echo $!; wait; exec /bin/sleep 601");
    let mut buffer = [0; 64];
    let pid = loop {
        if let Heard::Output(len) = group.listen(&mut buffer).unwrap() {
            break String::from_utf8(buffer[..len].to_vec()).unwrap();
        }
    };
    let leader = group.id.to_string();
    let begin = Instant::now();
    drop(group);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(gone(&pid) && gone(&leader));
}
