//! Whether a sealed object is on the disk before it goes up.

/// `backup.spool`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolUse {
    /// Only where the server offers no upload in parts: a large database then needs no room of its own. What the store
    /// does not take for a while waits there, too.
    #[default]
    Auto,
    /// Always: the database is read as fast as it can be, and after a restart only the upload goes on.
    Always,
    /// Never: a run for which the server offers no upload in parts fails, and a dump waits for its store.
    Never,
}

impl SpoolUse {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }

    /// The one of that name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(name))
    }
}
