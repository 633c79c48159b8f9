//! What `decrypt` and `verify` share: token and object in, plaintext out, every fault told apart.

mod decompress;
mod failure;
mod input;
mod key;
mod target;

pub use failure::Failure;
pub use key::{Key, read_key};
pub use target::Target;

use super::files::Named;
use super::progress::Progress;
use crate::model::{Secret, unix_ms};
use crate::object::{Digest, HashingReader, Opener, Order, Token};
use clap::{ArgAction, ArgGroup, Args};
use decompress::{Body, Encoding};
use serde::Serialize;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// How much plaintext is taken and written at once: large enough that system calls cost nothing.
const COPY_LEN: usize = 256 * 1024;

/// Which object, with which token, checked how.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("any-key").args(["token", "token_file", "key_file"]).required(true).multiple(false))]
#[command(group = ArgGroup::new("any-object").args(["input", "object"]).required(true).multiple(false))]
pub struct OpeningArgs {
    /// The decryption token. Other users of this host see it in the list of processes; --token-file hides it.
    #[arg(long, value_name = "JWT", value_parser = secret)]
    token: Option<Secret>,
    /// Read the decryption token from a file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Instead of a token, a file with the key itself: 32 bytes as they are, in base64 or in hex, as `backup --key-out`
    /// writes it; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The encrypted object; `-` is standard input.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// The same as --in FILE.
    #[arg(value_name = "FILE")]
    object: Option<PathBuf>,
    /// Hold the object against the SHA-256 that the token carries; `--verify-sha256=false` does not.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true")]
    verify_sha256: bool,
    /// Leave the content as it is. Without this a zstd or gzip stream is known by its first bytes and unpacked.
    #[arg(long)]
    skip_decompress: bool,
    /// Open objects of other writers, whose frames carry no order. Then only the SHA-256 notices a frame that was
    /// dropped, doubled or moved.
    #[arg(long)]
    allow_unordered: bool,
    /// No progress bar and no summary: only errors, and warnings about what could not be checked.
    #[arg(long, short)]
    pub quiet: bool,
    /// Print the result, or the error, as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Kept as a [`Secret`], so that no `Debug` of the arguments shows it.
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text))
}

/// What is known of an object that opened, to its end.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The run that made it, as the token says; none with a key file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Of the object, framing included.
    pub object_bytes: u64,
    /// Frames that were opened.
    pub frames: u64,
    /// Of what was sealed.
    pub sealed_bytes: u64,
    /// `zstd`, `gzip`, or `none` where it was left as it is.
    pub compression: &'static str,
    /// What came out.
    pub content_bytes: u64,
    /// Of the object, lower-case hex.
    pub sha256: String,
    /// The token carries a SHA-256, and it is this one.
    pub sha256_matches_token: bool,
    /// Each frame was in its place.
    pub order_checked: bool,
}

impl OpeningArgs {
    fn input(&self) -> &Path {
        // One of them is there: the command line is read so.
        self.input.as_deref().or(self.object.as_deref()).unwrap_or(Path::new("-"))
    }

    /// What the object is called in messages.
    pub fn input_name(&self) -> String {
        input::name(self.input())
    }

    /// The object's file; None for standard input.
    pub fn input_file(&self) -> Option<&Path> {
        Some(self.input()).filter(|input| !input::is_std(input))
    }

    /// The files that are read.
    pub fn files(&self) -> [Named<'_>; 3] {
        [
            ("the object", Some(self.input())),
            ("the key", self.key_file.as_deref()),
            ("the token", self.token_file.as_deref()),
        ]
    }

    /// Reads the token, and holds its claims against this host's clock; or the key.
    ///
    /// # Errors
    /// 65 for a token that does not hold or a file that is no key, 66 for a file that cannot be read, 64 when both are
    /// to come by standard input.
    pub fn read_key(&self) -> Result<Key, Failure> {
        if let Some(file) = &self.key_file {
            if input::is_std(file) && input::is_std(self.input()) {
                return Err(Failure::Usage("--key-file and --in cannot both be standard input"));
            }
            return Ok(Key::Bare(read_key(file)?));
        }
        Ok(Key::Token(Box::new(self.read_token()?)))
    }

    fn read_token(&self) -> Result<Token, Failure> {
        if self.token_file.as_deref().is_some_and(input::is_std) && input::is_std(self.input()) {
            return Err(Failure::Usage("--token-file and --in cannot both be standard input"));
        }
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => return Ok(Token::parse(token.expose(), unix_ms() / 1000)?),
            (None, Some(file)) => input::read_token(file)?,
            (None, None) => return Err(Failure::Usage("--token or --token-file is needed")),
        };
        Ok(Token::parse(&text, unix_ms() / 1000)?)
    }

    /// Opens the object into `output`. What was written before an error is authentic, but not whole: the caller
    /// throws it away where it can.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn open_into(&self, key: &Key, output: &mut dyn Write) -> Result<Report, Failure> {
        let (object, size) = input::open(self.input())?;
        let progress = if self.quiet { Progress::hidden() } else { Progress::bytes(size) };
        let order = if self.allow_unordered { Order::AllowUnordered } else { Order::Strict };
        let reader = HashingReader::new(progress.reader(object));
        let mut opener = Opener::new(reader, key.dek()?, order).map_err(Failure::Internal)?;

        let unpacked = match unpack(&mut opener, self.skip_decompress, output) {
            // Content that does not unpack may be the first sign of an object that is not what it was; then the
            // object's own end says it better.
            unpacked @ (Ok(_) | Err(Failure::Content { .. })) => unpacked,
            Err(failure) => return Err(failure),
        };
        let digest = self.check_end(&mut opener, key)?;
        let (encoding, content_bytes) = unpacked?;
        progress.finish();
        Ok(Report {
            run_id: key.run_id().map(str::to_owned),
            object_bytes: opener.object_bytes(),
            frames: opener.frames(),
            sealed_bytes: opener.plaintext_bytes(),
            compression: encoding.name(),
            content_bytes,
            sha256: digest.to_string(),
            sha256_matches_token: key.sha256() == Some(digest),
            order_checked: order == Order::Strict,
        })
    }

    /// Reads what is left of the object, so that its end is checked, and then its SHA-256.
    fn check_end<R: Read>(
        &self,
        opener: &mut Opener<HashingReader<R>>,
        key: &Key,
    ) -> Result<Digest, Failure> {
        while opener.next_chunk().map_err(Failure::Object)?.is_some() {}
        let found = opener.get_ref().digest();
        match key.sha256() {
            Some(expected) if self.verify_sha256 && expected != found => {
                Err(Failure::Sha256 { expected, found })
            }
            Some(_) | None => Ok(found),
        }
    }

    /// What the user must know of checks that were not made.
    pub fn warning(&self, report: &Report) -> Option<&'static str> {
        if report.sha256_matches_token {
            return None;
        }
        match (report.order_checked, self.verify_sha256) {
            (false, true) => Some(
                "no SHA-256 is known and the frames' order was not checked: a frame that was dropped, \
                 doubled or moved would go unnoticed",
            ),
            (false, false) => Some(
                "neither the SHA-256 nor the frames' order was checked: a frame that was dropped, doubled or moved \
                 would go unnoticed",
            ),
            // The frames' sequence tells everything that the digest would.
            (true, _) => None,
        }
    }
}

/// Gives the object's content to `output`, unpacked where it is packed and `as_it_is` does not forbid it.
fn unpack(
    object: &mut impl Read,
    as_it_is: bool,
    output: &mut dyn Write,
) -> Result<(Encoding, u64), Failure> {
    let mut body = if as_it_is { Body::plain(object) } else { Body::sniff(object)? };
    let mut buffer = vec![0; COPY_LEN];
    let mut copied = 0;
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            return Ok((body.encoding(), copied));
        }
        output.write_all(buffer.get(..read).unwrap_or_default()).map_err(Failure::Write)?;
        copied += read as u64;
    }
}
