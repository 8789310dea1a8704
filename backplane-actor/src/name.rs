//! What people and logs call an actor.

use std::{fmt, num::NonZeroU64, sync::Arc};

/// An actor's name for people: a number that its system gives once, and a label if it has one.
///
/// It stays the same when the actor is restarted.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// use backplane_actor::Options;
///
/// let (named, _home) = system.prepare::<u32>(Options::new().label("counter"));
/// let (unnamed, _home) = system.prepare::<u32>(Options::new());
/// assert_eq!(named.name().to_string(), "counter");
/// assert_eq!(unnamed.name().to_string(), "actor 2");
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ActorName {
    pub(crate) number: NonZeroU64,
    pub(crate) label: Option<Arc<String>>,
}

impl ActorName {
    /// Its label.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (named, _home) = system.prepare::<u32>(Options::new().label("counter"));
    /// let (unnamed, _home) = system.prepare::<u32>(Options::new());
    /// assert_eq!(named.name().label(), Some("counter"));
    /// assert_eq!(unnamed.name().label(), None);
    /// # }
    /// ```
    pub fn label(&self) -> Option<&str> {
        self.label.as_ref().map(|label| label.as_str())
    }
}

impl fmt::Display for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "{label}"),
            None => write!(f, "actor {}", self.number),
        }
    }
}

impl fmt::Debug for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorName({self})")
    }
}
