//! The host's numbers for a heartbeat: two small files of `/proc` and one `statvfs`, tens of
//! microseconds. A full process or disk scan would cost more CPU than everything else an idle agent does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The lines that count stand in the first hundred bytes; both files are a few KiB at most there.
const READ_BYTES: usize = 2048;

/// Where the kernel shows its numbers.
const PROC: &str = "/proc";

/// One reading. A number that could not be had is 0, as the contract has no other word for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostReading {
    /// Of all cores, since the reading before, 0 to 100.
    pub cpu_percent: f32,
    /// In use, caches that can be given back not counted.
    pub mem_used_bytes: u64,
    /// Of the host.
    pub mem_total_bytes: u64,
    /// Of the file system that holds the state directory.
    pub disk_used_bytes: u64,
    /// Of that file system.
    pub disk_total_bytes: u64,
}

/// Reads the host's numbers. Keeps what the CPU had done at the last reading.
#[derive(Debug)]
pub struct HostProbe {
    proc_dir: PathBuf,
    disk: PathBuf,
    last_cpu: Option<CpuTimes>,
}

impl HostProbe {
    /// Looks at the disk that holds `disk`. The CPU is counted from here on.
    pub fn new(disk: &Path) -> Self {
        Self::with_proc(Path::new(PROC), disk)
    }

    fn with_proc(proc_dir: &Path, disk: &Path) -> Self {
        let mut probe = Self { proc_dir: proc_dir.to_owned(), disk: disk.to_owned(), last_cpu: None };
        probe.last_cpu = probe.cpu_times();
        probe
    }

    /// The numbers now.
    pub fn read(&mut self) -> HostReading {
        let cpu = self.cpu_times();
        let cpu_percent = match (self.last_cpu, cpu) {
            (Some(before), Some(now)) => now.percent_since(before),
            (None, Some(_)) | (Some(_), None) | (None, None) => 0.0,
        };
        self.last_cpu = cpu.or(self.last_cpu);
        let (mem_used_bytes, mem_total_bytes) =
            self.head_of("meminfo").as_deref().and_then(memory).unwrap_or_default();
        let (disk_used_bytes, disk_total_bytes) = disk_usage(&self.disk).unwrap_or_default();
        HostReading { cpu_percent, mem_used_bytes, mem_total_bytes, disk_used_bytes, disk_total_bytes }
    }

    fn cpu_times(&self) -> Option<CpuTimes> {
        self.head_of("stat").as_deref().and_then(CpuTimes::parse)
    }

    fn head_of(&self, name: &str) -> Option<String> {
        let mut buffer = [0; READ_BYTES];
        let read = File::open(self.proc_dir.join(name)).ok()?.read(&mut buffer).ok()?;
        String::from_utf8(buffer.get(..read)?.to_vec()).ok()
    }
}

/// The first line of `/proc/stat`, in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

impl CpuTimes {
    /// Fields: user nice system idle iowait irq softirq steal, then guest times that user already has.
    fn parse(stat: &str) -> Option<Self> {
        const IDLE: usize = 3;
        const IOWAIT: usize = 4;
        const COUNTED: usize = 8;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks =
            line.split_whitespace().take(COUNTED).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        let total = ticks.iter().sum::<u64>();
        let idle = ticks.get(IDLE)? + ticks.get(IOWAIT).copied().unwrap_or(0);
        Some(Self { busy: total - idle, total })
    }

    /// The kernel lets iowait run backwards, so neither difference is sure to be positive.
    fn percent_since(self, before: Self) -> f32 {
        let total = self.total.saturating_sub(before.total);
        let busy = self.busy.saturating_sub(before.busy).min(total);
        if total == 0 { 0.0 } else { (busy as f64 / total as f64 * 100.0) as f32 }
    }
}

/// Used and total bytes of `/proc/meminfo`.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let kib = |key: &str| -> Option<u64> {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let total = kib("MemTotal:")?;
    let available = kib("MemAvailable:").or_else(|| kib("MemFree:"))?;
    Some((total.saturating_sub(available) * 1024, total * 1024))
}

/// Used and total bytes of the file system that holds `path`.
fn disk_usage(path: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let fragment: u64 = stat.fragment_size();
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    Some((used.saturating_mul(fragment), stat.blocks().saturating_mul(fragment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::{Duration, Instant};

    const MEMINFO: &str = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   6000 kB\n";

    #[test]
    fn cpu_is_what_was_not_idle_since_the_last_reading() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stat"), "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2\n").unwrap();
        fs::write(dir.path().join("meminfo"), MEMINFO).unwrap();
        let mut probe = HostProbe::with_proc(dir.path(), dir.path());
        fs::write(dir.path().join("stat"), "cpu  130 0 110 850 10 0 0 0 0 0\ncpu0 1 2\n").unwrap();
        let reading = probe.read();
        // 40 of 100 ticks were neither idle nor waiting for the disk.
        assert_eq!(reading.cpu_percent, 40.0);
        assert_eq!((reading.mem_used_bytes, reading.mem_total_bytes), (2000 * 1024, 8000 * 1024));
        assert_eq!(probe.read().cpu_percent, 0.0);
    }

    #[test]
    fn times_that_run_backwards_never_leave_the_range() {
        let before = CpuTimes { busy: 500, total: 1000 };
        for now in [
            CpuTimes { busy: 400, total: 1100 },
            CpuTimes { busy: 700, total: 1100 },
            CpuTimes { busy: 1, total: 2 },
        ] {
            let percent = now.percent_since(before);
            assert!((0.0..=100.0).contains(&percent), "{now:?} gave {percent}");
        }
    }

    #[test]
    fn a_host_without_proc_still_has_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let reading = HostProbe::with_proc(&dir.path().join("none"), dir.path()).read();
        assert_eq!((reading.cpu_percent, reading.mem_total_bytes), (0.0, 0));
        assert!(reading.disk_total_bytes > 0);
    }

    #[test]
    fn this_host_is_read_in_well_under_a_millisecond() {
        let dir = tempfile::tempdir().unwrap();
        let mut probe = HostProbe::new(dir.path());
        let mut best = Duration::MAX;
        for _ in 0..50 {
            let begin = Instant::now();
            let reading = probe.read();
            best = best.min(begin.elapsed());
            assert!(reading.mem_used_bytes > 0 && reading.mem_used_bytes < reading.mem_total_bytes);
            assert!(reading.disk_used_bytes <= reading.disk_total_bytes && reading.disk_total_bytes > 0);
            assert!((0.0..=100.0).contains(&reading.cpu_percent));
        }
        assert!(best < Duration::from_millis(1), "a reading took {best:?}");
    }
}
