//! Why an object did not reach its store.

/// An upload's failure. The texts go to the server and into logs: host and path, never the query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The order's URL cannot be used.
    #[error("the run's upload URL cannot be used: {reason}")]
    BadUrl {
        /// Without the URL.
        reason: &'static str,
    },
    /// Clear text.
    #[error(
        "the run's upload URL ({place}) is http, which would show its authorisation to the network: the server must give an https URL, or server.allow_insecure must be set here"
    )]
    Insecure {
        /// Host and path.
        place: String,
    },
    /// Nothing to check the store's certificate with.
    #[error("no certificate authorities for the upload: {cause}")]
    Roots {
        /// What was tried.
        cause: String,
    },
    /// There is no way to the store, and none will come by itself.
    #[error("no way to the store for the upload to {place}: {cause}")]
    Unreachable {
        /// Host and path.
        place: String,
        /// What stands in it, and what to do.
        cause: String,
    },
    /// The store said no, and will again.
    #[error("the store refused the upload to {place}: {answer}{hint}")]
    Refused {
        /// Host and path.
        place: String,
        /// Status and the store's error code.
        answer: String,
        /// What can be done, in parentheses.
        hint: &'static str,
    },
    /// The store says that the URL's time is over, and no other one came that it took.
    #[error(
        "the store refused the upload to {place}: {answer}: its URL is too old{until}, and no fresh one came or helped: the server must sign for longer, or its clock and the store's differ"
    )]
    TooOld {
        /// Host and path.
        place: String,
        /// Status and the store's error code.
        answer: String,
        /// In parentheses, where the URL says it.
        until: String,
    },
    /// Redirects are not followed: the signature is for this place.
    #[error(
        "the store redirected the upload to {place} elsewhere ({status}{to}), which is not followed: the server must sign URLs of the right region"
    )]
    Redirected {
        /// Host and path.
        place: String,
        /// HTTP.
        status: u16,
        /// ` to host`, where it was said.
        to: String,
    },
    /// Tries failed until the end of the URL's life.
    #[error("{}", expired_text(place, at, *tries, last))]
    Expired {
        /// Host and path.
        place: String,
        /// For people.
        at: String,
        /// 0 where it was too late before the first.
        tries: u32,
        /// Why the last one failed.
        last: String,
    },
    /// Nobody gave more URLs.
    #[error(
        "the URLs of the upload to {place} expired at {at} before the object was through, and the server gave no fresh ones: it must sign them for longer"
    )]
    UrlsExpired {
        /// Host and path.
        place: String,
        /// For people.
        at: String,
    },
    /// The object outgrew its URLs.
    #[error(
        "the object needs more than the {signed} parts that the server signed, and it gave no more URLs: it must sign more parts, or larger ones"
    )]
    TooManyParts {
        /// How many there were.
        signed: u64,
    },
    /// The upload's URLs are used up, and no other ones came.
    #[error("{why}; {waited}")]
    NotRenewed {
        /// What they were needed for.
        why: Box<UploadError>,
        /// Of the server, for people.
        waited: String,
    },
    /// The parts so far belong to an upload that is no more.
    #[error("the server began another multipart upload for this run: the parts that the store has are lost")]
    OtherUpload,
    /// The store took every part and did not put them together.
    #[error("the store at {place} did not put the object together: {what}")]
    NotCompleted {
        /// Host and path.
        place: String,
        /// Its code.
        what: String,
    },
    /// The store may have put the parts together; its answer was lost, and it knows the upload no more.
    #[error(
        "the object at {place} may be stored, and that could not be proved: the answer to its completion was lost, the store would not complete it again, and {why}; look for the object there, and order another run"
    )]
    Unproven {
        /// Host and path.
        place: String,
        /// Why it is not known.
        why: String,
    },
    /// The upload must go in parts.
    #[error(
        "backup.spool is \"never\", and the server offers no multipart upload: let the server offer it, or set backup.spool to \"auto\""
    )]
    NoMultipart,
    /// The store has other bytes than we sent.
    #[error("the store at {place} keeps something else than was sent: {what}")]
    Mismatch {
        /// Host and path.
        place: String,
        /// Which checksum.
        what: String,
    },
}

impl UploadError {
    /// The store knows no such upload in parts, or not any more.
    pub fn is_no_such_upload(&self) -> bool {
        matches!(self, Self::Refused { answer, .. } if answer.ends_with(" NoSuchUpload"))
    }

    /// What the store had of the upload is lost, or cannot be told from that: where the object is still here, it can go
    /// up again.
    pub fn is_lost_upload(&self) -> bool {
        self.is_no_such_upload() || matches!(self, Self::OtherUpload | Self::Unproven { .. })
    }
}

fn expired_text(place: &str, at: &str, tries: u32, last: &str) -> String {
    match tries {
        0 => format!(
            "the upload URL ({place}) expired at {at} by this host's clock, before the run could begin"
        ),
        1 => format!(
            "the upload to {place} failed: {last}; its URL lives until {at}, too short for a second try"
        ),
        _ => format!(
            "the upload to {place} failed {tries} times until its URL expired at {at}; the last time: {last}"
        ),
    }
}
