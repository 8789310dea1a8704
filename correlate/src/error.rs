//! Why a run stopped before its end, in words for whoever started it.

use std::{fmt, io, path::PathBuf};

/// What stops a run. A broken line is not among them, unless `--strict` says so.
#[derive(Debug)]
pub(crate) enum Error {
    /// A file or folder would not do what was asked of it.
    File {
        /// What was asked, as a verb: "read", "write".
        verb: &'static str,
        /// Of which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A broken line, under `--strict`.
    Broken {
        /// The file's name.
        file: String,
        /// The line, counted from one.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A file of a log is not as it was written.
    Corrupt {
        /// Which.
        path: PathBuf,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// What this process worked on has been given to another, or is about to be.
    #[cfg(feature = "kafka")]
    Taken,
    /// The producer of transactions can do nothing more, and another has to take its place.
    #[cfg(feature = "kafka")]
    Fenced(String),
    /// Options and data that cannot go together, in a whole sentence.
    Request(String),
    /// A worker that ended again and again, though nobody killed it: its supervisor has given up.
    Worker {
        /// Which one, or one of which.
        name: String,
        /// How often.
        times: u64,
        /// How it ended the last time.
        exit: String,
    },
}

impl Error {
    /// The system refused something; to be curried into `map_err`.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { verb, path, source }
    }
}

/// What whoever started the run can do about it.
fn remedy(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Some("make room and start again")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some("allow it, or name another folder")
        }
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { verb, path, source } => {
                write!(f, "cannot {verb} {}: {source}", path.display())?;
                remedy(source.kind()).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Error::Broken { file, line, why } => write!(f, "{file}:{line}: {why} (and --strict was given)"),
            Error::Corrupt { path, offset, why } => {
                write!(
                    f,
                    "{} is damaged at byte {offset}: {why}; it is left as it is: put it back from a copy, or begin anew in \
                     another folder",
                    path.display()
                )
            }
            #[cfg(feature = "kafka")]
            Error::Fenced(words) => write!(f, "the producer is of no use any more: {words}"),
            #[cfg(feature = "kafka")]
            Error::Taken => f.write_str("the group has given its partitions to others"),
            Error::Request(words) => f.write_str(words),
            Error::Worker { name, times, exit } => {
                write!(f, "{name} ended {times} times though nobody killed it; the last time it {exit}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } => Some(source),
            #[cfg(feature = "kafka")]
            Error::Taken | Error::Fenced(_) => None,
            Error::Broken { .. } | Error::Corrupt { .. } | Error::Request(_) | Error::Worker { .. } => None,
        }
    }
}
