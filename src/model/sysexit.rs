//! Exit codes of the process, after sysexits.

/// How the process ends, as scripts and init systems tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SysExit {
    /// All is well.
    Ok = 0,
    /// Asked for in a wrong way: flags, arguments.
    Usage = 64,
    /// What was given is wrong: a damaged object, a token that does not fit.
    Data = 65,
    /// What should be read is not there.
    NoInput = 66,
    /// A service that is needed does not answer: no agent runs.
    Unavailable = 69,
    /// A fault of this program.
    Internal = 70,
    /// An output cannot be made.
    CannotCreate = 73,
    /// Reading or writing failed on the way.
    Io = 74,
    /// Trying again later can help: another agent has the state directory.
    Temporary = 75,
    /// The system does not allow it.
    NoPermission = 77,
    /// The configuration is wrong: the init system must not try again.
    Config = 78,
}

impl SysExit {
    /// The number that the kernel hands to the parent.
    pub fn code(self) -> u8 {
        self as u8
    }
}
