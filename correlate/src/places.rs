//! Memory for a table: from the allocator, or in huge pages where there is enough of it and the system has them.
//!
//! A large table is read and written all over. With pages of 4 KiB most of what it asks for misses the processor's list of
//! pages as well, and each page is one more fault when the table has grown. Where a system gives huge pages to those who
//! ask, which is how most are set up, asking is all it takes; where it does not, nothing is lost.

use bytemuck::{Pod, cast_slice, cast_slice_mut, zeroed_vec};
use memmap2::MmapMut;

/// So many bytes are worth huge pages; they have 2 MiB on most machines.
const ENOUGH: usize = 4 << 20;

/// A fixed number of places, which are zero at first.
#[derive(Debug)]
pub(crate) enum Places<S> {
    /// From the allocator.
    Small(Vec<S>),
    /// From the system.
    Huge(MmapMut),
}

impl<S: Pod> Places<S> {
    /// So many.
    pub(crate) fn new(count: usize) -> Places<S> {
        let bytes = count * size_of::<S>();
        if bytes < ENOUGH {
            return Places::Small(zeroed_vec(count));
        }
        huge(bytes).map_or_else(|| Places::Small(zeroed_vec(count)), Places::Huge)
    }

    /// All of them.
    #[inline]
    pub(crate) fn all(&self) -> &[S] {
        match self {
            Places::Small(places) => places,
            Places::Huge(bytes) => cast_slice(bytes),
        }
    }

    /// All of them, to be changed.
    #[inline]
    pub(crate) fn all_mut(&mut self) -> &mut [S] {
        match self {
            Places::Small(places) => places,
            Places::Huge(bytes) => cast_slice_mut(bytes),
        }
    }
}

/// Memory that asks for huge pages. `None` where one cannot ask, or there is no memory of this kind.
#[cfg(target_os = "linux")]
fn huge(bytes: usize) -> Option<MmapMut> {
    let memory = MmapMut::map_anon(bytes).ok()?;
    // It is a wish: where there are no huge pages, these are small.
    let _ = memory.advise(memmap2::Advice::HugePage);
    Some(memory)
}

/// Memory that asks for huge pages. `None` where one cannot ask, or there is no memory of this kind.
#[cfg(not(target_os = "linux"))]
fn huge(_: usize) -> Option<MmapMut> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_either_kind_are_zero_and_keep_what_is_put_there() {
        for count in [1, 64, ENOUGH / 24 + 1, ENOUGH] {
            let mut places = Places::<[u64; 3]>::new(count);
            assert_eq!(matches!(places, Places::Huge(_)), cfg!(target_os = "linux") && count * 24 >= ENOUGH);
            assert!(places.all().len() == count && places.all().iter().all(|place| *place == [0; 3]));
            places.all_mut().iter_mut().zip(1..).for_each(|(place, n)| *place = [n; 3]);
            assert!(places.all().iter().zip(1..).all(|(place, n)| *place == [n; 3]));
        }
    }
}
