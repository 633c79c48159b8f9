//! Keys and passwords are in this process's memory: who must not read it, and where it must not go.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Pages are locked when they are first touched: nothing is made resident that would not be. The kernel's number, on
/// every architecture that this agent is built for; nix has no name for it.
const MCL_ONFAULT: i32 = 4;

/// The bit of `CapEff` that lifts the limit of locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// No core file, no debugger of the same user, and no page in a swap where the host lets a process say so.
pub fn keep_memory_private() {
    let sealed = set_dumpable(false).and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = sealed {
        tracing::warn!(%error, "core files could not be switched off: after a crash they may hold secrets");
    }
    if may_lock() {
        let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
        if let Err(error) = mlockall(flags | MlockAllFlags::from_bits_retain(MCL_ONFAULT)) {
            tracing::debug!(%error, "memory is not locked: it may be swapped out");
        }
    }
}

/// Only without a limit: below one, whatever is allocated past it would fail, and end the agent.
fn may_lock() -> bool {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(limit, _)| limit == RLIM_INFINITY);
    unlimited || std::fs::read_to_string("/proc/self/status").is_ok_and(|status| has_ipc_lock(&status))
}

fn has_ipc_lock(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_read_out_of_the_kernels_words() {
        assert!(has_ipc_lock("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(has_ipc_lock("CapEff:\t000001ffffffffff\n"));
        assert!(!has_ipc_lock("CapEff:\t000001ffffffbfff\nCapBnd:\t000001ffffffffff\n"));
        assert!(!has_ipc_lock("CapEff:\t\n") && !has_ipc_lock(""));
    }
}
