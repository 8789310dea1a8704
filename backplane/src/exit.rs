//! What travels when a device ends, and what stays.

use std::{any::Any, error::Error, fmt};

use crate::{
    id::DeviceId,
    label::Label,
    sync::Arc,
    unwind::{Panic, PanicLocation},
};

/// How a device ended.
///
/// ```
/// use backplane::{Device, Exit};
/// let managed = Device::new().manage(async { Ok::<(), ()>(()) });
/// assert!(futures_lite::future::block_on(managed).is_ok()); // who watched it hears `Normal`
/// assert_eq!(Exit::Normal.to_string(), "normal");
/// let fault = Exit::from(backplane::Fault::error("disk full"));
/// assert_eq!(fault.to_string(), "failed: disk full");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Normal,
    /// It was asked to stop, and did.
    Shutdown,
    /// All else. This is what cascades, and what restarts a transient child.
    Fault(Fault),
}

impl Exit {
    /// Whether this is a fault, which is the whole rule of a cascade.
    ///
    /// ```
    /// use backplane::{Exit, Fault};
    /// assert!(Exit::from(Fault::silent_error()).is_fault());
    /// assert!(!Exit::Normal.is_fault() && !Exit::Shutdown.is_fault());
    /// ```
    pub fn is_fault(&self) -> bool {
        matches!(self, Exit::Fault(_))
    }

    /// The fault, if it is one.
    ///
    /// ```
    /// use backplane::{Exit, Fault};
    /// assert_eq!(Exit::from(Fault::killed()).fault(), Some(&Fault::killed()));
    /// assert_eq!(Exit::Normal.fault(), None);
    /// ```
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Exit::Fault(fault) => Some(fault),
            Exit::Normal | Exit::Shutdown => None,
        }
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Exit {
        Exit::Fault(fault)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Normal => f.write_str("normal"),
            Exit::Shutdown => f.write_str("shutdown"),
            Exit::Fault(fault) => fault.fmt(f),
        }
    }
}

/// Which kind of fault.
///
/// ```
/// use backplane::{Device, FaultKind, LinkMode, Message};
/// let (mut a, b, gone) = (Device::new(), Device::new(), Device::new().line());
/// a.link(&b, LinkMode::Monitor);
/// drop(b);
/// a.link(&gone, LinkMode::Monitor);
/// for kind in [FaultKind::Dropped, FaultKind::Gone] {
///     let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
///     assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(kind));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The device was dropped without a word, or `manage` was dropped half-way.
    Dropped,
    /// The future returned an error.
    Error,
    /// The future panicked, or its destructor did.
    Panic,
    /// The device had been [condemned](crate::Line::condemn) when it was dropped.
    Killed,
    /// There was no such device any more when the link was made: OTP's `noproc`.
    Gone,
    /// The fault of this linked device took it along.
    Cascade(DeviceId),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Dropped => f.write_str("dropped"),
            FaultKind::Error => f.write_str("failed"),
            FaultKind::Panic => f.write_str("panicked"),
            FaultKind::Killed => f.write_str("killed"),
            FaultKind::Gone => f.write_str("gone"),
            FaultKind::Cascade(from) => write!(f, "taken down by device {from}"),
        }
    }
}

/// The part of an abnormal end that travels: its kind and, where known, words that any watcher can print.
///
/// No type of the user's is in it, and a clone costs at most a reference count. The words of a cascade are those of
/// its first cause, however long the chain.
///
/// ```
/// use backplane::{Fault, FaultKind};
/// let fault = Fault::error("disk full");
/// assert_eq!(fault.kind(), FaultKind::Error);
/// assert_eq!(fault.message(), Some("disk full"));
/// assert_eq!(fault.to_string(), "failed: disk full");
/// ```
#[derive(Clone)]
pub struct Fault {
    kind: FaultKind,
    words: Option<Arc<Words>>,
}

/// Shared by all who hear. Of a cascade: what its first cause said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    message: Option<Box<str>>,
    location: Option<PanicLocation>,
    label: Option<Arc<Label>>,
    /// Set once it has cascaded: who began, and how.
    first: Option<FirstCause>,
}

/// Who began a cascade, and how.
///
/// ```
/// use backplane::{Device, Fault, FaultKind, LinkMode, Message};
/// # use futures_lite::future::block_on;
/// let (first, second, mut third) = (Device::new(), Device::new(), Device::new());
/// let began = first.id();
/// second.link(&first, LinkMode::Monitor);
/// third.link(&second, LinkMode::Monitor);
/// first.disconnect(Fault::error("disk full").into());
/// let taken_along = second.manage(std::future::pending::<Result<(), ()>>());
/// assert!(block_on(taken_along).is_err());
/// let Some(Message::Disconnect(news)) = third.try_receive() else { panic!() };
/// let cause = news.exit.fault().and_then(Fault::first_cause).expect("it was a cascade");
/// assert_eq!((cause.device, cause.kind), (began, FaultKind::Error));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstCause {
    /// The device whose fault was the first.
    pub device: DeviceId,
    /// Its kind; never a cascade.
    pub kind: FaultKind,
}

impl Fault {
    pub(crate) const fn bare(kind: FaultKind) -> Fault {
        Fault { kind, words: None }
    }

    /// A fault of kind [`Error`](FaultKind::Error), with words.
    ///
    /// ```
    /// use backplane::Fault;
    /// assert_eq!(Fault::error(format_args!("{} left", 0)).message(), Some("0 left"));
    /// ```
    pub fn error(words: impl fmt::Display) -> Fault {
        Fault::spoken(FaultKind::Error, Words { message: Some(words.to_string().into()), ..Words::default() })
    }

    /// A fault of kind [`Error`](FaultKind::Error), without words.
    ///
    /// ```
    /// use backplane::{Fault, FaultKind};
    /// let fault = Fault::silent_error();
    /// assert_eq!((fault.kind(), fault.message()), (FaultKind::Error, None));
    /// ```
    pub fn silent_error() -> Fault {
        Fault::bare(FaultKind::Error)
    }

    /// A fault of kind [`Killed`](FaultKind::Killed).
    ///
    /// ```
    /// use backplane::{Fault, FaultKind};
    /// assert_eq!(Fault::killed().kind(), FaultKind::Killed);
    /// ```
    pub fn killed() -> Fault {
        Fault::bare(FaultKind::Killed)
    }

    /// A fault of kind [`Panic`](FaultKind::Panic), with the panic's words.
    ///
    /// ```
    /// use backplane::{Crash, Device, Fault};
    /// let managed = Device::new().manage(async { if true { panic!("no") } Ok::<(), ()>(()) });
    /// let Err(Crash::Panic(panic)) = futures_lite::future::block_on(managed) else { panic!() };
    /// assert_eq!(Fault::panic(&panic).to_string(), "panicked: no");
    /// ```
    pub fn panic(panic: &Panic) -> Fault {
        let (message, location) = (panic.message().map(Box::from), panic.location().cloned());
        if message.is_none() && location.is_none() {
            return Fault::bare(FaultKind::Panic);
        }
        Fault::spoken(FaultKind::Panic, Words { message, location, ..Words::default() })
    }

    /// What the fault of another becomes in the one it takes along: a cascade from it that keeps the words of the
    /// first cause. `None` where the other's end was clean: that is no fault.
    ///
    /// ```
    /// use backplane::{Device, Fault, FaultKind, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// b.disconnect(Fault::error("disk full").into());
    /// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
    /// let fault = Fault::cascade(&news).expect("it was a fault");
    /// assert_eq!(fault.kind(), FaultKind::Cascade(news.device));
    /// assert_eq!(fault.message(), Some("disk full")); // those of the first cause
    /// ```
    pub fn cascade(from: &Disconnect) -> Option<Fault> {
        let fault = from.exit.fault()?;
        let kind = FaultKind::Cascade(from.device);
        let words = match &fault.words {
            Some(words) if words.first.is_some() => Arc::clone(words),
            other => {
                let said = other.as_deref();
                Arc::new(Words {
                    message: said.and_then(|words| words.message.clone()),
                    location: said.and_then(|words| words.location.clone()),
                    label: said.and_then(|words| words.label.clone()),
                    first: Some(FirstCause { device: from.device, kind: fault.kind }),
                })
            }
        };
        Some(Fault { kind, words: Some(words) })
    }

    fn spoken(kind: FaultKind, words: Words) -> Fault {
        Fault { kind, words: Some(Arc::new(words)) }
    }

    /// Says whose fault it is, for people. Of a cascade the first cause keeps its name.
    pub(crate) fn named(mut self, label: Arc<Label>) -> Fault {
        if matches!(self.kind, FaultKind::Cascade(_)) {
            return self;
        }
        let words = match self.words.take().map(Arc::try_unwrap) {
            Some(Ok(words)) => Words { label: Some(label), ..words },
            Some(Err(shared)) => Words {
                message: shared.message.clone(),
                location: shared.location.clone(),
                label: Some(label),
                first: shared.first,
            },
            None => Words { label: Some(label), ..Words::default() },
        };
        Fault::spoken(self.kind, words)
    }

    /// Which kind.
    ///
    /// ```
    /// use backplane::{Fault, FaultKind};
    /// assert_eq!(Fault::error("no").kind(), FaultKind::Error);
    /// ```
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// A panic's message, or an error's words where it was [asked for them](crate::Manage::describe). Of a cascade:
    /// its first cause's.
    ///
    /// ```
    /// use backplane::Fault;
    /// assert_eq!(Fault::error("disk full").message(), Some("disk full"));
    /// assert_eq!(Fault::killed().message(), None);
    /// ```
    pub fn message(&self) -> Option<&str> {
        self.words.as_ref()?.message.as_deref()
    }

    /// Where the panic was, if [`catch_panic_locations`](crate::catch_panic_locations) was called before it. Of a
    /// cascade: where its first cause's was.
    ///
    /// ```
    /// use backplane::Fault;
    /// assert_eq!(Fault::error("no panic").location(), None);
    /// ```
    pub fn location(&self) -> Option<&PanicLocation> {
        self.words.as_ref()?.location.as_ref()
    }

    /// The label of the device whose fault it is, if it had one. Of a cascade: its first cause's.
    ///
    /// ```
    /// use backplane::{Device, Exit, Fault, Label, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::labelled("writer"));
    /// a.link(&b, LinkMode::Monitor);
    /// b.disconnect(Fault::error("disk full").into());
    /// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
    /// let label = news.exit.fault().and_then(Fault::label);
    /// assert_eq!(label.map(Label::name), Some("writer"));
    /// ```
    pub fn label(&self) -> Option<&Label> {
        self.words.as_ref()?.label.as_deref()
    }

    /// Of a cascade: who began it, and how. `None` for every other kind.
    ///
    /// ```
    /// use backplane::{Device, Fault, FaultKind, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// b.disconnect(Fault::error("disk full").into());
    /// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
    /// let first = Fault::cascade(&news).and_then(|fault| fault.first_cause()).expect("it was a fault");
    /// assert_eq!((first.device, first.kind), (news.device, FaultKind::Error));
    /// ```
    pub fn first_cause(&self) -> Option<FirstCause> {
        self.words.as_ref()?.first
    }
}

impl PartialEq for Fault {
    fn eq(&self, other: &Fault) -> bool {
        self.kind == other.kind && self.words == other.words
    }
}

impl Eq for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(label), None) = (self.label(), self.first_cause()) {
            write!(f, "{label} ")?;
        }
        self.kind.fmt(f)?;
        if let Some(first) = self.first_cause() {
            match self.label() {
                Some(label) => write!(f, ", after {label} {}", first.kind)?,
                None => write!(f, ", after device {} {}", first.device, first.kind)?,
            }
        }
        if let Some(message) = self.message() {
            write!(f, ": {message}")?;
        }
        if let Some(location) = self.location() {
            write!(f, " ({location})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({self})")
    }
}

impl Error for Fault {}

/// A device ended: OTP's `DOWN`.
///
/// Only a real end makes one, so that nobody can forge another's.
///
/// ```
/// use backplane::{Device, Exit, LinkMode, Message};
/// let (mut a, b) = (Device::new(), Device::new());
/// let id = b.id();
/// a.link(&b, LinkMode::Monitor.tag(7));
/// b.disconnect(Exit::Normal);
/// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
/// assert_eq!((news.device, &news.exit, news.tag), (id, &Exit::Normal, 7));
/// assert_eq!(news.to_string(), format!("device {id} ended: normal"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnect {
    /// Who.
    pub device: DeviceId,
    /// How.
    pub exit: Exit,
    /// The tag that the watcher chose for the link, or zero.
    pub tag: u64,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ended: {}", self.device, self.exit)
    }
}

/// What a device is told.
///
/// ```
/// use backplane::{Device, LinkMode, Message};
/// let (mut a, b) = (Device::new(), Device::new());
/// a.link(&b, LinkMode::Monitor);
/// let id = b.id();
/// a.line().shutdown(id);
/// drop(b);
/// assert_eq!(a.try_receive(), Some(Message::Shutdown(id)));
/// assert!(matches!(a.try_receive(), Some(Message::Disconnect(news)) if news.device == id));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A device that it watches has ended.
    Disconnect(Disconnect),
    /// Somebody asks it to stop; the id is that of who asks, as given.
    Shutdown(DeviceId),
}

/// The part of an abnormal end that stays with the owner of [`manage`](crate::Device::manage): the typed error, the
/// panic's payload, the news.
///
/// The fault travels with its words, the crash stays with its things.
///
/// ```
/// use backplane::{Crash, Device};
/// # use futures_lite::future::block_on;
/// let failed = Device::new().manage(async { Err::<(), _>("disk full") });
/// assert!(matches!(block_on(failed), Err(Crash::Error("disk full")))); // the error itself
///
/// let asked = Device::new();
/// let me = Device::new().id();
/// asked.line().shutdown(me);
/// let stopped = asked.manage(std::future::pending::<Result<(), ()>>());
/// assert!(matches!(block_on(stopped), Err(Crash::Shutdown(by)) if by == me));
/// ```
#[derive(Debug)]
pub enum Crash<E> {
    /// The future returned this error.
    Error(E),
    /// The future, or its destructor, panicked.
    Panic(Panic),
    /// A linked device faulted and took it along.
    Cascade(Disconnect),
    /// It was asked to stop, by the device with this id.
    Shutdown(DeviceId),
}

impl<E> Crash<E> {
    /// The error, if it was one.
    ///
    /// ```
    /// use backplane::{Crash, Device};
    /// let managed = Device::new().manage(async { Err::<(), _>("disk full") });
    /// let crash = futures_lite::future::block_on(managed).unwrap_err();
    /// assert_eq!(crash.into_error(), Some("disk full"));
    /// ```
    pub fn into_error(self) -> Option<E> {
        match self {
            Crash::Error(error) => Some(error),
            Crash::Panic(_) | Crash::Cascade(_) | Crash::Shutdown(_) => None,
        }
    }

    /// What the watchers are told, without the words of an error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Crash::Error(_) => Exit::Fault(Fault::silent_error()),
            Crash::Panic(panic) => Exit::Fault(Fault::panic(panic)),
            Crash::Cascade(news) => Fault::cascade(news).map_or(Exit::Shutdown, Exit::Fault),
            Crash::Shutdown(_) => Exit::Shutdown,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Crash<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crash::Error(error) => error.fmt(f),
            Crash::Panic(panic) => panic.fmt(f),
            Crash::Cascade(news) => news.fmt(f),
            Crash::Shutdown(by) => write!(f, "asked to stop by device {by}"),
        }
    }
}

impl<E: Error + 'static> Error for Crash<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Crash::Error(error) => error.source(),
            Crash::Cascade(news) => news.exit.fault().map(|fault| fault as &(dyn Error + 'static)),
            Crash::Panic(_) | Crash::Shutdown(_) => None,
        }
    }
}

/// Only here to say that a fault can go anywhere.
const _: fn() = || {
    fn goes_anywhere<T: Any + Send + Sync>() {}
    goes_anywhere::<Exit>();
    goes_anywhere::<Crash<()>>();
};
