//! Panics as values.

use std::{
    any::Any,
    cell::RefCell,
    error::Error,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a panic threw, kept whole for the owner of the future that panicked.
///
/// Dropping it drops the payload; a payload that itself panics when dropped does no harm.
///
/// ```
/// use backplane::catch;
/// let panic = catch(|| panic!("{} left", 0)).unwrap_err();
/// assert_eq!(panic.message(), Some("0 left"));
/// assert_eq!(panic.to_string(), "panicked: 0 left");
/// ```
pub struct Panic {
    /// In a mutex only so that a crash may be shared between threads: a payload need not be `Sync`.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    message: Option<Box<str>>,
    location: Option<PanicLocation>,
}

impl Panic {
    fn new(payload: Box<dyn Any + Send>) -> Panic {
        let message: Option<Box<str>> =
            match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
                (Some(words), _) => Some(Box::from(*words)),
                (None, Some(words)) => Some(Box::from(words.as_str())),
                (None, None) => None,
            };
        let location = last_location(message.as_deref());
        Panic { payload: Mutex::new(Some(payload)), message, location }
    }

    /// What `panic!` was given to say, if it was words.
    ///
    /// ```
    /// use backplane::{Crash, Device};
    /// let managed = Device::new().manage(async { if true { panic!("no") } Ok::<(), ()>(()) });
    /// let Err(Crash::Panic(panic)) = futures_lite::future::block_on(managed) else { panic!() };
    /// assert_eq!(panic.message(), Some("no"));
    /// ```
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Where it happened, if [`catch_panic_locations`] was called before.
    ///
    /// ```
    /// use backplane::{Crash, Device};
    /// let managed = Device::new().manage(async { if true { panic!("no") } Ok::<(), ()>(()) });
    /// let Err(Crash::Panic(panic)) = futures_lite::future::block_on(managed) else { panic!() };
    /// assert_eq!(panic.location(), None); // nobody has asked for it
    /// ```
    pub fn location(&self) -> Option<&PanicLocation> {
        self.location.as_ref()
    }

    /// The payload, as `std::panic::catch_unwind` gives it.
    ///
    /// ```
    /// use backplane::{Crash, Device};
    /// let managed = Device::new().manage(async { if true { std::panic::panic_any(7_u8) } Ok::<(), ()>(()) });
    /// let Err(Crash::Panic(panic)) = futures_lite::future::block_on(managed) else { panic!() };
    /// assert_eq!(panic.into_payload().downcast_ref(), Some(&7_u8));
    /// ```
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        match self.take() {
            Some(payload) => payload,
            // Only `drop` takes it too, and it has not run.
            None => Box::new(()),
        }
    }

    /// Goes on panicking, here, with the same payload and without asking the panic hook again.
    ///
    /// ```
    /// use backplane::{Crash, Device};
    /// let managed = Device::new().manage(async { if true { panic!("no") } Ok::<(), ()>(()) });
    /// let Err(Crash::Panic(panic)) = futures_lite::future::block_on(managed) else { panic!() };
    /// let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panic.resume()));
    /// assert!(again.is_err());
    /// ```
    pub fn resume(self) -> ! {
        // No hook is asked again; whoever catches it next finds the place here.
        remember(self.message.as_deref(), self.location.clone());
        panic::resume_unwind(self.into_payload())
    }

    fn take(&self) -> Option<Box<dyn Any + Send>> {
        self.payload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.take() {
            discard(payload);
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if let Some(message) = self.message() {
            write!(f, ": {message}")?;
        }
        if let Some(location) = self.location() {
            write!(f, " ({location})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panic({self})")
    }
}

impl Error for Panic {}

/// A place in the source, as a panic hook is told of it.
///
/// ```
/// use backplane::{catch, catch_panic_locations};
/// catch_panic_locations();
/// let (panic, line) = (catch(|| panic!("no disk")).unwrap_err(), line!());
/// let location = panic.location().expect("it was asked for");
/// assert_eq!((&*location.file, location.line), (file!(), line));
/// assert_eq!(location.to_string(), format!("{}:{line}:{}", location.file, location.column));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PanicLocation {
    /// The file, as the compiler was given it.
    pub file: Box<str>,
    /// The line, from one.
    pub line: u32,
    /// The column, from one.
    pub column: u32,
}

impl fmt::Display for PanicLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

static CATCHING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What this thread last said in a panic, and where, until somebody asks.
    static LAST: RefCell<Option<(Option<Box<str>>, PanicLocation)>> = const { RefCell::new(None) };
}

/// From here on, panics caught by [`manage`](crate::Device::manage) and [`watch`](crate::Device::watch) carry their
/// location.
///
/// Only a panic hook can know it. This puts one in front of the hook that is there, which is still called, as it was.
/// Nothing else in this crate touches the hook. A hook set later that does not call the one before takes the
/// locations away again. Calling this twice is calling it once; calling it while the thread panics does nothing, for then
/// the hook cannot be changed.
///
/// ```
/// # use std::{convert::Infallible, pin::pin, task::{Context, Poll, Waker}};
/// use backplane::{Crash, Device};
/// backplane::catch_panic_locations();
/// let mut managed = pin!(Device::new().manage(async { panic!("out of beans") as Result<(), Infallible> }));
/// # let mut cx = Context::from_waker(Waker::noop());
/// # let poll = managed.as_mut().poll(&mut cx);
/// let Poll::Ready(Err(Crash::Panic(panic))) = poll else { panic!() };
/// assert_eq!(panic.message(), Some("out of beans"));
/// assert!(panic.location().is_some());
/// ```
pub fn catch_panic_locations() {
    static ONCE: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(|at| PanicLocation {
                file: at.file().into(),
                line: at.line(),
                column: at.column(),
            });
            remember(info.payload_as_str(), location);
            before(info);
        }));
        CATCHING.store(true, Ordering::Relaxed);
    });
}

fn remember(message: Option<&str>, location: Option<PanicLocation>) {
    if !CATCHING.load(Ordering::Relaxed) && location.is_none() {
        return;
    }
    let last = location.map(|location| (message.map(Box::from), location));
    // A thread that is ending may have no place to keep it; then it is not kept.
    let _ = LAST.try_with(|place| {
        if let Ok(mut place) = place.try_borrow_mut() {
            *place = last;
        }
    });
}

/// Where the last panic was, if it said this.
fn last_location(message: Option<&str>) -> Option<PanicLocation> {
    if !CATCHING.load(Ordering::Relaxed) {
        return None;
    }
    let last = LAST.try_with(|place| place.try_borrow_mut().ok().and_then(|mut place| place.take()));
    let (said, location) = last.ok().flatten()?;
    (said.as_deref() == message).then_some(location)
}

/// Runs `f`; a panic in it is a value.
///
/// As `std::panic::catch_unwind`, but for what becomes of the payload and its words. What `f` has touched may be half
/// done afterwards: only the caller can know that nobody looks at it again.
///
/// ```
/// let panic = backplane::catch(|| -> u32 { panic!("out of {}", "beans") }).unwrap_err();
/// assert_eq!(panic.message(), Some("out of beans"));
/// ```
#[inline]
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(Panic::new)
}

/// Runs `f`; a panic in it is nobody's. For wakers and payloads, which must not stop what goes on around them.
#[inline]
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        discard(payload);
    }
}

/// Drops a payload. One whose destructor panics is leaked, together with what that throws: there is no end to it
/// otherwise.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}
