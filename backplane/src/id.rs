//! Names that are never used twice.

use std::{fmt, num::NonZeroU64};

/// The name of a [`Device`](crate::Device): never reused in the life of the process, and `Option<DeviceId>` costs
/// nothing more.
///
/// Prints as `place.time`: the place in memory that the device occupied, and how many devices that place has seen.
///
/// ```
/// use backplane::Device;
/// let first = Device::new().id();
/// let second = Device::new().id();
/// assert_ne!(first, second); // though the second lives where the first did
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(NonZeroU64);

impl DeviceId {
    /// `generation` is at least one, which is what makes the whole non-zero.
    #[inline]
    pub(crate) fn new(index: u32, generation: u32) -> DeviceId {
        DeviceId::from_u64((u64::from(generation) << 32) | u64::from(index))
    }

    /// The inverse of [`as_u64`](DeviceId::as_u64), for our own use: a name that was never given cannot be made up.
    #[inline]
    pub(crate) fn from_u64(number: u64) -> DeviceId {
        DeviceId(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// The number behind the name, for tables and logs; it cannot be turned back into a `DeviceId`.
    ///
    /// ```
    /// use backplane::Device;
    /// let (a, b) = (Device::new(), Device::new());
    /// assert_ne!(a.id().as_u64(), b.id().as_u64());
    /// ```
    #[inline]
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, index) = (self.0.get() >> 32, self.0.get() & u64::from(u32::MAX));
        write!(f, "{index}.{}", generation.div_ceil(2))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}
