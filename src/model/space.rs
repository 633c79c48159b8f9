//! Free space of a file system, and how much of it is kept for what was promised already.

/// What a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A file system that is not at least this many quarters of the guard could never satisfy it.
const SMALL_QUARTERS: u64 = 5;

/// Of such a small file system, one part in so many is kept.
const SMALL_SHARE: u64 = 8;

impl Space {
    /// Bytes that must stay free where `min_free` are asked for. A file system that is hardly larger than
    /// that would refuse everything for ever: there an eighth of it is kept.
    pub fn to_keep(self, min_free: u64) -> u64 {
        if self.total < min_free / 4 * SMALL_QUARTERS { self.total / SMALL_SHARE } else { min_free }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_smaller_than_the_guard_keeps_a_share_of_itself() {
        const MIB: u64 = 1 << 20;
        let keep = |total: u64| Space { free: 0, total: total * MIB }.to_keep(64 * MIB) / MIB;
        assert_eq!([keep(1000), keep(80), keep(72), keep(8)], [64, 64, 9, 1]);
        assert_eq!(Space { free: 0, total: MIB }.to_keep(0), 0, "switched off");
    }
}
